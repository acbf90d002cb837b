"""What a line says about itself: ready once cameras deliver, stalled while a stage hangs."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import pytest
from skrd4ad.pipeline import line
from skrd4ad.pipeline import wire_messages as wire
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings

PATIENCE_S = 60.0


@dataclass
class Running:
    """A line in a thread of its own; `until` waits for a heartbeat."""

    thread: threading.Thread
    stop: threading.Event
    heartbeats: list[wire.HealthFields] = field(default_factory=list)

    def until(self, check: Callable[[wire.HealthFields], bool]) -> wire.HealthFields:
        deadline, seen = time.monotonic() + PATIENCE_S, len(self.heartbeats)
        while time.monotonic() < deadline:
            for health in self.heartbeats[seen:]:
                if check(health):
                    return health
            time.sleep(0.02)
        pytest.fail("no such heartbeat")

    def end(self) -> None:
        self.stop.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


def start(
    parts: ModuleType, tiny: ModuleType, source: object, before: Callable[[np.ndarray], None]
) -> Running:
    stop, outlet = threading.Event(), parts.RecordingOutlet()
    engine = parts.ArithmeticEngine(tiny.tiny_manifest(), before)
    thread = threading.Thread(
        daemon=True,
        target=line.run_line,
        args=(
            [CameraSettings("a", lambda: source)],
            [LinePlan(lambda: engine, parts.THRESHOLD)],
            outlet,
            LineSettings(mode="latest"),
            stop,
        ),
    )
    thread.start()
    return Running(thread, stop, outlet.heartbeats)


def test_a_live_camera_makes_the_line_ready_with_its_first_frame(
    parts: ModuleType, tiny: ModuleType
) -> None:
    shown = threading.Event()

    numbers = itertools.count(1)

    def next_frame() -> object:
        return parts.shot(next(numbers)) if shown.is_set() else None

    source = parts.ScriptedSource([next_frame] * 100_000, live=True, then="idle")
    running = start(parts, tiny, source, lambda batch: None)
    silent = running.until(lambda health: health.cams["a"].state == "running")
    assert not silent.cams["a"].delivers
    assert not silent.ready
    shown.set()
    ready = running.until(lambda health: health.ready)
    assert ready.cams["a"].delivers
    assert ready.stalled == ()
    later = running.until(lambda health: "total" in (health.cams["a"].lat_us or {}))
    assert later.cams["a"].lat_us["total"].n > 0
    running.end()


def test_an_engine_that_does_not_return_stalls_the_line_until_it_does(
    parts: ModuleType, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "STALLED_AFTER_NS", 1_000_000_000)
    hangs, goes_on, numbers = threading.Event(), threading.Event(), itertools.count(1)

    def before(batch: np.ndarray) -> None:
        if hangs.is_set():
            goes_on.wait(PATIENCE_S)

    frames = [lambda: parts.shot(next(numbers))] * 1_000_000
    running = start(parts, tiny, parts.ScriptedSource(frames, live=True, then="idle"), before)
    running.until(lambda health: health.ready and health.stalled == ())
    hangs.set()
    assert running.until(lambda health: bool(health.stalled)).stalled == ("infer",)
    goes_on.set()
    running.until(lambda health: health.stalled == ())
    running.end()
