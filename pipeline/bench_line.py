"""Measure the line itself: parts a second and latency per stage, with and without a network.

Every figure comes from the real line: its threads, its queues, its sockets and one listening
process. A null engine leaves only what the line costs. With a plan, the same frames go through
bare inference and through a plain OpenCV loop (read, resize, infer, send), for comparison. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.backends.base import Engine, check_batch, open_engine
from ..engine.plan import load_plan
from ..engine.preprocess import to_network_input
from ..engine.spec import Manifest, Threshold
from ..errors import ConfigError
from .capture.base import EndOfStream, Shot, Source
from .capture.camera import CameraSettings
from .capture.pace import Pace
from .capture.video_file import VideoFileSource
from .clock import SYSTEM_CLOCK, Clock
from .health import Quantiles
from .judge import warm_up
from .line import run_line
from .line_records import LineSettings, LineSummary
from .publish import Publisher, PublishSettings

_DISTINCT_FRAMES = 16
_NEVER = Threshold(
    value=3.0e38, method="manual", target_false_reject_rate=0, attainable_rate=0, n_normals=0
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, required=True, metavar="F", help="the plan")
    parser.add_argument("--parts", type=int, default=300, help="parts with the plan's network")
    parser.add_argument("--null-parts", type=int, default=3000, help="parts with the null engine")
    parser.add_argument("--rate", type=float, default=100.0, help="parts/s for the latency figure")
    parser.add_argument("--size", default="640x480", metavar="WxH", help="size of the frames")


def run(arguments: argparse.Namespace) -> int:
    plan = load_plan(arguments.plan)
    width, height = _size(arguments.size)
    frames = _frames(width, height)
    manifest = plan.manifest

    def null() -> Engine:
        return NullEngine(manifest)

    print(f"{platform.processor() or platform.machine()}, {width} x {height} frames", flush=True)
    fast = _line(MemorySource(frames, arguments.null_parts), null)
    _show("null engine, as fast as possible", fast)
    paced_parts = min(arguments.null_parts, round(arguments.rate * 10))
    paced = _line(MemorySource(frames, paced_parts, arguments.rate), null)
    _show(f"null engine, {arguments.rate:g} parts/s", paced)

    with tempfile.TemporaryDirectory() as folder:
        video = _write_video(Path(folder) / "frames.avi", frames, arguments.parts)
        with open_engine(plan) as engine:
            warm_up(engine)
            bare_s = _bare_inference(engine, frames, arguments.parts)
            plain_s = _plain_loop(engine, video)
        real = _line(MemorySource(frames, arguments.parts), lambda: open_engine(plan))
        _show(f"{manifest.backend}, from memory", real)
        from_video = _line(VideoFileSource(video), lambda: open_engine(plan))
        _show(f"{manifest.backend}, from a video file", from_video)

    overhead = 1 - _rate(real) * bare_s
    ratio = _rate(from_video) * plain_s
    print(f"bare inference {1 / bare_s:.1f} parts/s: the line takes {100 * overhead:+.1f} % of it")
    print(f"plain OpenCV loop {1 / plain_s:.1f} parts/s: the line is {ratio:.2f} times as fast")
    report = {
        "null_parts_per_s": round(_rate(fast), 1),
        "null_p99_ms_at_rate": paced.latency["total"].p99_us / 1e3,
        "rate": arguments.rate,
        "real_parts_per_s": round(_rate(real), 2),
        "bare_parts_per_s": round(1 / bare_s, 2),
        "overhead_of_bare": round(overhead, 4),
        "plain_loop_parts_per_s": round(1 / plain_s, 2),
        "ratio_to_plain_loop": round(ratio, 3),
        "stages_us": {name: value.p50_us for name, value in real.latency.items()},
    }
    print(json.dumps(report), flush=True)
    return 0


class NullEngine:
    """An engine that takes no time: maps and scores are zero. What remains is the line."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.description = "null engine (nothing is inspected)"
        self._maps = np.zeros((manifest.batch, manifest.input.height, manifest.input.width), "f4")

    def infer(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        check_batch(self.manifest, batch)
        return self._maps[: len(batch)], np.zeros(len(batch), np.float32)

    def __enter__(self) -> NullEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


@dataclass
class MemorySource:
    """`count` frames from memory in turn, at `rate_hz` or as fast as they are taken."""

    frames: list[NDArray[np.uint8]]
    count: int
    rate_hz: float | None = None
    clock: Clock = SYSTEM_CLOCK
    live: bool = False

    def open(self) -> None:
        self._number, self._pace = 0, Pace(self.rate_hz, self.clock)

    def configure(self) -> None:
        self._pace.restart()

    def grab(self, timeout_s: float) -> Shot | None:
        wait_s = self._pace.wait_s()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
        if self._number == self.count:
            raise EndOfStream
        if wait_s > timeout_s:
            return None
        self._pace.advance()
        self._number += 1
        pixels = self.frames[self._number % len(self.frames)]
        return Shot(pixels, self.clock.wall_ns(), self.clock.mono_ns(), "device")

    def close(self) -> None:
        """Nothing is held."""


def _line(source: Source, make_engine: Callable[[], Engine]) -> LineSummary:
    """The whole line on free ports, with one listening process."""
    free = "tcp://127.0.0.1:0"
    publisher = Publisher(PublishSettings(events=free, maps=free), "bench")
    listener: list[subprocess.Popen[bytes]] = []

    def listen(engine: Engine) -> None:
        command = [sys.executable, "-m", "skrd4ad", "listen", "--json", "--connect"]
        listener.append(
            subprocess.Popen(
                [*command, publisher.events_endpoint],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    settings = LineSettings(mode="every", wait_subscribers=1)
    try:
        return run_line(
            [CameraSettings("cam0", lambda: source)],
            make_engine,
            _NEVER,
            publisher,
            settings,
            threading.Event(),
            on_ready=listen,
        )
    finally:
        for process in listener:
            process.terminate()
            process.wait(10)


def _bare_inference(engine: Engine, frames: list[NDArray[np.uint8]], count: int) -> float:
    """Seconds a part for inference alone, on inputs prepared beforehand."""
    spec = engine.manifest.input
    inputs = [to_network_input(frame, spec)[None] for frame in frames]
    began = time.perf_counter()
    for number in range(count):
        engine.infer(inputs[number % len(inputs)])
    return (time.perf_counter() - began) / count


def _plain_loop(engine: Engine, video: Path) -> float:
    """Seconds a part of the loop everybody writes first; it sends JSON in datagrams."""
    spec = engine.manifest.input
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    capture = cv2.VideoCapture(str(video))
    count, began = 0, time.perf_counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        while True:
            ok, image = capture.read()
            if not ok:
                break
            small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (spec.width, spec.height))
            scaled = (small.astype(np.float32) / 255 - mean) / std
            _, scores = engine.infer(np.ascontiguousarray(scaled.transpose(2, 0, 1))[None])
            out.sendto(json.dumps({"score": float(scores[0])}).encode(), ("127.0.0.1", 9))
            count += 1
    capture.release()
    return (time.perf_counter() - began) / count


def _frames(width: int, height: int) -> list[NDArray[np.uint8]]:
    """Smooth random pictures: they compress and resize as photographs do."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (_DISTINCT_FRAMES, 12, 16, 3), np.uint8)
    return [
        np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        for one in coarse
    ]


def _write_video(path: Path, frames: list[NDArray[np.uint8]], count: int) -> Path:
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), code, 30, (width, height))
    for frame in islice((frame for _ in range(count) for frame in frames), count):
        writer.write(frame[:, :, ::-1])
    writer.release()
    return path


def _rate(summary: LineSummary) -> float:
    return summary.parts / summary.seconds


def _show(title: str, summary: LineSummary) -> None:
    def ms(value: Quantiles) -> str:
        return f"{value.p50_us / 1e3:8.2f} {value.p90_us / 1e3:8.2f} {value.p99_us / 1e3:8.2f}"

    print(f"\n{title}: {summary.parts} parts, {_rate(summary):.1f} parts/s")
    print(f"  {'ms':12} {'p50':>8} {'p90':>8} {'p99':>8}")
    for stage, value in summary.latency.items():
        print(f"  {stage:12} {ms(value)}", flush=True)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and min(int(width), int(height)) >= 16):
        raise ConfigError(f"--size {text}: not of the form 640x480")
    return int(width), int(height)
