"""What the gate costs the line, and how late its decisions are: printed for docs/performance.md."""

from __future__ import annotations

import statistics
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.spec import Threshold
from skrd4ad.pipeline.bench_parts import MemorySource, NullEngine
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.gate.fifo import Decision
from skrd4ad.pipeline.gate.settings import GateSettings, OutputSettings
from skrd4ad.pipeline.gate.tap import GateTap
from skrd4ad.pipeline.interpreter import prefer_short_waits
from skrd4ad.pipeline.line import run_line
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings, LineSummary
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.taps import TappedOutlet

ROUNDS = 5


class Decisions:
    """An output that keeps the decisions."""

    def __init__(self) -> None:
        self.all: list[Decision] = []

    def open(self) -> None: ...
    def switch(self, on: bool) -> None: ...
    def note(self, decision: Decision, now_ns: int) -> None:
        self.all.append(decision)

    def close(self) -> None: ...


def run(
    plan: Path, threshold: Threshold, parts: int, rate_hz: float | None, gate: Decisions | None
) -> LineSummary:
    """The real line with sockets and a null engine."""
    manifest = load_plan(plan).manifest
    frames = [np.full((480, 640, 3), level, np.uint8) for level in range(16)]
    source = MemorySource(frames, parts, rate_hz)
    local = PublishSettings(events="tcp://127.0.0.1:0", maps="tcp://127.0.0.1:0")
    settings = GateSettings(output=OutputSettings(kind="log"), delay_ms=50.0)
    taps = [] if gate is None else [GateTap(settings, "cam", gate=gate)]
    outlet = TappedOutlet(Publisher(local, "box"), taps)
    return run_line(
        [CameraSettings("cam", lambda: source)],
        [LinePlan(lambda: NullEngine(manifest), threshold)],
        outlet,
        LineSettings(),
        threading.Event(),
        on_admitted=outlet.on_admitted,
        on_refused=outlet.on_refused,
    )


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_gate_costs_the_line_nothing_and_is_on_time(parts: ModuleType, tiny_plan: Path) -> None:
    interval = sys.getswitchinterval()
    prefer_short_waits()
    try:
        rates: dict[bool, list[float]] = {False: [], True: []}
        for number in range(2 * ROUNDS):
            with_gate = bool(number % 2)
            gate = Decisions() if with_gate else None
            summary = run(tiny_plan, parts.THRESHOLD, 2000, None, gate)
            assert summary.balance.results == 2000
            rates[with_gate].append(2000 / summary.seconds)
        ratio = statistics.median(rates[True]) / statistics.median(rates[False])
        paced = Decisions()
        run(tiny_plan, parts.THRESHOLD, 2000, 100.0, paced)
    finally:
        sys.setswitchinterval(interval)
    late_us = sorted(one.late_by / 1e3 for one in paced.all)
    p50, p99 = late_us[len(late_us) // 2], late_us[len(late_us) * 99 // 100]
    print(
        f"with a gate the line does {ratio:.3f} times as many parts a second (medians of {ROUNDS} "
        f"rounds in turn); at 100 parts a second {len(late_us)} decisions came p50 {p50:.0f} us, "
        f"p99 {p99:.0f} us, at most {late_us[-1]:.0f} us after their place"
    )
    assert len(late_us) == 2000
    assert ratio > 0.9
    assert p99 < 20_000  # the default tolerance
