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
from skrd4ad.engine.spec import Manifest, Region, Regions
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.control_port import ControlRefused, LineControl
from skrd4ad.pipeline.line import run_line
from skrd4ad.pipeline.line_control import RunningLine
from skrd4ad.pipeline.line_plan import LinePlan, PlanSlot, seats
from skrd4ad.pipeline.line_records import LineSettings, LineSummary
from skrd4ad.pipeline.plan_change import PlanChanges
from skrd4ad.pipeline.records import Announced, Verdict
from skrd4ad.pipeline.view import View


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
        [LinePlan(lambda: parts.ArithmeticEngine(manifest), parts.THRESHOLD)],
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
    # Every event names the revision that judged its part.
    by_revision = {(result.model.thr_rev, result.threshold) for result in outlet.results}
    assert by_revision <= {(parts.THRESHOLD.revision, 0.5), (answers[0], 0.2)}
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
        [LinePlan(lambda: parts.ArithmeticEngine(manifest), parts.THRESHOLD)],
        Outlet(),
        LineSettings(),
        threading.Event(),
        on_admitted=lambda part: announced.append(part.camera_seq),
    )
    assert announced == outlet_results == list(range(1, 51))
    assert late == []


REGIONS = Regions(
    image_width=80,
    image_height=80,
    regions=(Region(name="lead", polygon=((5, 5), (30, 5), (30, 30), (5, 30)), threshold=0.7),),
)


def two_cameras(parts: ModuleType, manifest: Manifest) -> tuple[PlanSlot, RunningLine]:
    """Two cameras on one plan; the left one has a region."""
    plain = View(manifest.input)
    views = {"left": View(manifest.input, regions=REGIONS), "right": plain}
    plan = LinePlan(lambda: parts.ArithmeticEngine(manifest), parts.THRESHOLD, views=views)
    (slot,) = seats([plan], ["left", "right"], 1)
    slot.open()
    return slot, RunningLine([slot], PlanChanges(None, lambda alarm: None), lambda: None)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (lambda line: line.set_threshold("nix", "", 0.4, "me"), "no camera 'nix'"),
        (lambda line: line.set_threshold("", "edge", 0.4, "me"), "no region 'edge'"),
        (lambda line: line.set_threshold("right", "lead", 0.4, "me"), "no region 'lead'"),
        (lambda line: line.set_threshold("", "", math.nan, "me"), "finite"),
        (lambda line: line.trigger("", None), "no trigger"),
        (lambda line: line.reload_plan("", "other.plan"), "without a way to load plans"),
        (lambda line: line.rollback_plan(""), "the first one"),
        (lambda line: line.resync("left"), "nothing to resync"),
    ],
)
def test_what_the_line_cannot_do_is_refused_with_the_reason(
    parts: ModuleType, manifest: Manifest, order: Callable[[LineControl], object], said: str
) -> None:
    slot, line = two_cameras(parts, manifest)
    before = slot.rulebook
    with pytest.raises(ControlRefused, match=said):
        order(line)
    assert slot.rulebook is before


def test_a_threshold_for_one_camera_or_region_leaves_the_others(
    parts: ModuleType, manifest: Manifest
) -> None:
    slot, line = two_cameras(parts, manifest)
    assert slot.now is not None

    def thresholds() -> dict[str, list[float]]:
        assert slot.now is not None
        return {
            camera: [rule.threshold for rule in slot.rulebook.rules(camera, view, (80, 80))]
            for camera, view in slot.now.views.items()
        }

    assert thresholds() == {"left": [0.7, 0.5], "right": [0.5]}
    first = slot.rulebook.threshold.revision
    assert line.set_threshold("left", "lead", 0.8, "me") == first + 1
    assert thresholds() == {"left": [0.8, 0.5], "right": [0.5]}
    assert line.set_threshold("right", "", 0.6, "me") == first + 2
    assert thresholds() == {"left": [0.8, 0.5], "right": [0.6]}
    assert line.set_threshold("left", "image", 0.4, "me") == first + 3
    assert thresholds() == {"left": [0.8, 0.4], "right": [0.6]}
    # An order for all cameras counts for those that had one of their own.
    assert line.set_threshold("", "", 0.3, "me") == first + 4
    assert thresholds() == {"left": [0.8, 0.3], "right": [0.3]}
    assert slot.rulebook.model.thr_rev == first + 4


def test_with_several_plans_an_order_must_say_which_camera(
    parts: ModuleType, manifest: Manifest
) -> None:
    plans = [
        LinePlan(
            lambda: parts.ArithmeticEngine(manifest),
            parts.THRESHOLD,
            name=name,
            views={camera: View(manifest.input)},
        )
        for name, camera in (("screws", "left"), ("caps", "right"))
    ]
    slots = seats(plans, ["left", "right"], 1)
    for slot in slots:
        slot.open()
    line = RunningLine(slots, PlanChanges(None, lambda alarm: None), lambda: None)
    with pytest.raises(ControlRefused, match="several plans"):
        line.set_threshold("", "", 0.4, "me")
    line.set_threshold("right", "", 0.4, "me")
    assert [slot.rulebook.value(slot.cameras[0]) for slot in slots] == [0.5, 0.4]
