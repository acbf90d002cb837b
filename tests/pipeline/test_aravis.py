"""A GigE Vision camera (Aravis' own fake one, a process of its own) over real sockets.

The images are small, so that a busy machine loses none of them by itself. What becomes of a line's
parts when this camera fails is in test_aravis_line.py; the same without a line is a soak test.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
from skrd4ad.errors import CameraError
from skrd4ad.pipeline.admission import Admission
from skrd4ad.pipeline.capture.backoff import Backoff
from skrd4ad.pipeline.capture.base import Shot, Triggered
from skrd4ad.pipeline.capture.camera import Camera
from skrd4ad.pipeline.capture.genicam import FoundCamera, choose
from skrd4ad.pipeline.capture.uri import open_source, parse_uri
from skrd4ad.pipeline.clock import SYSTEM_CLOCK

SMALL = "width=128&height=96&fps=100"


@pytest.fixture(scope="module")
def fake(gige: ModuleType) -> Iterator[object]:
    """Running, without loss, at the start of each test (a test that kills it starts it again)."""
    with gige.the_only_one() as camera:
        yield camera


def source_of(fake: object, query: str) -> object:
    source = open_source(parse_uri(f"{fake.uri}?{query}"))
    source.open()
    source.configure()
    return source


def next_shot(source: object, limit_s: float = 60) -> Shot:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        shot = source.grab(0.1)
        if shot is not None:
            return shot
    raise AssertionError("no shot came")


def wait_for(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_each_software_trigger_gives_one_picture_with_its_number(fake: object) -> None:
    source = source_of(fake, f"{SMALL}&trigger=software&exposure_us=2000&answer_ms=5000")
    shots = []
    for number in range(1, 41):
        assert source.trigger(f"part-{number}") == number
        shots.append(next_shot(source))
        time.sleep(0.012)
    source.close()
    assert [shot.part.trigger_seq for shot in shots] == list(range(1, 41))
    assert [shot.part.part_id for shot in shots] == [f"part-{n}" for n in range(1, 41)]
    good = [shot for shot in shots if shot.failure is None]
    assert len(good) >= 36
    assert {shot.pixels.shape for shot in good} == {(96, 128, 3)}
    # The camera counts its frames: one for each trigger, so the offset never changes.
    assert len({(shot.frame_id - shot.part.trigger_seq) % 65_535 for shot in good}) == 1
    assert {shot.captured_source for shot in good} == {"device"}
    assert all(0 < shot.captured_error_ns < 200_000_000 for shot in good)


def test_a_camera_without_a_trigger_runs_by_itself(fake: object) -> None:
    source = source_of(fake, f"{SMALL}&format=RGB8")
    shots = [next_shot(source) for _ in range(5)]
    source.close()
    good = [shot for shot in shots if shot.failure is None]
    assert len(good) >= 3
    assert all(shot.part.trigger_seq is None for shot in shots)
    assert len({shot.pixels.tobytes() for shot in good}) == len(good), "the picture moves"
    assert not isinstance(source, Triggered)


def test_a_trigger_line_is_armed_and_quiet(fake: object) -> None:
    """The fake camera has no wire to pull: what can be shown is that nothing comes by itself."""
    source = source_of(fake, f"{SMALL}&trigger=Line0&TriggerActivation=RisingEdge")
    assert source._camera.get_string("TriggerMode") == "On"
    assert source._camera.get_trigger_source() == "Line0"
    assert [source.grab(0.1) for _ in range(5)] == [None] * 5
    assert source.silent_limit_s == 0, "it may be idle for hours"
    source.close()


def test_settings_win_over_what_the_last_client_left(fake: object) -> None:
    other = source_of(fake, "width=64&height=64&fps=10&gain=7&format=Mono16&trigger=software")
    other.close()
    source = source_of(fake, "width=256&height=32&x=16&fps=50&gain=3&format=BayerRG8")
    camera = source._camera
    region = camera.get_region()
    assert (region.x, region.width, region.height) == (16, 256, 32)
    assert camera.get_pixel_format_as_string() == "BayerRG8"
    assert (camera.get_frame_rate(), camera.get_gain()) == (50, 3)
    assert camera.get_string("TriggerMode") == "Off"
    assert next_shot(source).frame_id is not None
    source.close()


def test_a_camera_that_lost_power_gets_its_settings_back(fake: object) -> None:
    """What an engineer had set with the maker's tool, and our address does not name."""
    tool = source_of(fake, "width=256&height=64&x=8&fps=50&gain=9&exposure_us=3000&format=RGB8")
    tool.close()
    source = source_of(fake, "exposure_us=4000")
    source.close()
    fake.kill()
    fake.start()
    source.open()
    assert source._camera.get_gain() == 0, "it is back at its defaults"
    source.configure()
    camera = source._camera
    region = camera.get_region()
    assert (region.x, region.y, region.width, region.height) == (8, 0, 256, 64)
    assert (camera.get_frame_rate(), camera.get_gain()) == (50, 9)
    assert camera.get_exposure_time() == 4000
    assert next_shot(source).pixels.shape == (64, 256, 3)
    source.close()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("fps=400000", "fps 400000 was asked for, the camera gives"),
        ("format=Mono12", "the pixel format Mono12 cannot be used"),
        ("trigger=Line9", "has no trigger source Line9"),
        ("NoSuchFeature=3", "has no feature NoSuchFeature"),
        ("TestBoolean=perhaps", "TestBoolean"),
    ],
)
def test_a_setting_that_does_not_hold_is_said(fake: object, query: str, says: str) -> None:
    source = open_source(parse_uri(f"{fake.uri}?{query}"))
    source.open()
    try:
        with pytest.raises(CameraError, match=says) as caught:
            source.configure()
    finally:
        source.close()
    assert caught.value.hint


def test_who_else_has_it_is_said(fake: object) -> None:
    first = source_of(fake, SMALL)
    second = open_source(parse_uri("aravis:127.0.0.1"))
    with pytest.raises(CameraError, match=r"aravis:127.0.0.1 is in use by another client"):
        second.open()
    first.close()
    second.open()
    second.close()


def test_who_is_there_is_said(fake: object) -> None:
    with pytest.raises(CameraError, match="aravis:GV99 is not found") as caught:
        open_source(parse_uri("aravis:GV99")).open()
    assert "Aravis-Fake-GV01" in caught.value.hint
    only = open_source(parse_uri("aravis:GV01"))
    only.open()
    only.close()


def test_a_name_chooses_one_camera_or_says_which_there_are() -> None:
    left, right = (
        FoundCamera(f"Maker-{n}", n, f"10.0.0.{n}", "Maker Cam", "GigEVision") for n in "12"
    )
    both = [left, right]
    assert choose("Maker-1", both) is choose("1", both) is choose("10.0.0.1", both) is left
    assert choose("", [right]) is right
    for wanted, there, says in (
        ("", both, "2 cameras fit"),
        ("", [], "no GigE Vision or USB3 Vision camera is found"),
        ("3", both, "aravis:3 is not found"),
    ):
        with pytest.raises(CameraError, match=says) as caught:
            choose(wanted, there)
        assert ("10.0.0.2" in caught.value.hint) == bool(there)


class Running:
    """A camera thread with an admission that keeps everything."""

    def __init__(self, uri: str) -> None:
        self.admission = Admission("every", depth=100_000)
        self.states: list[str] = []
        self.source: object = None
        self.camera = Camera(
            "cam", lambda: self._made(uri), self.admission, SYSTEM_CLOCK, self._changed, Backoff()
        )
        self.frames: list[object] = []
        self.camera.open()
        self.camera.start()

    def _made(self, uri: str) -> object:
        self.source = open_source(parse_uri(uri))
        return self.source

    def _changed(self, camera: Camera) -> None:
        self.states.append(camera.status.state)

    def collect(self) -> list[object]:
        for ticket in self.admission.take(100_000) or []:
            self.frames.append(ticket.frame)
            self.admission.settle(ticket)
        return self.frames

    def trigger_for(self, seconds: float, until: Callable[[], bool] = lambda: False) -> int:
        """Every 25 ms, whatever the camera is up to; the number of the last one."""
        deadline, number = time.monotonic() + seconds, 0
        while time.monotonic() < deadline and not until():
            number = self.source.trigger(None)
            time.sleep(0.025)
            self.collect()
        return number

    def end(self) -> None:
        self.camera.stop()
        assert self.camera.join(20)

    def check(self, triggers: int) -> None:
        """One result for each trigger, in order; no failure without its reason."""
        wait_for(lambda: len(self.collect()) >= triggers)
        self.end()
        assert [frame.part.trigger_seq for frame in self.frames] == list(range(1, triggers + 1))
        assert all((frame.pixels is None) == bool(frame.failure) for frame in self.frames)
        assert all(frame.detail for frame in self.frames if frame.failure)


@pytest.mark.soak
def test_lost_packets_are_a_result_each(fake: object) -> None:
    fake.kill()
    fake.start(lost_per_mille=100)
    try:
        line = Running(f"{fake.uri}?{SMALL}&trigger=software&packet_size=1500")
        line.check(line.trigger_for(2))
    finally:
        fake.kill()
        fake.start()
    failures = {frame.failure for frame in line.frames}
    assert {None, "incomplete"} <= failures <= {None, "incomplete", "no_frame"}
    assert not set(line.states) - {"running", "stopped"}


@pytest.mark.soak
@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_a_camera_that_goes_away_and_comes_back(fake: object, how: str) -> None:
    line = Running(f"{fake.uri}?{SMALL}&trigger=software")
    line.trigger_for(0.4)
    wait_for(lambda: any(frame.pixels is not None for frame in line.collect()))
    fake.signal(signal.Signals[how])
    line.trigger_for(30, until=lambda: "reopening" in line.states)
    if how == "SIGKILL":
        fake.kill()
        fake.start()
    else:
        fake.signal(signal.SIGCONT)
    returned_ns = time.monotonic_ns()

    def good_again() -> bool:
        return any(
            frame.pixels is not None and frame.captured_mono_ns > returned_ns
            for frame in line.collect()
        )

    last = line.trigger_for(30, until=good_again)
    seconds = (time.monotonic_ns() - returned_ns) / 1e9
    assert seconds < 10, f"good results {seconds:.1f} s after the camera's return"
    line.check(last)
    first = next(frame for frame in line.frames if frame.captured_mono_ns > returned_ns)
    assert line.camera.status.reconnects >= 1
    assert first.camera_seq > 1
    shapes = {frame.pixels.shape for frame in line.frames if frame.pixels is not None}
    assert shapes == {(96, 128, 3)}
    assert np.all([frame.camera == "cam" for frame in line.frames])


def test_an_idle_triggered_camera_is_not_reopened(fake: object) -> None:
    line = Running(f"{fake.uri}?{SMALL}&trigger=software")
    time.sleep(1.5)  # longer than it takes until the camera is asked whether it is still there
    assert line.states == ["running"]
    number = line.trigger_for(0.1)
    line.check(number)
