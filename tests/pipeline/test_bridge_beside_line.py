"""A dead, a deaf and a frozen bridge beside a running line: the line notices none of them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import ResultMessage

pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt (the extra bridges)")

PATIENCE_S = 60.0
RATE = 100
AWAY = ("dead", "deaf", "frozen")


@contextmanager
def line(plan: Path, camera: str) -> Iterator[str]:
    """`skrd4ad stream`; gives its events endpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "skrd4ad", "stream", "--plan", str(plan), "--camera", camera]
        + ["--events", "tcp://127.0.0.1:0", "--maps", "tcp://127.0.0.1:0", "--json"]
        + ["--wait-subscribers", "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["events"]
    finally:
        process.kill()
        process.communicate()


@contextmanager
def bridge(events: str, kind: str) -> Iterator[None]:
    """`skrd4ad bridge mqtt` whose broker refuses ("dead") or never answers ("deaf"); "frozen" is a
    bridge that hangs itself."""
    with socket.socket() as broker:
        broker.bind(("127.0.0.1", 0))
        if kind != "dead":
            broker.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-m", "skrd4ad", "bridge", "mqtt", "--connect", events]
            + ["--queue", "50", "--broker", f"127.0.0.1:{broker.getsockname()[1]}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("bridging")
            if kind == "frozen":
                process.send_signal(signal.SIGSTOP)
            yield
        finally:
            process.kill()
            process.communicate()


def test_a_line_beside_dead_deaf_and_frozen_bridges_publishes_every_part(tiny_plan: Path) -> None:
    count = 300
    with line(tiny_plan, f"test:count={count},rate={RATE},size=64,bank=4") as events:
        seen: list[int] = []
        with Subscriber(events) as stream:
            for item in stream.items(PATIENCE_S, PATIENCE_S):
                if isinstance(item, ResultMessage):
                    seen.append(item.header.cam_seq)
                    if len(seen) == 1:
                        opened = [bridge(events, kind) for kind in AWAY]
                        threads = [threading.Thread(target=one.__enter__) for one in opened]
                        for thread in threads:
                            thread.start()
            for thread in threads:
                thread.join()
            for one in opened:
                one.__exit__(None, None, None)
            assert stream.status().missing == 0
    assert seen == list(range(1, count + 1))


class Gate:
    """Keeps when each result came, its latency in the box, and its way here; in microseconds."""

    def __init__(self, events: str) -> None:
        self.rows: list[tuple[float, float, float]] = []
        self.missing = 0
        self._stop = threading.Event()
        self._events = events
        self._thread = threading.Thread(target=self._loop)
        self._thread.start()

    def _loop(self) -> None:
        with Subscriber(self._events) as stream:
            while not self._stop.is_set():
                item = stream.receive(0.1)
                if isinstance(item, ResultMessage):
                    now_ns = time.monotonic_ns()
                    travelled_us = (now_ns - item.header.mono_pub) / 1000
                    self.rows.append((now_ns / 1e9, item.header.lat_us.total, travelled_us))
            self.missing = stream.status().missing

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_neither_rate_nor_p99_of_the_line_moves_beside_a_broken_bridge(tiny_plan: Path) -> None:
    """Turns alternate, and each figure is the median over its turns: other work hits all alike."""
    turns, turn_s = 7, 4.0
    windows: dict[str, list[tuple[float, float]]] = {kind: [] for kind in ("alone", *AWAY)}
    with line(tiny_plan, f"test:rate={RATE},size=64,bank=4") as events:
        gate = Gate(events)
        for _ in range(turns):
            for kind, found in windows.items():
                if kind == "alone":
                    time.sleep(1.0)
                    found.append((time.monotonic(), time.monotonic() + turn_s))
                    time.sleep(turn_s)
                    continue
                with bridge(events, kind):
                    time.sleep(1.0)
                    found.append((time.monotonic(), time.monotonic() + turn_s))
                    time.sleep(turn_s)
        gate.close()
    assert gate.missing == 0
    rows = np.array(gate.rows)

    def of(kind: str) -> tuple[float, float, float]:
        picked = [rows[(rows[:, 0] >= a) & (rows[:, 0] < b)] for a, b in windows[kind]]
        rates = [len(part) / turn_s for part in picked]
        p99 = [np.percentile(part[:, 1:], 99, axis=0) for part in picked]
        return (float(np.median(rates)), *np.median(p99, axis=0))

    alone = of("alone")
    print(f"\nalone: {alone[0]:.1f} parts/s, p99 {alone[1]:.0f} us in the box")
    ratios = {}
    for kind in AWAY:
        ratios[kind] = [now / before for now, before in zip(of(kind), alone, strict=True)]
        rate, box, way = ratios[kind]
        print(f"{kind}, ratios to alone: rate {rate:.3f}, p99 in box {box:.2f}, after it {way:.2f}")
    for kind, (rate, box, _) in ratios.items():
        assert rate > 0.95, kind
        assert box < 1.2, kind
