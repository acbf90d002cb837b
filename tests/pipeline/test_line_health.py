"""What a line says about itself: ready once cameras deliver, stalled while a stage hangs."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from skrd4ad.pipeline import line
from skrd4ad.pipeline import wire_messages as wire
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings

PATIENCE_S = 60.0


class Running:
    """A line on one camera in a thread of its own; `until` waits for a heartbeat."""

    def __init__(
        self,
        parts: ModuleType,
        tiny: ModuleType,
        source: object,
        before: Callable[[np.ndarray], None],
    ) -> None:
        outlet = parts.RecordingOutlet()
        engine = parts.ArithmeticEngine(tiny.tiny_manifest(), before)
        self.heartbeats: list[wire.HealthFields] = outlet.heartbeats
        self._line = parts.LineThread(
            [CameraSettings("a", lambda: source)],
            [LinePlan(lambda: engine, parts.THRESHOLD)],
            outlet,
            LineSettings(mode="latest"),
        )
        self.end = self._line.end

    def until(self, check: Callable[[wire.HealthFields], bool]) -> wire.HealthFields:
        seen, found = len(self.heartbeats), []
        self._line.wait(
            lambda: found.extend(filter(check, self.heartbeats[seen:])) or found,
            lambda: "no such heartbeat",
        )
        return found[0]


def test_a_live_camera_makes_the_line_ready_with_its_first_frame(
    parts: ModuleType, tiny: ModuleType
) -> None:
    shown = threading.Event()

    numbers = itertools.count(1)

    def next_frame() -> object:
        return parts.shot(next(numbers)) if shown.is_set() else None

    source = parts.ScriptedSource([next_frame] * 100_000, live=True, then="idle")
    running = Running(parts, tiny, source, lambda batch: None)
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
    running = Running(parts, tiny, parts.ScriptedSource(frames, live=True, then="idle"), before)
    running.until(lambda health: health.ready and health.stalled == ())
    hangs.set()
    assert running.until(lambda health: bool(health.stalled)).stalled == ("infer",)
    goes_on.set()
    running.until(lambda health: health.stalled == ())
    running.end()
