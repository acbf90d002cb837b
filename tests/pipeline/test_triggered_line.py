"""A line whose camera is triggered by orders: one result for each order, whatever happens."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.spec import Manifest
from skrd4ad.errors import CameraError
from skrd4ad.pipeline.capture.base import Shot
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.control_port import ControlRefused, LineControl
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings, LineSummary
from skrd4ad.pipeline.pairing import TriggerSettings
from skrd4ad.pipeline.records import Announced, Part, Result, Verdict
from skrd4ad.pipeline.trigger_door import Refused

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def manifest(tiny_plan: Path) -> Manifest:
    return msgspec.structs.replace(load_plan(tiny_plan).manifest, batch=4)


class Camera:
    """A camera with a trigger input; `fault` may change what a trigger leads to: a shot, None for
    a frame that is lost on the way, an exception for a trigger that is not taken."""

    live = True

    def __init__(
        self,
        make_shot: Callable[[int], Shot],
        fault: Callable[[int, Shot], object] = lambda number, shot: shot,
    ) -> None:
        self._make_shot, self._fault = make_shot, fault
        self._ready: deque[object] = deque()
        self._lock = threading.Lock()
        self.number = 0
        self.opened = 0

    def open(self) -> None:
        self.opened += 1

    def configure(self) -> None: ...

    def trigger(self, part_id: str | None) -> int:
        with self._lock:
            self.number += 1
            shot = replace(self._make_shot(self.number), part=Part(trigger_seq=self.number))
            found = self._fault(self.number, shot)
            if isinstance(found, CameraError) and found.hint == "at once":
                raise found
            if found is not None:
                self._ready.append(found)
            return self.number

    def unanswered(self) -> list[Shot]:
        return []

    def inherit(self, old: object) -> None: ...

    def grab(self, timeout_s: float) -> Shot | None:
        if not self._ready:
            time.sleep(min(timeout_s, 0.001))
            return None
        found = self._ready.popleft()
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Shot)
        return found

    def close(self) -> None: ...

    @property
    def ready(self) -> bool:
        """Whether a picture waits to be grabbed."""
        return bool(self._ready)


@dataclass
class Bench:
    """A line with one triggered camera, in a thread; `end` gives its summary."""

    parts: ModuleType
    manifest: Manifest
    admitted: list[Announced] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def begin(
        self,
        camera: Camera,
        before: Callable[[np.ndarray], None] = lambda batch: None,
        trigger: dict[str, object] | None = None,
        **settings: object,
    ) -> LineControl:
        self.outlet = self.parts.RecordingOutlet()
        controls: list[LineControl] = []
        running = threading.Event()
        options = {"limit_ms": 30_000.0, **(trigger or {})}  # only where a test is about it

        make_engine = lambda: self.parts.ArithmeticEngine(self.manifest, before)  # noqa: E731
        self.line = self.parts.LineThread(
            [CameraSettings("cam", lambda: camera, trigger=TriggerSettings(**options))],
            [LinePlan(make_engine, self.parts.THRESHOLD)],
            self.outlet,
            LineSettings(**settings),
            on_ready=lambda engines: running.set(),
            on_admitted=self.admitted.append,
            on_control=controls.append,
            on_refused=self.refused.append,
        )
        assert running.wait(PATIENCE_S)
        self.wait_for(lambda: bool(self.outlet.heartbeats))
        return controls[0]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        self.line.wait(condition, lambda: self.outlet.results[-3:])

    def results(self, count: int) -> list[Result]:
        self.wait_for(lambda: len(self.outlet.results) >= count)
        return list(self.outlet.results)

    def end(self) -> LineSummary:
        return self.line.end()


@pytest.fixture
def bench(parts: ModuleType, manifest: Manifest) -> Bench:
    return Bench(parts, manifest)


def order_parts(control: LineControl, count: int, first: int = 1) -> list[int]:
    """Give `count` orders, waiting where the line says that it has enough."""
    given = []
    deadline = time.monotonic() + PATIENCE_S
    while len(given) < count:
        assert time.monotonic() < deadline
        try:
            given.append(control.trigger("", f"A-{first + len(given)}"))
        except ControlRefused:
            time.sleep(0.002)
    return given


def test_two_hundred_orders_give_two_hundred_results_with_their_ids(
    bench: Bench, parts: ModuleType
) -> None:
    def fault(number: int, shot: Shot) -> object:
        if number % 11 == 5:
            return None  # lost between camera and box
        if number % 11 == 9:
            return replace(shot, pixels=None, failure="incomplete", detail="packets are missing")
        return shot

    control = bench.begin(Camera(lambda number: parts.shot(number, number % 200), fault))
    given = order_parts(control, 200)
    results = bench.results(199)  # the very last ones may still wait for their frame
    summary = bench.end()
    results = list(bench.outlet.results)
    assert given == list(range(1, 201))
    assert [result.part.trigger_seq for result in results] == given
    assert [result.camera_seq for result in results] == given
    assert [result.part.part_id for result in results] == [f"A-{number}" for number in given]
    for number, result in zip(given, results, strict=True):
        assert result.part.source == "plc"
        if number % 11 == 5:
            assert (result.verdict, result.reasons) == (Verdict.ERR, ("no_frame",))
            assert result.part.match == "none"
        elif number % 11 == 9:
            assert (result.verdict, result.reasons) == (Verdict.ERR, ("incomplete",))
        else:
            # The score is the grey level of this very part, so no verdict has moved to another.
            assert result.score == pytest.approx(number % 200 / 255, abs=1e-3)
            assert result.part.match == "exact"
    assert [part.part.part_id for part in bench.admitted] == [f"A-{number}" for number in given]
    assert summary.balance.balanced
    assert (summary.balance.admitted, summary.balance.results) == (200, 200)
    assert all(health.balance.holds for health in bench.outlet.heartbeats)


def test_an_order_without_an_id_is_a_part_of_the_lines_own(bench: Bench, parts: ModuleType) -> None:
    control = bench.begin(Camera(parts.shot))
    assert control.trigger("cam", None) == 1
    (result,) = bench.results(1)
    bench.end()
    assert (result.part.part_id, result.part.trigger_seq) == (None, 1)
    assert (result.part.source, result.part.match) == ("line", "exact")


def test_more_orders_than_the_line_can_bear_are_refused_with_an_answer(
    bench: Bench, parts: ModuleType
) -> None:
    go_on = threading.Event()
    warm = threading.Event()

    def before(batch: np.ndarray) -> None:
        if warm.is_set():
            go_on.wait(PATIENCE_S)

    control = bench.begin(Camera(parts.shot), before, {"under_way": 3, "limit_ms": 60_000})
    warm.set()
    assert [control.trigger("", f"A-{n}") for n in (1, 2, 3)] == [1, 2, 3]
    for _ in range(5):
        with pytest.raises(ControlRefused, match="3 parts of camera cam are under way"):
            control.trigger("", "A-4")
    assert [refused.part_id for refused in bench.refused] == ["A-4"] * 5
    bench.wait_for(lambda: bench.outlet.heartbeats[-1].cams["cam"].refused == 5)
    assert bench.outlet.heartbeats[-1].cams["cam"].admitted == 3
    go_on.set()
    bench.results(3)
    bench.wait_for(lambda: bench.outlet.heartbeats[-1].balance.pending == 0)
    assert control.trigger("", "A-5") == 4
    results = bench.results(4)
    summary = bench.end()
    # A refused part took no number and has no result: the answer was its result.
    assert [result.part.part_id for result in results] == ["A-1", "A-2", "A-3", "A-5"]
    assert summary.balance.balanced


def test_a_part_that_waited_too_long_is_late_and_costs_no_inference(
    bench: Bench, parts: ModuleType
) -> None:
    warm, inferred = threading.Event(), []

    def slow(batch: np.ndarray) -> None:
        if warm.is_set():
            inferred.append(len(batch))
            time.sleep(0.6)

    bench.manifest = msgspec.structs.replace(bench.manifest, batch=1)
    control = bench.begin(Camera(parts.shot), slow, {"under_way": 3}, deadline_ms=400.0)
    warm.set()
    order_parts(control, 3)
    results = bench.results(3)
    summary = bench.end()
    # The first is late when it is published; the others were given up before they were inferred.
    assert [result.reasons for result in results] == [("late",)] * 3
    assert [result.verdict for result in results] == [Verdict.ERR] * 3
    assert inferred == [1]
    assert "before it could be inspected" in results[1].detail
    assert summary.balance.balanced


def test_a_lost_camera_answers_each_order_and_good_results_come_back(
    bench: Bench, parts: ModuleType
) -> None:
    lost = CameraError("the cable is out")

    def fault(number: int, shot: Shot) -> object:
        return {3: lost, 4: None}.get(number, shot)

    camera = Camera(parts.shot, fault)
    control = bench.begin(camera)
    for number in (1, 2):
        control.trigger("", f"A-{number}")
        bench.results(number)
    for number in (3, 4):
        control.trigger("", f"A-{number}")
    bench.results(4)
    bench.wait_for(lambda: camera.opened == 2 and "RUNNING" in bench.outlet.states[2:])
    number = 5
    control.trigger("", "A-5")
    results = bench.results(number)
    bench.end()
    assert [result.verdict.value for result in results] == ["ok", "ok", "err", "err", "ok"]
    assert results[2].reasons == ("camera_lost",)
    assert results[2].detail == "the cable is out"
    assert results[3].reasons[0] in ("camera_lost", "no_frame")
    assert ("trigger_mismatch", "cam", True) not in bench.outlet.alarms


def test_a_trigger_the_camera_does_not_take_is_an_err_of_that_part_alone(
    bench: Bench, parts: ModuleType
) -> None:
    refused = CameraError("the camera did not answer", "at once")
    camera = Camera(parts.shot, lambda number, shot: refused if number == 2 else shot)
    control = bench.begin(camera)
    order_parts(control, 3)
    results = bench.results(3)
    bench.end()
    assert [result.reasons for result in results] == [(), ("camera_lost",), ()]
    assert results[1].detail == "the camera did not answer"


def test_a_mismatch_rejects_all_until_the_resync_and_raises_its_alarm(
    bench: Bench, parts: ModuleType
) -> None:
    def foreign(number: int, shot: Shot) -> object:
        return replace(shot, part=Part(trigger_seq=99)) if number == 2 else shot

    control = bench.begin(Camera(parts.shot, foreign))
    for number in range(1, 5):
        order_parts(control, 1, first=number)
        bench.results(number)
    bench.wait_for(lambda: ("trigger_mismatch", "cam", True) in bench.outlet.alarms)
    bench.wait_for(lambda: not bench.outlet.heartbeats[-1].ready)
    control.resync("cam")
    bench.wait_for(lambda: bench.outlet.heartbeats[-1].ready)
    order_parts(control, 1, first=5)
    results = bench.results(5)
    bench.wait_for(lambda: ("trigger_mismatch", "cam", False) in bench.outlet.alarms)
    summary = bench.end()
    reasons = [result.reasons for result in results]
    assert reasons == [(), *[("trigger_mismatch",)] * 3, ()]
    assert "counter 99" in results[1].detail
    assert results[4].part.part_id == "A-5"
    assert summary.balance.balanced


def test_an_order_is_an_err_when_its_frame_does_not_come_in_time(
    bench: Bench, parts: ModuleType
) -> None:
    camera = Camera(parts.shot, lambda number, shot: None if number == 1 else shot)
    control = bench.begin(camera, trigger={"limit_ms": 50})
    order_parts(control, 1)
    (result,) = bench.results(1)
    order_parts(control, 1, first=2)
    results = bench.results(2)
    bench.end()
    assert (result.verdict, result.reasons) == (Verdict.ERR, ("no_frame",))
    assert "within 50 ms" in result.detail
    assert results[1].verdict is Verdict.OK


@pytest.mark.parametrize("way", ["stop", "part limit"])
def test_the_end_leaves_no_order_without_a_result(
    bench: Bench, parts: ModuleType, way: str
) -> None:
    dice = random.Random(11)
    for _ in range(6):
        bench.admitted.clear()
        camera = Camera(parts.shot, lambda n, shot: None if n % 7 == 3 else shot)
        limit = {"part_limit": 20} if way == "part limit" else {}
        control = bench.begin(camera, lambda batch: time.sleep(0.001), **limit)
        given: list[int] = []

        def feed(control: LineControl = control, given: list[int] = given) -> None:
            while True:
                try:
                    given.append(control.trigger("", f"A-{len(given) + 1}"))
                except ControlRefused as refusal:
                    if "ending" in refusal.sentence:
                        return
                    time.sleep(0.0005)

        feeder = threading.Thread(target=feed)
        feeder.start()
        if way == "stop":
            time.sleep(dice.uniform(0.0, 0.08))
            bench.line.stop.set()
        summary = bench.line.join()
        feeder.join(PATIENCE_S)
        assert not feeder.is_alive()
        balance = summary.balance
        assert balance.balanced
        assert balance.pending == 0
        # Whoever got a number gets a result, and nobody else.
        assert [result.part.trigger_seq for result in bench.outlet.results] == given
        if way == "part limit":
            assert len(given) == 20
            assert summary.ended_by == "part limit"
        assert bench.outlet.states[-1] == "BYE"


@pytest.mark.parametrize(
    ("name", "said"),
    [("A\n1", "cannot be printed"), ("\u0007", "cannot be printed"), ("ä" * 65, "longer than 128")],
)
def test_an_id_that_could_not_come_back_as_it_was_is_refused(
    bench: Bench, parts: ModuleType, name: str, said: str
) -> None:
    control = bench.begin(Camera(parts.shot))
    with pytest.raises(ControlRefused, match=said):
        control.trigger("", name)
    assert control.trigger("", "ä" * 64) == 1
    (result,) = bench.results(1)
    bench.end()
    assert result.part.part_id == "ä" * 64


def test_a_sensor_fires_and_the_order_names_the_part_before_or_after(
    bench: Bench, parts: ModuleType
) -> None:
    camera = Camera(parts.shot)
    control = bench.begin(
        camera,
        trigger={"fire": "external", "match": "time", "window_ms": 15_000, "limit_ms": 20_000},
    )
    camera.trigger(None)  # the sensor, before the order
    bench.wait_for(lambda: not camera.ready)
    control.trigger("", "A-1")
    bench.results(1)
    control.trigger("", "A-2")
    camera.trigger(None)
    results = bench.results(2)
    camera.trigger(None)  # a part that nobody announces, until the line ends
    bench.wait_for(lambda: not camera.ready)
    summary = bench.end()
    assert [result.part.part_id for result in results] == ["A-1", "A-2"]
    assert [result.part.match for result in results] == ["time", "time"]
    assert [result.verdict.value for result in results] == ["ok", "ok"]
    assert summary.balance.balanced


def test_a_part_that_nobody_announced_is_an_err_of_its_own(bench: Bench, parts: ModuleType) -> None:
    camera = Camera(parts.shot)
    bench.begin(
        camera, trigger={"fire": "external", "match": "time", "window_ms": 30, "limit_ms": 100}
    )
    camera.trigger(None)
    (result,) = bench.results(1)
    summary = bench.end()
    assert (result.verdict, result.reasons) == (Verdict.ERR, ("unannounced",))
    assert (result.part.part_id, result.part.source) == (None, "camera")
    assert summary.balance.admitted == 1


def test_without_pairing_an_order_only_fires(bench: Bench, parts: ModuleType) -> None:
    control = bench.begin(Camera(parts.shot), trigger={"match": "none"})
    assert control.trigger("", None) == 1
    (result,) = bench.results(1)
    with pytest.raises(ControlRefused, match="pairs no frames"):
        control.trigger("", "A-1")
    with pytest.raises(ControlRefused, match="pairs nothing"):
        control.resync("")
    bench.end()
    assert (result.part.part_id, result.part.match) == (None, "none")


def test_a_camera_without_a_trigger_input_says_so(bench: Bench, parts: ModuleType) -> None:
    control = bench.begin(parts.ScriptedSource([], then="idle"))
    assert control.trigger("", "A-1") == 1
    (result,) = bench.results(1)
    bench.end()
    assert result.reasons == ("camera_lost",)
    assert "takes no trigger" in result.detail
