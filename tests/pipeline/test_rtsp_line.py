"""The whole line on a real RTSP server whose frames say when they were made.

Ages are true ones: the barcode clock in the published picture against now. The frame period and
the measured inference are the yardstick, so that a busy machine is slower but not wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from skrd4ad.engine.plan import load_plan
from skrd4ad.pipeline.capture import barcode
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.capture.network import NetworkSource
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings
from skrd4ad.pipeline.records import Result

SPARE_MS = 400.0
"""What a busy machine may take once for encoding, decoding and handing over one frame. A queue
would soon be far above it: without the checks of capture/network.py these tests see over 1000."""


@dataclass
class Published:
    """One result as it left the line."""

    at_s: float
    age_ms: float
    infer_ms: float
    number: int
    period_ms: float

    @property
    def too_old_ms(self) -> float:
        """How far the age is above two periods and the inference."""
        return self.age_ms - 2 * self.period_ms - self.infer_ms


@dataclass
class Line:
    """A line on one RTSP camera in a thread of its own."""

    parts: ModuleType
    plan: Path
    camera: object
    url: str = ""
    infer_s: float = 0.0
    published: list[Published] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outlet = self.parts.RecordingOutlet(before_result=self.note)
        self.engine = self.parts.ArithmeticEngine(load_plan(self.plan).manifest, self._infer)
        self._line = self.parts.LineThread(
            [CameraSettings("cam", lambda: NetworkSource(self.url or self.camera.url))],
            [LinePlan(lambda: self.engine, self.parts.THRESHOLD)],
            self.outlet,
            LineSettings(mode="latest"),
        )

    def note(self, result: Result) -> None:
        code = barcode.read(result.pixels)
        assert code is not None, "the frame is damaged"
        age_ms = time.monotonic() * 1000 - code[0]
        infer_ms = result.latency.infer_us / 1000
        one = Published(time.monotonic(), age_ms, infer_ms, code[1], self.camera.period_ms)
        self.published.append(one)

    def _infer(self, batch: np.ndarray) -> None:
        time.sleep(self.infer_s)

    def wait(self, condition: Callable[[], bool]) -> None:
        self._line.wait(condition, lambda: f"{len(self.published)} results, no more")

    def wait_for_results(self, count: int) -> None:
        wanted = len(self.published) + count
        self.wait(lambda: len(self.published) >= wanted)

    def end(self) -> None:
        self._line.end()

    def check(self) -> None:
        """No verdict about the past, and none twice."""
        old = [one for one in self.published if one.too_old_ms > SPARE_MS]
        assert old == [], f"{len(old)} of {len(self.published)} are about the past"
        assert all(a.number < b.number or a.at_s + 1 < b.at_s
                   for a, b in zip(self.published, self.published[1:], strict=False))  # fmt: skip


@pytest.fixture(scope="module")
def camera(rtsp: ModuleType, request: pytest.FixtureRequest) -> Iterator[object]:
    kind, fps = request.param
    with rtsp.RtspCamera(fps, kind) as camera:
        yield camera


# FFmpeg's H.264 parser holds each frame until the next one begins, so a frame is one period old
# before anybody can see it; motion JPEG shows what the line itself adds.
@pytest.mark.parametrize("camera", [("jpeg", 10)], indirect=True)
def test_inference_five_times_too_slow_shows_the_present(
    camera: object, parts: ModuleType, tiny_plan: Path
) -> None:
    line = Line(parts, tiny_plan, camera, infer_s=5 * camera.period_ms / 1000)
    line.wait_for_results(8)
    line.end()
    assert all(one.infer_ms > 4.9 * camera.period_ms for one in line.published)
    within = [one for one in line.published if one.too_old_ms < 0]
    assert len(within) >= len(line.published) - 2, line.published
    line.check()


@pytest.mark.parametrize(
    ("camera", "hold_s"), [(("jpeg", 20), 1.2), (("h264", 20), 3.0)], indirect=["camera"]
)
def test_after_a_stall_no_verdict_is_about_the_past(
    camera: object, parts: ModuleType, tiny_plan: Path, rtsp: ModuleType, hold_s: float
) -> None:
    """Held back for less and for more than the read time-out."""
    network = rtsp.SlowNetwork(camera.port)
    line = Line(parts, tiny_plan, camera, f"rtsp://127.0.0.1:{network.port}/cam")
    line.wait_for_results(10)
    network.hold(hold_s)
    held_until = time.monotonic() + hold_s
    line.wait(lambda: any(one.at_s > held_until for one in line.published))
    line.wait_for_results(5)
    line.end()
    network.close()
    line.check()


@pytest.mark.parametrize("camera", [("h264", 20)], indirect=True)
def test_a_camera_that_is_killed_comes_back(
    camera: object, parts: ModuleType, tiny_plan: Path
) -> None:
    line = Line(parts, tiny_plan, camera)
    line.wait_for_results(3)
    camera.kill()
    line.wait(lambda: ("camera_lost", True) in [alarm[:3:2] for alarm in line.outlet.alarms])
    camera.start()
    back_at = time.monotonic()
    line.wait(lambda: any(one.at_s > back_at for one in line.published))
    assert line.published[-1].at_s - back_at < 30
    line.wait(lambda: line.outlet.alarms[-1][2] is False)
    line.end()
    line.check()
