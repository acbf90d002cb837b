"""From frames to decisions: preprocess, infer, decide. The line and `inspect` share these lines.

A part that cannot be judged becomes an `err` with the reason; nothing is lost and nothing passes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.backends.base import Engine
from ..errors import ConfigError
from . import wire_messages as wire
from .admission import Ticket
from .clock import Clock
from .decide import Decision, decide, uninspected
from .defects import Place
from .prepare import prepared_for
from .records import Affine, Latency, Prepared, Result
from .rulebook import Rulebook
from .view import View

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A part with its decision and the instants it passed (monotonic ns)."""

    ticket: Ticket
    decision: Decision
    taken_ns: int
    preprocessed_ns: int
    inferred_ns: int
    decided_ns: int
    pixels: NDArray[np.uint8] | None = None
    """The corrected picture."""
    anomaly_map: NDArray[np.float32] | None = None
    map_to_image: Affine | None = None
    model: wire.ModelFields | None = None
    """What judged it, or would have."""


def judge(
    engine: Engine,
    rulebook: Rulebook,
    view_of: Callable[[str], View],
    tickets: Sequence[Ticket],
    clock: Clock,
) -> list[Judged]:
    """One `Judged` per ticket, in order. At most `engine.manifest.batch` tickets.

    `view_of` gives the view of a camera.
    """
    taken_ns = clock.mono_ns()
    prepared = [
        prepared_for(ticket.frame, view_of(ticket.frame.camera), clock) for ticket in tickets
    ]
    preprocessed_ns = clock.mono_ns()
    outputs = iter(_infer(engine, [one.values for one in prepared if one.values is not None]))
    inferred_ns = clock.mono_ns()
    judged = []
    for ticket, one in zip(tickets, prepared, strict=True):
        output = None if one.values is None else next(outputs)
        decision, place = _decided(ticket, one, output, engine, rulebook)
        judged.append(
            Judged(
                ticket=ticket,
                decision=decision,
                taken_ns=taken_ns,
                preprocessed_ns=preprocessed_ns,
                inferred_ns=inferred_ns,
                decided_ns=clock.mono_ns(),
                pixels=one.pixels,
                anomaly_map=output.anomaly_map if isinstance(output, _Output) else None,
                map_to_image=None if place is None else place.map_to_image,
                model=rulebook.model,
            )
        )
    return judged


@dataclass(frozen=True, slots=True, eq=False)
class _Output:
    """What the network said of one part."""

    anomaly_map: NDArray[np.float32]
    score: float


def _decided(
    ticket: Ticket,
    prepared: Prepared,
    output: _Output | str | None,
    engine: Engine,
    rulebook: Rulebook,
) -> tuple[Decision, Place | None]:
    """The decision, and where the map lies in the picture when there is a map."""
    camera = ticket.frame.camera
    if output is None:
        return uninspected(prepared.failure, prepared.detail, rulebook.value(camera)), None
    if isinstance(output, str):
        return uninspected("engine", output, rulebook.value(camera)), None
    view, pixels = prepared.view, prepared.pixels
    assert isinstance(view, View), "prepared for a view"
    assert pixels is not None, "a part without pixels never reaches the network"
    size = pixels.shape[0], pixels.shape[1]
    try:
        rules = rulebook.rules(camera, view, size)
    except ConfigError as error:
        return uninspected("wrong_image", str(error), rulebook.value(camera)), None
    place = Place(view.transform(size), size, prepared.image_to_mm)
    contract = engine.manifest.score
    return decide(output.anomaly_map, output.score, rules, contract, place), place


def not_judged(ticket: Ticket, reason: str, detail: str, rulebook: Rulebook, now_ns: int) -> Judged:
    """The `err` of a part that never reached the network."""
    decision = uninspected(reason, detail, rulebook.value(ticket.frame.camera))
    return Judged(ticket, decision, now_ns, now_ns, now_ns, now_ns, model=rulebook.model)


def result_of(judged: Judged, decision: Decision, now_ns: int) -> Result:
    """The record that is published, at the monotonic instant `now_ns` just before it is sent.

    `decision` is `judged.decision` after the deadline was applied.
    """
    frame, admitted_ns = judged.ticket.frame, judged.ticket.admitted_mono_ns
    prepared_before_us = frame.prepared.took_ns // 1000 if frame.prepared else 0
    return Result(
        camera=frame.camera,
        camera_seq=frame.camera_seq,
        frame_id=frame.frame_id,
        captured_ns=frame.captured_ns,
        captured_mono_ns=frame.captured_mono_ns,
        captured_source=frame.captured_source,
        captured_error_ns=frame.captured_error_ns,
        part=frame.part,
        name=frame.name,
        verdict=decision.verdict,
        reasons=decision.reasons,
        evaluated=decision.evaluated,
        score=decision.score,
        threshold=decision.threshold,
        defects=decision.defects,
        latency=Latency(
            capture_us=max(0, _us(frame.captured_mono_ns, admitted_ns) - prepared_before_us),
            queue_us=_us(admitted_ns, judged.taken_ns),
            preprocess_us=prepared_before_us + _us(judged.taken_ns, judged.preprocessed_ns),
            infer_us=_us(judged.preprocessed_ns, judged.inferred_ns),
            decide_us=_us(judged.inferred_ns, judged.decided_ns),
            publish_us=_us(judged.decided_ns, now_ns),
            total_us=_us(frame.captured_mono_ns, now_ns),
        ),
        late=decision.late,
        simulated=frame.simulated,
        detail=decision.detail or frame.detail,
        truth=frame.truth,
        pixels=frame.pixels if judged.pixels is None else judged.pixels,
        model=judged.model,
        anomaly_map=judged.anomaly_map if decision.evaluated else None,
        map_to_image=judged.map_to_image if decision.evaluated else None,
    )


def _us(start_ns: int, end_ns: int) -> int:
    return max(0, end_ns - start_ns) // 1000


def _infer(engine: Engine, inputs: Sequence[NDArray[np.float32]]) -> Sequence[_Output | str]:
    """What the network says of each input; a text for one that the engine failed on."""
    if not inputs:
        return ()
    try:
        maps, scores = engine.infer(inputs[0][None] if len(inputs) == 1 else np.stack(inputs))
    except Exception as error:
        # Backends raise classes of their own. Whatever it was, these parts were not inspected,
        # and in a batch only the one that breaks the engine shall suffer for it.
        if len(inputs) > 1:
            return [_infer(engine, [one])[0] for one in inputs]
        log.exception("the engine failed on a part")
        return [f"{type(error).__name__}: {error}"]
    return [_Output(maps[index], float(scores[index])) for index in range(len(inputs))]


def warm_up(engine: Engine, runs: int = 3) -> None:
    """Let the backend allocate and tune before the first part; raises what the engine raises."""
    spec = engine.manifest.input
    blank = np.zeros((engine.manifest.batch, 3, spec.height, spec.width), np.float32)
    for _ in range(runs):
        _, scores = engine.infer(blank)
    if not all(math.isfinite(score) for score in scores):
        log.warning("the network's score of a blank image is not finite")
