"""For the tests of bridges and clients: a real box, which is a publisher in a thread that beats by
itself, and a bridge in another thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from free_ports import free_port as free_port
from skrd4ad.pipeline.bridges.feed import Feed
from skrd4ad.pipeline.bridges.uplink import CircuitBreaker, Uplink, run_bridge
from skrd4ad.pipeline.journal import JournalSettings
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.wire_messages import BalanceFields, CameraFields, HealthFields

FREE = "tcp://127.0.0.1:0"
PATIENCE_S = 60.0


def wait_for(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)


def result(
    number: int, verdict: Verdict = Verdict.OK, camera: str = "cam0", **changes: object
) -> Result:
    values = {
        "camera": camera,
        "camera_seq": number,
        "frame_id": number,
        "captured_ns": time.time_ns(),
        "captured_mono_ns": time.monotonic_ns(),
        "captured_source": "file",
        "captured_error_ns": 0,
        "part": Part(f"p{number}", number, "test", "exact"),
        "name": None,
        "verdict": verdict,
        "reasons": () if verdict is Verdict.OK else ("score",),
        "evaluated": verdict is not Verdict.ERR,
        "score": 0.25,
        "threshold": 0.5,
        "defects": (),
        "latency": Latency(),
        "anomaly_map": np.zeros((8, 8), np.float32),
    }
    return Result(**(values | changes))  # type: ignore[arg-type]


class _Nobody:
    def send(self, parts: object) -> None:
        """Lost."""


class Box:
    """Publishes from one thread, as the line does; `do` runs a function there and waits for it."""

    def __init__(
        self,
        events: str = FREE,
        replay: str | None = None,
        journal: Path | None = None,
        map_policy: str = "none",
        **more: object,
    ) -> None:
        settings = PublishSettings(
            events=events,
            maps=FREE,
            map_policy=map_policy,
            heartbeat_ms=100,
            journal=None if journal is None else JournalSettings(path=str(journal)),
            replay=FREE if replay is None and journal is not None else replay,
            **more,
        )
        self.publisher = Publisher(settings, "edge07")
        self.health = HealthFields(
            ready=True,
            uptime_s=1.0,
            cams={
                "cam0": CameraFields(state="running", admitted=1, reconnects=0, last_age_ms=5),
            },
            balance=BalanceFields(),
        )
        self.slowest_send_s = 0.0
        self._jobs: queue.SimpleQueue[tuple[Callable[[], object], threading.Event] | None] = (
            queue.SimpleQueue()
        )
        self._beating = True
        self.publisher.open()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        self.do(lambda: self.publisher.send_state("RUNNING"))

    @property
    def events(self) -> str:
        return self.publisher.events_endpoint

    def do(self, job: Callable[[], object]) -> None:
        done = threading.Event()
        self._jobs.put((job, done))
        # A job may itself wait as long as PATIENCE_S.
        assert done.wait(2 * PATIENCE_S)

    def send(self, *results: Result) -> None:
        def act() -> None:
            for one in results:
                begun = time.perf_counter()
                self.publisher.send_result(one)
                self.slowest_send_s = max(self.slowest_send_s, time.perf_counter() - begun)

        self.do(act)

    def send_unheard(self, *results: Result) -> None:
        """Journalled and lost on the way to every subscriber, as by a cut cable."""

        def act() -> None:
            events, self.publisher._events = self.publisher._events, _Nobody()  # type: ignore
            for one in results:
                self.publisher.send_result(one)
            self.publisher._events = events

        self.do(act)

    def lose(self, count: int) -> None:
        """Numbers that nobody will ever receive."""

        def act() -> None:
            self.publisher.last_seq += count

        self.do(act)

    def fall_silent(self) -> None:
        self._beating = False

    def speak_again(self) -> None:
        self._beating = True

    def wait_for_clients(self, count: int) -> None:
        came: list[bool] = []
        self.do(lambda: came.append(self.publisher.wait_for_subscribers(count, PATIENCE_S)))
        assert came == [True], f"fewer than {count} clients came"

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self.publisher.close()

    def _loop(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=0.02)
            except queue.Empty:
                job = (lambda: None, threading.Event())
            if job is None:
                return
            job[0]()
            job[1].set()
            if self._beating:
                self.publisher.heartbeat_if_due(self.health)


class RunningBridge:
    """`run_bridge` in a thread of this process, with short pauses between its attempts."""

    def __init__(self, feed: Feed, uplink: Uplink, breaker: CircuitBreaker | None = None) -> None:
        self.feed, self.uplink = feed, uplink
        self.breaker = breaker or CircuitBreaker(0.05, 0.2)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=run_bridge, args=(feed, uplink, self.breaker, self._stop), daemon=True
        )
        feed.start()
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        self.feed.stop()
        assert not self._thread.is_alive(), "the bridge does not end"
