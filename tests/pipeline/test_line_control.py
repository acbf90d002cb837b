"""What operators change while the line runs, and what it refuses."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.spec import Manifest
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.control_port import ControlRefused, LineControl
from skrd4ad.pipeline.line import run_line
from skrd4ad.pipeline.line_control import RunningLine
from skrd4ad.pipeline.line_records import LineSettings, LineSummary
from skrd4ad.pipeline.records import Announced, Verdict


@pytest.fixture(scope="module")
def manifest(tiny_plan: Path) -> Manifest:
    return msgspec.structs.replace(load_plan(tiny_plan).manifest, batch=4)


def run_with_control(
    parts: ModuleType,
    manifest: Manifest,
    script: Callable[[list[LineControl]], list[object]],
    on_admitted: Callable[[Announced], None] = lambda part: None,
) -> tuple[LineSummary, object]:
    controls: list[LineControl] = []
    outlet = parts.RecordingOutlet()
    source = parts.ScriptedSource(script(controls), then="end")
    summary = run_line(
        [CameraSettings("cam", lambda: source)],
        lambda: parts.ArithmeticEngine(manifest),
        parts.THRESHOLD,
        outlet,
        LineSettings(),
        threading.Event(),
        on_admitted=on_admitted,
        on_control=controls.append,
    )
    return summary, outlet


def test_a_new_threshold_judges_later_parts_and_its_revision_goes_ahead(
    parts: ModuleType, manifest: Manifest
) -> None:
    answers: list[int] = []

    def script(controls: list[LineControl]) -> list[object]:
        def changed() -> object:
            answers.append(controls[0].set_threshold("", "", 0.2, "operator"))
            return parts.shot(2, 100)

        return [lambda: parts.shot(1, 100), changed, lambda: parts.shot(3, 100)]

    summary, outlet = run_with_control(parts, manifest, script)
    assert answers == [parts.THRESHOLD.revision + 1]
    last = outlet.results[-1]
    assert (last.verdict, last.threshold) == (Verdict.NG, 0.2)
    (revision,) = [entry for entry in outlet.log if entry[0] == "revision"]
    _, number, before = revision
    assert number == answers[0]
    # Exactly the results after the revision were judged by the new threshold.
    assert {result.threshold for result in outlet.results[:before]} <= {0.5}
    assert {result.threshold for result in outlet.results[before:]} == {0.2}
    assert summary.balance.results == 3


def test_drain_ends_the_line_with_a_result_for_every_part(
    parts: ModuleType, manifest: Manifest
) -> None:
    def script(controls: list[LineControl]) -> list[object]:
        def drained() -> object:
            controls[0].drain()
            return parts.shot(2)

        return [lambda: parts.shot(1), drained, *[None] * 100_000]

    summary, outlet = run_with_control(parts, manifest, script)
    assert summary.ended_by == "stop"
    assert summary.balance.balanced
    assert summary.balance.results == summary.balance.admitted == len(outlet.results) >= 1
    assert outlet.states[-1] == "BYE"


def test_every_part_is_announced_before_its_result_exists(
    parts: ModuleType, manifest: Manifest
) -> None:
    announced: list[int] = []
    late: list[int] = []

    def script(controls: list[LineControl]) -> list[object]:
        return [lambda number=number: parts.shot(number) for number in range(1, 51)]

    outlet_results: list[int] = []

    class Outlet(parts.RecordingOutlet):  # type: ignore[name-defined,misc]
        def send_result(self, result: object, dropped_since_boot: int = 0) -> int:
            if result.camera_seq not in announced:  # type: ignore[attr-defined]
                late.append(result.camera_seq)  # type: ignore[attr-defined]
            outlet_results.append(result.camera_seq)  # type: ignore[attr-defined]
            return super().send_result(result, dropped_since_boot)

    source = parts.ScriptedSource(script([]))
    run_line(
        [CameraSettings("cam", lambda: source)],
        lambda: parts.ArithmeticEngine(manifest),
        parts.THRESHOLD,
        Outlet(),
        LineSettings(),
        threading.Event(),
        on_admitted=lambda part: announced.append(part.camera_seq),
    )
    assert announced == outlet_results == list(range(1, 51))
    assert late == []


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (lambda line: line.set_threshold("nix", "", 0.4, "me"), "no camera 'nix'"),
        (lambda line: line.set_threshold("left", "", 0.4, "me"), "share one plan"),
        (lambda line: line.set_threshold("", "edge", 0.4, "me"), "no region 'edge'"),
        (lambda line: line.set_threshold("", "", math.nan, "me"), "finite"),
        (lambda line: line.trigger("", None), "no trigger"),
        (lambda line: line.reload_plan("", "other.skplan"), "cannot change its plan"),
        (lambda line: line.resync("left"), "nothing to resync"),
    ],
)
def test_what_the_line_cannot_do_is_refused_with_the_reason(
    parts: ModuleType, order: Callable[[LineControl], object], said: str
) -> None:
    line = RunningLine(["left", "right"], parts.THRESHOLD, lambda: None)
    with pytest.raises(ControlRefused, match=said):
        order(line)
    assert line.threshold is parts.THRESHOLD
