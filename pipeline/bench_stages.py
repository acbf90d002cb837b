"""Measure the line itself: parts a second and latency per stage, with and without a network.

Every figure comes from the real line: its threads, its queues, its sockets and one listening
process. A null engine leaves only what the line costs. With the plan's engine, the same frames go
through bare inference and through a plain OpenCV loop (read, resize, infer, send), in turn with
the line, so that a busy moment of the machine falls on all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ..engine.backends.base import Engine, open_engine
from ..engine.native_resize import library
from ..engine.plan import Plan, load_plan
from ..engine.spec import Threshold
from ..errors import ConfigError
from .bench_parts import (
    MemorySource,
    NullEngine,
    bare_inference,
    bench_frames,
    plain_loop,
    write_video,
)
from .capture.base import Source
from .capture.camera import CameraSettings
from .capture.video_file import VideoFileSource
from .health import Quantiles
from .interpreter import keep_freed_memory, prefer_short_waits, settle_memory
from .judge import warm_up
from .line import run_line
from .line_plan import LinePlan
from .line_records import LineSettings, LineSummary
from .monitor.drift_monitor import DriftSettings
from .monitor.drift_tap import DriftTap
from .monitor.log_tap import LogTap
from .publish import Publisher, PublishSettings
from .taps import TappedOutlet

WANTED_PARTS_PER_S, WANTED_P99_MS, WANTED_OVER_BARE = 500.0, 5.0, 0.05
"""What the product promises on two cores; shown beside what was measured."""
_NEVER = Threshold(
    value=3.0e38, method="manual", target_false_reject_rate=0, attainable_rate=0, n_normals=0
)


@dataclass(frozen=True, slots=True)
class LineRun:
    """One run of the line, and the CPU time of this process from READY to its end."""

    summary: LineSummary
    cpu_s: float

    @property
    def seconds_a_part(self) -> float:
        return self.summary.seconds / self.summary.parts


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds a part of each, measured one after the other."""

    bare_s: float
    line_s: float
    plain_loop_s: float
    line_from_video_s: float
    bare_cpu_s: float
    """CPU time a part of this process: what a busy machine changes least."""
    line_cpu_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --stages")
    group.add_argument("--null-parts", type=int, default=3000, help="parts with the null engine")
    group.add_argument("--rate", type=float, default=100.0, help="parts/s for the latency figure")
    group.add_argument("--parts", type=int, default=100, help="parts a round, plan's network")
    group.add_argument("--rounds", type=int, default=5, help="rounds with the plan's network")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print. Raises ConfigError for counts that measure nothing."""
    counts = (arguments.parts, arguments.null_parts, arguments.rounds)
    if min(counts) < 1 or not arguments.rate > 0 or min(arguments.camera_size) < 16:
        raise ConfigError("parts, rounds and --rate must be positive, --camera-size at least 16 16")
    plan = load_plan(arguments.plan)
    height, width = arguments.camera_size
    frames = bench_frames(width, height)
    prefer_short_waits()
    keep_freed_memory()
    machine = f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    print(f"{machine}, {width} x {height} frames, load {os.getloadavg()[0]:.1f}", flush=True)
    report: dict[str, object] = {"camera_size": [height, width]}
    report |= _without_network(plan, frames, arguments)
    if not arguments.null_engine:
        report |= _with_network(plan, frames, arguments)
    print(json.dumps(report), flush=True)
    return 0


def _without_network(
    plan: Plan, frames: list[NDArray[np.uint8]], arguments: argparse.Namespace
) -> dict[str, object]:
    def null() -> Engine:
        return NullEngine(plan.manifest)

    fast = _line(MemorySource(frames, arguments.null_parts), null)
    _show("null engine, as fast as possible", fast.summary)
    paced_parts = min(arguments.null_parts, round(arguments.rate * 10))
    paced = _line(MemorySource(frames, paced_parts, arguments.rate), null)
    _show(f"null engine, {arguments.rate:g} parts/s", paced.summary)
    rate, p99_ms = 1 / fast.seconds_a_part, paced.summary.latency["total"].p99_us / 1e3
    cpu_ms = 1e3 * fast.cpu_s / fast.summary.parts
    print(f"null engine: {rate:.0f} parts/s (wanted >= {WANTED_PARTS_PER_S:g})")
    print(f"null engine: p99 {p99_ms:.2f} ms at {arguments.rate:g}/s (wanted <= {WANTED_P99_MS:g})")
    compiled = library() is not None
    resize = "the compiled resize" if compiled else "Pillow's resize"
    print(f"null engine: {cpu_ms:.2f} ms of CPU time a part, all threads of the line, {resize}")
    return {
        "native_resize": compiled,
        "null_parts_per_s": round(rate, 1),
        "null_cpu_ms_a_part": round(cpu_ms, 3),
        "rate": arguments.rate,
        "null_p99_ms_at_rate": p99_ms,
        "null_stages_us_at_rate": {
            name: {"p50": value.p50_us, "p99": value.p99_us}
            for name, value in paced.summary.latency.items()
        },
    }


def _with_network(
    plan: Plan, frames: list[NDArray[np.uint8]], arguments: argparse.Namespace
) -> dict[str, object]:
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory() as folder, open_engine(plan) as engine:
        video = write_video(Path(folder) / "frames.avi", frames, arguments.parts)
        warm_up(engine)
        for number in range(1, arguments.rounds + 1):
            # Half before the line and half after it: a machine that slows down slows both.
            before = _bare(engine, frames, arguments.parts)
            line = _line(MemorySource(frames, arguments.parts), lambda: open_engine(plan))
            after = _bare(engine, frames, arguments.parts)
            bare_s, bare_cpu_s = ((a + b) / 2 for a, b in zip(before, after, strict=True))
            plain_s = plain_loop(engine, video)
            filmed = _line(VideoFileSource(video), lambda: open_engine(plan))
            one = Round(
                bare_s,
                line.seconds_a_part,
                plain_s,
                filmed.seconds_a_part,
                bare_cpu_s,
                line.cpu_s / line.summary.parts,
            )
            rounds.append(one)
            print(
                f"round {number}, ms a part: bare inference {1e3 * one.bare_s:.2f}, line "
                f"{1e3 * one.line_s:.2f}; OpenCV loop {1e3 * one.plain_loop_s:.2f}, line from the "
                f"same video {1e3 * one.line_from_video_s:.2f}",
                flush=True,
            )
    _show(f"{plan.manifest.backend}, from memory, last round", line.summary)
    over = median(one.line_s / one.bare_s for one in rounds) - 1
    over_cpu = median(one.line_cpu_s / one.bare_cpu_s for one in rounds) - 1
    ratio = median(one.plain_loop_s / one.line_from_video_s for one in rounds)
    print(f"the line takes {100 * over:+.1f} % over bare inference (wanted <= +5 %)")
    print(f"in CPU time {100 * over_cpu:+.1f} %, of all its threads")
    print(f"the line is {ratio:.2f} times as fast as the plain OpenCV loop, with the same video")
    return {
        "bare_ms_a_part": round(1e3 * median(one.bare_s for one in rounds), 3),
        "line_ms_a_part": round(1e3 * median(one.line_s for one in rounds), 3),
        "over_bare": round(over, 4),
        "over_bare_cpu": round(over_cpu, 4),
        "plain_loop_ms_a_part": round(1e3 * median(one.plain_loop_s for one in rounds), 3),
        "line_from_video_ms_a_part": round(
            1e3 * median(one.line_from_video_s for one in rounds), 3
        ),
        "times_plain_loop": round(ratio, 3),
        "stages_us": {
            name: {"p50": value.p50_us, "p99": value.p99_us}
            for name, value in line.summary.latency.items()
        },
    }


def _bare(engine: Engine, frames: list[NDArray[np.uint8]], parts: int) -> tuple[float, float]:
    """Seconds, and seconds of CPU time, a part of inference alone; half of `parts`."""
    count, began_cpu_s = (parts + 1) // 2, time.process_time()
    seconds = bare_inference(engine, frames, count)
    return seconds, (time.process_time() - began_cpu_s) / count


def _line(source: Source, make_engine: Callable[[], Engine]) -> LineRun:
    """The whole line on free ports, with one listening process."""
    free = "tcp://127.0.0.1:0"
    publisher = Publisher(PublishSettings(events=free, maps=free), "bench")
    # What every station has, if its file says nothing else.
    outlet = TappedOutlet(publisher, [LogTap(), DriftTap(DriftSettings(), lambda camera: _NEVER)])
    listener: list[subprocess.Popen[bytes]] = []
    began_cpu_s = 0.0

    def listen(engines: Sequence[Engine]) -> None:
        nonlocal began_cpu_s
        command = [sys.executable, "-m", "skrd4ad", "listen", "--json", "--connect"]
        listener.append(
            subprocess.Popen(
                [*command, publisher.events_endpoint],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        settle_memory()
        began_cpu_s = time.process_time()

    settings = LineSettings(mode="every", wait_subscribers=1)
    try:
        summary = run_line(
            [CameraSettings("cam0", lambda: source)],
            [LinePlan(make_engine, _NEVER)],
            outlet,
            settings,
            threading.Event(),
            on_ready=listen,
        )
        return LineRun(summary, time.process_time() - began_cpu_s)
    finally:
        for process in listener:
            process.terminate()
            process.wait(10)


def _show(title: str, summary: LineSummary) -> None:
    def ms(value: Quantiles) -> str:
        return "".join(
            f"{us / 1e3:9.2f}" for us in (value.p50_us, value.p90_us, value.p99_us, value.max_us)
        )

    print(f"\n{title}: {summary.parts} parts, {summary.parts / summary.seconds:.1f} parts/s")
    print(f"  {'ms':12}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}")
    for stage, value in summary.latency.items():
        print(f"  {stage:12}{ms(value)}", flush=True)
