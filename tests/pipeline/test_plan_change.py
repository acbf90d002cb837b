"""Another plan while the line runs: no part lost or judged twice, each event names its judge."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
from skrd4ad.calibration.correction import Correction
from skrd4ad.calibration.flatfield import estimate_flat_field
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.spec import InputSpec, Manifest, Regions, Roi
from skrd4ad.errors import ConfigError, EngineError
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.control_port import ControlRefused, LineControl
from skrd4ad.pipeline.line import run_line
from skrd4ad.pipeline.line_plan import LinePlan, seats
from skrd4ad.pipeline.line_records import LineSettings, LineSummary
from skrd4ad.pipeline.outlet import Alarm
from skrd4ad.pipeline.plan_change import PlanChanges
from skrd4ad.pipeline.records import Result, Verdict
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.view import View
from skrd4ad.pipeline.wire import ResultMessage
from skrd4ad.pipeline.wire_messages import ModelFields

PATIENCE_S = 60.0
FLAT = Correction(flat_field=estimate_flat_field([np.full((48, 64, 3), 180, np.uint8)]))


@pytest.fixture(scope="module")
def manifest(tiny_plan: Path) -> Manifest:
    return msgspec.structs.replace(load_plan(tiny_plan).manifest, batch=4)


@dataclass
class Shelf:
    """Plans "0", "1", ...: number n adds n to every score, has the threshold n + 0.5 and batch n+1.

    `open` counts the engines that are open now.
    """

    parts: ModuleType
    manifest: Manifest
    open: int = 0
    before: Callable[[np.ndarray], None] = lambda batch: None
    faults: dict[str, Exception] = field(default_factory=dict)

    def plan(self, slot: str, name: str) -> LinePlan:
        if name not in "0123":
            raise ConfigError(f"'{name}' is not a plan that orders may load")
        number, shelf = int(name), self

        class Engine(self.parts.ArithmeticEngine):  # type: ignore[name-defined,misc]
            def __enter__(self) -> Engine:
                shelf.open += 1
                return self

            def __exit__(self, *exc: object) -> None:
                shelf.open -= 1

            def infer(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                if f"infer {name}" in shelf.faults:
                    raise shelf.faults[f"infer {name}"]
                maps, scores = super().infer(batch)
                return maps + np.float32(number), scores + np.float32(number)

        def open_engine() -> Engine:
            if f"open {name}" in shelf.faults:
                raise shelf.faults[f"open {name}"]
            own = msgspec.structs.replace(self.manifest, batch=number + 1)
            return Engine(own, self.before)

        threshold = msgspec.structs.replace(
            self.parts.THRESHOLD, value=number + 0.5, revision=10 * number
        )
        return LinePlan(open_engine, threshold, slot, ModelFields(name=name, plan=f"digest {name}"))

    def more(self, results: list[Result]) -> None:
        """Wait until another part was judged."""
        count, deadline = len(results), time.monotonic() + PATIENCE_S
        while len(results) == count:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def run(
        self,
        levels: list[int],
        orders: Callable[[LineControl, list[Result]], None],
        cameras: int = 1,
        stop: threading.Event | None = None,
        **settings: object,
    ) -> tuple[LineSummary, object]:
        """A line of plan "0" whose `orders` are given from a thread of their own; cameras go on
        until the orders are done."""
        outlet, stop = self.parts.RecordingOutlet(), stop or threading.Event()
        done, failures = threading.Event(), []
        threads: list[threading.Thread] = []

        def give(control: LineControl) -> None:
            try:
                self.more(outlet.results)
                orders(control, outlet.results)
            except BaseException as error:
                failures.append(error)
            finally:
                done.set()

        def begin(control: LineControl) -> None:
            threads.append(threading.Thread(target=give, args=(control,)))
            threads[0].start()

        def script() -> Iterator[object]:
            number = 0
            while not (done.is_set() and number >= len(levels)):
                number += 1
                level = levels[number % len(levels)]
                yield lambda number=number, level=level: self.parts.shot(number, level)

        sources = {f"cam{n}": self.parts.ScriptedSource(script()) for n in range(cameras)}
        summary = run_line(
            [CameraSettings(name, lambda name=name: sources[name]) for name in sources],
            [self.plan("", "0")],
            outlet,
            LineSettings(**settings),
            stop,
            on_control=begin,
            load_plan=lambda slot, path: self.plan(slot, path),
        )
        threads[0].join(PATIENCE_S)
        assert not failures, failures
        return summary, outlet


@pytest.fixture
def shelf(parts: ModuleType, manifest: Manifest) -> Shelf:
    return Shelf(parts, manifest)


def check_each_was_judged_by_what_it_names(results: list[Result], levels: list[int]) -> None:
    for result in results:
        assert result.model is not None
        number, level = int(result.model.name), levels[result.camera_seq % len(levels)]
        assert result.model.plan == f"digest {number}"
        assert result.model.thr_rev == 10 * number
        assert result.threshold == number + 0.5
        assert result.score == pytest.approx(number + level / 255, abs=1e-3)
        assert result.verdict is (Verdict.NG if level > 127 else Verdict.OK)


@pytest.mark.parametrize("mode", ["every", "latest"])
def test_twenty_changes_under_load_lose_and_repeat_nothing(shelf: Shelf, mode: str) -> None:
    levels = [0, 255, 10, 200]

    def orders(control: LineControl, results: list[Result]) -> None:
        for turn in range(10):
            assert control.reload_plan("", str(turn % 3 + 1)) == f"digest {turn % 3 + 1}"
            shelf.more(results)
            if turn % 2:
                assert control.rollback_plan("cam0") == f"digest {(turn - 1) % 3 + 1}"
                control.rollback_plan("cam0")

    summary, outlet = shelf.run(levels * 30, orders, cameras=2, depth=4, mode=mode)
    results = outlet.results
    check_each_was_judged_by_what_it_names(results, levels * 30)
    assert summary.balance.balanced
    assert summary.balance.pending == 0
    assert len({result.model.name for result in results}) == 4
    for camera in ("cam0", "cam1"):
        own = [result.camera_seq for result in results if result.camera == camera]
        assert own == (list(range(1, len(own) + 1)) if mode == "every" else sorted(set(own)))
    # The plans follow each other in the events as they did on the line: no batch was mixed.
    assert 3 <= sum(a.model != b.model for a, b in pairwise(results)) <= 20
    assert shelf.open == 0, "an engine was left open"
    assert outlet.alarms == []


@pytest.mark.parametrize(
    ("order", "fault", "said"),
    [
        ("nine", None, "'nine' is not a plan"),
        ("1", ("open 1", EngineError("built for another GPU")), "built for another GPU"),
        ("1", ("infer 1", RuntimeError("out of memory")), "RuntimeError: out of memory"),
    ],
)
def test_a_plan_that_fails_leaves_the_old_one_running(
    shelf: Shelf, order: str, fault: tuple[str, Exception] | None, said: str
) -> None:
    if fault is not None:
        shelf.faults[fault[0]] = fault[1]
    levels = [0, 255]

    def orders(control: LineControl, results: list[Result]) -> None:
        with pytest.raises(ControlRefused, match=said):
            control.reload_plan("", order)
        assert shelf.open == 1

    summary, outlet = shelf.run(levels * 20, orders)
    check_each_was_judged_by_what_it_names(outlet.results, levels * 20)
    assert {result.model.name for result in outlet.results} == {"0"}
    assert outlet.alarms == [("reload_failed", "", True), ("reload_failed", "", False)]
    assert (summary.balance.balanced, shelf.open) == (True, 0)


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ({"regions": Regions(image_width=640, image_height=480)}, "640 x 480 pixels, but the"),
        ({"spec": InputSpec(roi=Roi(x=20, y=0, width=30, height=30))}, "not inside the 32 x 32"),
        ({"correction": FLAT}, "the flat field is for 64 x 48 pixels, but the camera gives 32 x"),
    ],
)
def test_a_plan_that_cannot_see_the_cameras_pictures_is_refused(
    shelf: Shelf, view: dict[str, object], said: str
) -> None:
    plain = shelf.plan

    def load(slot: str, path: str) -> LinePlan:
        seen = View(**{"spec": shelf.manifest.input, **view})
        return replace(plain(slot, path), views={"cam0": seen})

    def orders(control: LineControl, results: list[Result]) -> None:
        shelf.plan = load  # type: ignore[method-assign]
        with pytest.raises(ControlRefused, match=f"camera cam0: .*{said}"):
            control.reload_plan("", "1")

    _, outlet = shelf.run([0, 255], orders)
    assert {result.model.name for result in outlet.results} == {"0"}


def test_a_change_is_made_while_no_part_comes(shelf: Shelf) -> None:
    outlet, stop = shelf.parts.RecordingOutlet(), threading.Event()
    digests: list[str] = []

    def begin(control: LineControl) -> None:
        def order() -> None:
            digests.append(control.reload_plan("", "2"))
            stop.set()

        threading.Thread(target=order).start()

    run_line(
        [CameraSettings("cam", lambda: shelf.parts.ScriptedSource([], then="idle"))],
        [shelf.plan("", "0")],
        outlet,
        LineSettings(),
        stop,
        on_control=begin,
        load_plan=shelf.plan,
    )
    assert digests == ["digest 2"]
    assert shelf.open == 0


def test_a_threshold_that_was_ordered_belongs_to_its_plan(shelf: Shelf) -> None:
    def orders(control: LineControl, results: list[Result]) -> None:
        assert control.set_threshold("", "", 0.25, "me") == 1
        control.reload_plan("", "1")
        assert control.threshold("cam0").value == 1.5
        assert control.set_threshold("", "", 1.75, "me") == 11

    _, outlet = shelf.run([0], orders)
    seen = {(r.model.name, r.model.thr_rev, r.threshold) for r in outlet.results}
    assert seen <= {("0", 0, 0.5), ("0", 1, 0.25), ("1", 10, 1.5), ("1", 11, 1.75)}


def test_one_change_at_a_time_and_none_when_the_engine_hangs(
    shelf: Shelf, parts: ModuleType
) -> None:
    """No line: nobody comes to the end of a batch."""
    said: list[Alarm] = []
    loading, go_on = threading.Event(), threading.Event()

    def slow(slot: str, path: str) -> LinePlan:
        loading.set()
        assert go_on.wait(PATIENCE_S)
        return shelf.plan(slot, path)

    changes = PlanChanges(slow, said.append, swap_limit_s=0.2)
    (slot,) = seats([shelf.plan("", "0")], ["cam"], 1)
    slot.open()
    refused: list[str] = []

    def order() -> None:
        with pytest.raises(ControlRefused) as caught:
            changes.reload(slot, "1")
        refused.append(caught.value.sentence)

    first = threading.Thread(target=order)
    first.start()
    assert loading.wait(PATIENCE_S)
    with pytest.raises(ControlRefused, match="another plan is being loaded"):
        changes.reload(slot, "2")
    go_on.set()
    first.join(PATIENCE_S)
    assert refused == ["the old plan keeps running: the engine does not return"]
    # Too late: what was given up is not swapped in any more.
    changes.swap_if_asked()
    assert slot.rulebook.model.name == "0"
    assert shelf.open == 1
    changes.end()
    with pytest.raises(ControlRefused, match="the line is ending"):
        changes.reload(slot, "1")
    slot.close()
    assert shelf.open == 0
    assert {(alarm.name, alarm.active) for alarm in said} == {
        ("reload_failed", True),
        ("reload_failed", False),
    }


# ---- the real process, real plans, real sockets ---------------------------------------------


def test_a_stream_process_changes_its_plan_and_goes_back(
    streams: ModuleType, tiny: ModuleType, tmp_path: Path
) -> None:
    def plan(path: Path, value: float) -> str:
        path.parent.mkdir(exist_ok=True)
        threshold = msgspec.structs.replace(tiny.THRESHOLD, value=value, revision=3)
        return load_plan(tiny.write_tiny_plan(path, threshold=threshold)).digest

    first = plan(tmp_path / "first.plan", 0.9)
    second = plan(tmp_path / "plans" / "second.plan", 0.8)
    plan(tmp_path / "elsewhere.plan", 0.7)
    (tmp_path / "plans" / "broken.plan").write_bytes(b"PK\x03\x04 nothing more")
    (tmp_path / "plans" / "out.plan").symlink_to(tmp_path / "elsewhere.plan")
    station = tmp_path / "station.yaml"
    station.write_text(
        f"plan: {tmp_path}/first.plan\nplan_folder: {tmp_path}/plans\n"
        "cameras: [{uri: 'test:seed=1,rate=60,size=64,bank=2'}]\n"
        "publish: {control: 'tcp://127.0.0.1:0'}\n"
    )
    with (
        streams.running("--station", station) as line,
        Subscriber(line.ready["events"]) as events,
        ControlClient(line.ready["control"]) as control,
    ):
        headers = (item.header for item in events.items() if isinstance(item, ResultMessage))

        def next_from(digest: str) -> tuple[float | None, int]:
            for header in headers:
                if header.model.plan == digest:
                    return header.thr, header.model.thr_rev
            raise AssertionError("the stream ended")

        assert next_from(first) == (pytest.approx(0.9), 3)
        assert control.reload_plan("second.plan") == second
        assert next_from(second) == (pytest.approx(0.8), 3)
        for path, said in (
            (str(tmp_path / "elsewhere.plan"), "not a plan that orders may load"),
            ("../elsewhere.plan", "not a plan that orders may load"),
            ("out.plan", "not a plan that orders may load"),
            ("broken.plan", "damaged"),
            ("none.plan", "does not exist"),
        ):
            with pytest.raises(ControlRefused, match=said):
                control.reload_plan(path)
        assert next_from(second) == (pytest.approx(0.8), 3)
        assert control.rollback_plan() == first
        assert next_from(first) == (pytest.approx(0.9), 3)
        control.drain()
        summary = line.summary()
    assert (summary["ended_by"], summary["balanced"]) == ("stop", True)
