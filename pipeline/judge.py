"""From frames to decisions: preprocess, infer, decide. The line and `inspect` share these lines.

A part that cannot be judged becomes an `err` with the reason; nothing is lost and nothing passes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.backends.base import Engine
from ..engine.preprocess import map_to_image
from ..engine.spec import InputSpec, Threshold
from .admission import Ticket
from .clock import Clock
from .decide import Decision, Rule, decide, uninspected
from .defects import Place
from .prepare import prepared_for
from .records import Affine, Latency, Result

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
    anomaly_map: NDArray[np.float32] | None = None
    map_to_image: Affine | None = None


def judge(
    engine: Engine, threshold: Threshold, tickets: Sequence[Ticket], clock: Clock
) -> list[Judged]:
    """One `Judged` per ticket, in order. At most `engine.manifest.batch` tickets."""
    spec = engine.manifest.input
    taken_ns = clock.mono_ns()
    inputs: list[NDArray[np.float32] | Decision] = [
        _network_input(ticket, spec, threshold.value, clock) for ticket in tickets
    ]
    preprocessed_ns = clock.mono_ns()
    usable = [value for value in inputs if not isinstance(value, Decision)]
    outputs = iter(_infer(engine, usable, threshold.value))
    inferred_ns = clock.mono_ns()
    judged = []
    for ticket, value in zip(tickets, inputs, strict=True):
        output = value if isinstance(value, Decision) else next(outputs)
        if isinstance(output, Decision):
            decision, anomaly_map, transform = output, None, None
        else:
            anomaly_map, score = output
            size = _image_size(ticket)
            transform = map_to_image(spec, size)
            rule = Rule(threshold.value, threshold.review_value)
            contract, place = engine.manifest.score, Place(transform, size)
            decision = decide(anomaly_map, score, (rule,), contract, place)
        judged.append(
            Judged(
                ticket=ticket,
                decision=decision,
                taken_ns=taken_ns,
                preprocessed_ns=preprocessed_ns,
                inferred_ns=inferred_ns,
                decided_ns=clock.mono_ns(),
                anomaly_map=anomaly_map,
                map_to_image=transform,
            )
        )
    return judged


def not_judged(ticket: Ticket, reason: str, detail: str, threshold: float, now_ns: int) -> Judged:
    """The `err` of a part that never reached the network."""
    decision = uninspected(reason, detail, threshold)
    return Judged(ticket, decision, now_ns, now_ns, now_ns, now_ns)


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
        pixels=frame.pixels,
        anomaly_map=judged.anomaly_map if decision.evaluated else None,
        map_to_image=judged.map_to_image if decision.evaluated else None,
    )


def _us(start_ns: int, end_ns: int) -> int:
    return max(0, end_ns - start_ns) // 1000


def _image_size(ticket: Ticket) -> tuple[int, int]:
    pixels = ticket.frame.pixels
    assert pixels is not None, "a part without pixels never reaches the network"
    return pixels.shape[0], pixels.shape[1]


def _network_input(
    ticket: Ticket, spec: InputSpec, threshold: float, clock: Clock
) -> NDArray[np.float32] | Decision:
    prepared = prepared_for(ticket.frame, spec, clock)
    if prepared.values is None:
        return uninspected(prepared.failure, prepared.detail, threshold)
    return prepared.values


def _infer(
    engine: Engine, inputs: Sequence[NDArray[np.float32]], threshold: float
) -> Sequence[tuple[NDArray[np.float32], float] | Decision]:
    """(map, score) for each input, or the `err` of an input that the engine failed on."""
    if not inputs:
        return ()
    try:
        maps, scores = engine.infer(inputs[0][None] if len(inputs) == 1 else np.stack(inputs))
    except Exception as error:
        # Backends raise classes of their own. Whatever it was, these parts were not inspected,
        # and in a batch only the one that breaks the engine shall suffer for it.
        if len(inputs) > 1:
            return [_infer(engine, [one], threshold)[0] for one in inputs]
        log.exception("the engine failed on a part")
        return [uninspected("engine", f"{type(error).__name__}: {error}", threshold)]
    return [(maps[index], float(scores[index])) for index in range(len(inputs))]


def warm_up(engine: Engine, runs: int = 3) -> None:
    """Let the backend allocate and tune before the first part; raises what the engine raises."""
    spec = engine.manifest.input
    blank = np.zeros((engine.manifest.batch, 3, spec.height, spec.width), np.float32)
    for _ in range(runs):
        _, scores = engine.infer(blank)
    if not all(math.isfinite(score) for score in scores):
        log.warning("the network's score of a blank image is not finite")
