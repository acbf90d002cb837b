"""A camera's thread: full reopen after any failure, seq without gaps, stop from any state."""

from __future__ import annotations

import queue
import threading
from dataclasses import replace
from types import ModuleType

import pytest
from skrd4ad.errors import CameraError
from skrd4ad.pipeline.admission import Admission
from skrd4ad.pipeline.capture.backoff import Backoff
from skrd4ad.pipeline.capture.camera import Camera
from skrd4ad.pipeline.clock import SYSTEM_CLOCK
from skrd4ad.pipeline.records import Part

PATIENCE_S = 60.0
QUICK = {"first_s": 0.001, "limit_s": 0.002}


def camera_on(source: object, depth: int = 50, **backoff: float) -> tuple[Camera, Admission, list]:
    admission = Admission("every", depth=depth)
    states: list[str] = []
    camera = Camera(
        "cam",
        lambda: source,
        admission,
        SYSTEM_CLOCK,
        lambda camera: states.append(camera.status.state),
        Backoff(**{**QUICK, **backoff}),
    )
    return camera, admission, states


def test_backoff_doubles_with_jitter_up_to_its_limit_and_resets_when_healthy() -> None:
    longest = Backoff(jitter=lambda: 0.0)
    assert [longest.wait_s(0) for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 5, 5, 5]
    assert longest.wait_s(29.9) == 5
    assert longest.wait_s(30) == 0.25
    shortest = Backoff(jitter=lambda: 1.0)
    assert [shortest.wait_s(0) for _ in range(3)] == [0.125, 0.25, 0.5]
    assert min(Backoff().wait_s(0) for _ in range(100)) >= 0.125


def test_a_failed_read_reopens_and_configures_in_full(parts: ModuleType) -> None:
    lost = CameraError("the cable is out")
    source = parts.ScriptedSource(
        [parts.shot(1), lost, parts.shot(2), lost, lost, parts.shot(3)],
        live=True,
        open_errors=[None, CameraError("still out"), None],
    )
    camera, admission, states = camera_on(source)
    camera.open()
    camera.start()
    assert camera.join(PATIENCE_S)
    whole = ["open", "configure"]
    assert source.calls == [
        *whole, "close", "open", "close", *whole, "close", *whole, "close", *whole, "close",
    ]  # fmt: skip
    tickets = admission.take(10)
    assert tickets is not None
    # The line's numbers have no gap although the camera was opened four times.
    assert [ticket.frame.camera_seq for ticket in tickets] == [1, 2, 3]
    assert camera.status.reconnects == 3
    assert states[-1] == "ended"
    assert "reopening" in states


def test_a_file_that_fails_ends_the_line_instead_of_repeating_parts(parts: ModuleType) -> None:
    source = parts.ScriptedSource([parts.shot(1), CameraError("disk gone")], live=False)
    camera, _, states = camera_on(source)
    camera.open()
    camera.start()
    assert camera.join(PATIENCE_S)
    assert isinstance(camera.failure, CameraError)
    assert states == ["running", "failed"]
    assert source.calls.count("open") == 1


def test_a_camera_that_cannot_open_at_first_raises_and_is_closed(parts: ModuleType) -> None:
    source = parts.ScriptedSource([], open_errors=[CameraError("not there")])
    camera, _, _ = camera_on(source)
    with pytest.raises(CameraError, match="not there"):
        camera.open()
    assert source.calls == ["open", "close"]
    assert camera.join(0)


def test_an_idle_camera_is_not_reopened(parts: ModuleType) -> None:
    source = parts.ScriptedSource([None] * 20, live=True)
    camera, _, _ = camera_on(source)
    camera.open()
    camera.start()
    assert camera.join(PATIENCE_S)
    assert source.calls == ["open", "configure", "close"]


@pytest.mark.parametrize("where", ["idle", "reopening", "queue full", "not started"])
def test_stop_ends_the_thread_from_any_state(parts: ModuleType, where: str) -> None:
    reached = threading.Event()

    def arrived() -> None:
        reached.set()

    script = {
        "idle": [arrived],
        "reopening": [arrived, CameraError("lost")],
        "queue full": [parts.shot(1), parts.shot(2), arrived, parts.shot(3)],
        "not started": [],
    }[where]
    source = parts.ScriptedSource(script, live=True, then="idle")
    camera, _, _ = camera_on(
        source, depth=2, **({"first_s": 600.0, "limit_s": 600.0} if where == "reopening" else {})
    )
    camera.open()
    if where != "not started":
        camera.start()
        assert reached.wait(PATIENCE_S)
    camera.stop()
    assert camera.join(PATIENCE_S)
    assert not source.is_open


def test_a_live_camera_that_repeats_one_image_is_frozen_and_reopened(parts: ModuleType) -> None:
    shots = [replace(parts.shot(n), part=Part()) for n in [*[1] * 12, 2, 3]]
    source = parts.ScriptedSource(shots, live=True)
    camera, admission, states = camera_on(source)
    camera.open()
    camera.start()
    assert camera.join(PATIENCE_S)
    tickets = admission.take(50)
    assert tickets is not None
    # The first and nine repeats pass; repeats ten and eleven are each a failed read.
    assert len(tickets) == 10 + 2
    assert states.count("reopening") == 2
    assert source.calls.count("open") == 3


def test_stored_parts_may_repeat(parts: ModuleType) -> None:
    source = parts.ScriptedSource([parts.shot(1) for _ in range(30)], live=False)
    camera, admission, _ = camera_on(source)
    camera.open()
    camera.start()
    assert camera.join(PATIENCE_S)
    assert admission.balance().admitted == 30


def hung_camera(parts: ModuleType, sources: list[object]) -> tuple[Camera, Admission, object]:
    hand = parts.HandClock()
    admission = Admission("every", depth=50)
    waiting = iter(sources)
    camera = Camera(
        "cam",
        lambda: next(waiting),
        admission,
        hand.clock,
        lambda camera: None,
        Backoff(**QUICK),
        hang_limit_s=15.0,
    )
    return camera, admission, hand


def test_a_thread_that_hangs_in_its_driver_is_replaced(parts: ModuleType) -> None:
    hanging, release, delivered = threading.Event(), threading.Event(), threading.Event()

    def hang() -> object:
        hanging.set()
        release.wait(PATIENCE_S)
        return parts.shot(99)

    first = parts.ScriptedSource([parts.shot(1), hang, parts.shot(98)], live=True)
    second = parts.ScriptedSource([parts.shot(2), delivered.set], live=True, then="idle")
    camera, admission, hand = hung_camera(parts, [first, second])
    camera.open()
    camera.start()
    assert hanging.wait(PATIENCE_S)
    camera.replace_if_hung()
    assert camera.abandoned == 0, "a slow driver call is not yet a hung one"
    hand.advance_s(15.1)
    camera.replace_if_hung()
    assert delivered.wait(PATIENCE_S)
    release.set()
    camera.stop()
    assert camera.join(PATIENCE_S)
    tickets = admission.take(10)
    assert tickets is not None
    # What the abandoned thread brings back in the end is about a part of long ago.
    assert [t.frame.frame_id for t in tickets] == [1, 2]
    assert [t.frame.camera_seq for t in tickets] == [1, 2]
    assert (camera.abandoned, camera.status.reconnects, camera.failure) == (1, 1, None)


def test_a_driver_that_hangs_again_and_again_ends_the_line(parts: ModuleType) -> None:
    release = threading.Event()
    arrivals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def hang() -> None:
        arrivals.put(1)
        release.wait(PATIENCE_S)

    sources = [parts.ScriptedSource([hang], live=True, then="idle") for _ in range(6)]
    camera, _, hand = hung_camera(parts, sources)
    camera.open()
    camera.start()
    for _ in range(4):
        arrivals.get(timeout=PATIENCE_S)
        hand.advance_s(15.1)
        camera.replace_if_hung()
    assert isinstance(camera.failure, CameraError)
    assert "has not returned" in camera.failure.sentence
    assert camera.finished
    release.set()
    camera.stop()
    assert camera.join(PATIENCE_S)


class Triggerable:
    """A scripted camera that counts triggers, as `Triggered` sources do."""

    def __init__(self, scripted: object) -> None:
        self.scripted, self.numbers = scripted, 0
        self.live = True

    def __getattr__(self, name: str) -> object:
        return getattr(self.scripted, name)

    def open(self) -> None:
        self.scripted.open()

    def configure(self) -> None:
        self.scripted.configure()

    def grab(self, timeout_s: float) -> object:
        return self.scripted.grab(timeout_s)

    def close(self) -> None:
        self.scripted.close()

    def trigger(self, part_id: str | None) -> int:
        self.numbers += 1
        return self.numbers

    def unanswered(self) -> list[object]:
        return []

    def inherit(self, old: object) -> None:
        self.numbers = old.numbers


def test_the_numbers_of_triggers_go_on_when_a_hung_thread_is_replaced(parts: ModuleType) -> None:
    hanging, release = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        release.wait(PATIENCE_S)

    sources = [
        Triggerable(parts.ScriptedSource([hang], live=True)),
        Triggerable(parts.ScriptedSource([], live=True, then="idle")),
    ]
    camera, _, hand = hung_camera(parts, sources)
    camera.open()
    camera.start()
    assert [camera.trigger(None) for _ in range(3)] == [1, 2, 3]
    assert hanging.wait(PATIENCE_S)
    hand.advance_s(15.1)
    camera.replace_if_hung()
    assert camera.trigger(None) == 4
    release.set()
    camera.stop()
    assert camera.join(PATIENCE_S)


def test_a_frozen_picture_of_a_triggered_part_is_its_result(parts: ModuleType) -> None:
    source = parts.ScriptedSource([parts.shot(1) for _ in range(12)], live=True)
    camera, admission, _ = camera_on(source)
    camera.open()
    camera.start()
    assert camera.join(PATIENCE_S)
    failures = [ticket.frame.failure for ticket in admission.take(50)]
    assert failures == [None] * 10 + ["frozen"] * 2


def test_another_size_after_a_reopen_is_not_judged(parts: ModuleType) -> None:
    small = replace(parts.shot(9, size=16), part=Part())
    shots = [replace(parts.shot(n), part=Part()) for n in (1, 2)]
    source = parts.ScriptedSource([shots[0], CameraError("lost"), small, shots[1]], live=True)
    camera, admission, _ = camera_on(source)
    details: list[str] = []
    camera._changed = lambda one: details.append(one.status.detail)
    camera.open()
    camera.start()
    assert camera.join(PATIENCE_S)
    assert [ticket.frame.frame_id for ticket in admission.take(50)] == [1, 2]
    assert any("delivers 16 x 16 pixels now, it was 32 x 32" in text for text in details)
    assert camera.status.reconnects == 2


def test_a_free_running_camera_that_falls_silent_is_lost(parts: ModuleType) -> None:
    hand = parts.HandClock()

    def wait() -> None:
        hand.advance_s(1.0)

    source = parts.ScriptedSource([parts.shot(1), *[wait] * 7, parts.shot(2)], live=True)
    source.silent_limit_s = 5.0
    admission = Admission("every", depth=50)
    details: list[str] = []
    camera = Camera(
        "cam",
        lambda: source,
        admission,
        hand.clock,
        lambda camera: details.append(camera.status.detail),
        Backoff(**QUICK),
    )
    camera.open()
    camera.start()
    assert camera.join(PATIENCE_S)
    assert source.calls.count("open") == 2
    assert any("has sent nothing for 6.0 s" in text for text in details)
