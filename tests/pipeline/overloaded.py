"""A line with more parts than it can judge and a camera that dies again and again, as a process.

python overloaded.py PLAN latest|every SECONDS: prints the events endpoint, runs, prints one JSON
line. `latest`: two cameras that run by themselves, twice as fast as the engine. `every`: two
triggered cameras that are given orders without a pause; a gate follows the first.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path

import msgspec
import numpy as np
from line_parts import THRESHOLD, ArithmeticEngine
from skrd4ad.engine.plan import load_plan
from skrd4ad.errors import CameraError
from skrd4ad.pipeline.capture.base import Shot
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.control_port import ControlRefused, LineControl
from skrd4ad.pipeline.gate.fifo import Decision
from skrd4ad.pipeline.gate.settings import GateSettings, OutputSettings
from skrd4ad.pipeline.gate.tap import GateTap
from skrd4ad.pipeline.line import run_line
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings
from skrd4ad.pipeline.pairing import TriggerSettings
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Part
from skrd4ad.pipeline.taps import TappedOutlet

ENGINE_S = 0.01
PARTS_PER_S = 200


class BusyCamera:
    """A part every 5 ms, or one per trigger. `dies` after 20 to 60 parts; it then fails to open
    now and then. Holds a file while it is open, so that a leak of handles shows."""

    live = True

    def __init__(self, seed: int, dies: bool, triggered: bool) -> None:
        self.made = self.opened = 0
        self._dice = random.Random(seed)
        self._dies, self._triggered = dies, triggered
        self._images = np.random.default_rng(seed).integers(0, 100, (16, 64, 64, 3), np.uint8)
        self._left = 0
        self._handle: object = None
        self._orders: deque[int] = deque()
        self._number = 0

    def open(self) -> None:
        if self._dies and self.opened and self._dice.random() < 0.3:
            raise CameraError("it does not answer")
        self.opened += 1
        self._handle = Path(__file__).open("rb")  # noqa: SIM115 - closed in close()
        self._left = self._dice.randint(20, 60)

    def configure(self) -> None:
        self._due_s = time.monotonic()

    def grab(self, timeout_s: float) -> Shot | None:
        if self._triggered and not self._orders:
            time.sleep(0.001)
            return None
        if not self._triggered:
            self._due_s = max(self._due_s + 1 / PARTS_PER_S, time.monotonic() - 0.1)
            time.sleep(max(0.0, self._due_s - time.monotonic()))
        if self._dies:
            self._left -= 1
            if self._left < 0:
                raise CameraError("it died")
        count = self._orders.popleft() if self._triggered else None
        self.made += 1
        return Shot(
            pixels=self._images[self.made % len(self._images)],
            captured_ns=time.time_ns(),
            captured_mono_ns=time.monotonic_ns(),
            captured_source="device",
            frame_id=self.made,
            part=Part(trigger_seq=count),
        )

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()  # type: ignore[attr-defined]
            self._handle = None


class BusyTriggered(BusyCamera):
    """The same with a trigger input; a lost camera loses the pictures it had not sent."""

    def trigger(self, part_id: str | None) -> int:
        self._number += 1
        self._orders.append(self._number)
        return self._number

    def unanswered(self) -> list[Shot]:
        return []

    def inherit(self, old: object) -> None: ...

    def close(self) -> None:
        super().close()
        self._orders.clear()


class Nothing:
    """A gate's output that keeps nothing."""

    def open(self) -> None: ...
    def switch(self, on: bool) -> None: ...
    def note(self, decision: Decision, now_ns: int) -> None: ...
    def close(self) -> None: ...


def main(plan: str, mode: str, seconds: float) -> None:
    manifest = msgspec.structs.replace(load_plan(Path(plan)).manifest, batch=2)
    triggered = mode == "every"
    kind = BusyTriggered if triggered else BusyCamera
    sources = {"steady": kind(1, False, triggered), "dying": kind(2, True, triggered)}
    trigger = TriggerSettings(limit_ms=500.0, under_way=4) if triggered else None
    publisher = Publisher(
        PublishSettings(events="tcp://127.0.0.1:0", maps="tcp://127.0.0.1:0", map_policy="none"),
        "box",
    )
    gate = GateSettings(output=OutputSettings(kind="log"), delay_ms=100.0)
    outlet = TappedOutlet(publisher, [GateTap(gate, "steady", gate=Nothing())])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    given, refused = dict.fromkeys(sources, 0), dict.fromkeys(sources, 0)

    def order(control: LineControl, camera: str) -> None:
        while not stop.is_set():
            try:
                given[camera] = control.trigger(camera, f"{camera}-{given[camera] + 1}")
            except ControlRefused:
                refused[camera] += 1
                time.sleep(1 / PARTS_PER_S)

    def in_control(control: LineControl) -> None:
        if triggered:
            for camera in sources:
                threading.Thread(target=order, args=(control, camera), daemon=True).start()

    threading.Timer(seconds, stop.set).start()
    summary = run_line(
        [CameraSettings(name, lambda s=one: s, trigger=trigger) for name, one in sources.items()],
        [
            LinePlan(
                lambda: ArithmeticEngine(manifest, lambda batch: time.sleep(ENGINE_S * len(batch))),
                THRESHOLD,
            )
        ],
        outlet,
        LineSettings(mode=mode, wait_subscribers=1),
        stop,
        on_ready=lambda engines: print(publisher.events_endpoint, flush=True),
        on_control=in_control,
        on_admitted=outlet.on_admitted,
        on_refused=outlet.on_refused,
    )
    print(
        json.dumps(
            {
                "balance": msgspec.to_builtins(summary.balance),
                "balanced": summary.balance.balanced,
                "pending": summary.balance.pending,
                "made": {name: one.made for name, one in sources.items()},
                "opened": {name: one.opened for name, one in sources.items()},
                "given": given,
                "refused": refused,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
