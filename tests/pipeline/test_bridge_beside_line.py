"""A dead, a deaf and a frozen bridge beside a running line: the line notices none of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import ResultMessage

pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt (the extra bridges)")

PATIENCE_S = 60.0
RATE = 100
AWAY = ("dead", "deaf", "frozen")


class Bridge:
    """`skrd4ad bridge mqtt` that has heard the line; then its far side is away in one way.

    "dead": the broker refuses; "deaf": it takes connections and never answers; "frozen": the bridge
    itself hangs.
    """

    def __init__(self, events: str, kind: str) -> None:
        self.kind = kind
        self._broker = socket.create_server(("127.0.0.1", 0))
        self._broker.settimeout(PATIENCE_S)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "skrd4ad", "bridge", "mqtt", "--connect", events]
            + ["--queue", "50", "--broker", f"127.0.0.1:{self._broker.getsockname()[1]}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def go_away(self) -> None:
        # A bridge calls its broker once it has heard the box: from now on it has a subscription.
        self._heard, _ = self._broker.accept()
        if self.kind == "dead":
            self._broker.close()
            self._heard.close()
        elif self.kind == "frozen":
            self.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def hangs(self) -> bool:
        """Whether it has been stopped and not continued."""
        found = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def received(self) -> int:
        """End it; how many events it had got from the line and nobody took from it."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0
        words = out.splitlines()[-1].split()  # "250 events dropped, 50 not delivered"
        return int(words[0]) + int(words[3])

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._broker.close()
        if hasattr(self, "_heard"):
            self._heard.close()


@contextmanager
def bridge(events: str, kind: str) -> Iterator[Bridge]:
    one = Bridge(events, kind)
    try:
        yield one
    finally:
        one.close()


def test_a_line_beside_dead_deaf_and_frozen_bridges_publishes_every_part(
    streams: ModuleType, tiny_plan: Path
) -> None:
    count = 300
    camera = f"test:count={count},rate={RATE},size=64,bank=4"
    # No part comes before all bridges and the test itself subscribe.
    wait = ("--wait-subscribers", len(AWAY) + 1, "--wait-timeout", PATIENCE_S)
    with ExitStack() as stack:
        line = stack.enter_context(streams.running("--plan", tiny_plan, "--camera", camera, *wait))
        events = line.ready["events"]
        bridges = [stack.enter_context(bridge(events, kind)) for kind in AWAY]
        for one in bridges:
            one.go_away()
        seen: list[int] = []
        with Subscriber(events) as stream:
            for item in stream.items(PATIENCE_S, PATIENCE_S):
                if isinstance(item, ResultMessage):
                    seen.append(item.header.cam_seq)
            assert stream.status().missing == 0
        for one in bridges:
            if one.kind == "frozen":
                assert one.hangs()
            else:
                assert one.received() >= count  # and an alarm, where there was one
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
def test_neither_rate_nor_p99_of_the_line_moves_beside_a_broken_bridge(
    streams: ModuleType, tiny_plan: Path
) -> None:
    """Turns alternate, and each figure is the median over its turns: other work hits all alike."""
    turns, turn_s = 7, 4.0
    windows: dict[str, list[tuple[float, float]]] = {kind: [] for kind in ("alone", *AWAY)}

    def turn(kind: str) -> None:
        time.sleep(1.0)
        windows[kind].append((time.monotonic(), time.monotonic() + turn_s))
        time.sleep(turn_s)

    camera = f"test:rate={RATE},size=64,bank=4"
    with (
        streams.running("--plan", tiny_plan, "--camera", camera) as line,
        closing(Gate(line.ready["events"])) as gate,
    ):
        for _ in range(turns):
            turn("alone")
            for kind in AWAY:
                with bridge(line.ready["events"], kind) as one:
                    one.go_away()
                    turn(kind)
                    if kind == "frozen":
                        assert one.hangs()
                    else:
                        assert one.received() > turn_s * RATE / 2
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
