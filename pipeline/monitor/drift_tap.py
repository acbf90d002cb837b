"""Drift monitors as a tap: a copy of a few numbers in the publish thread, the rest in its own.

publish thread   per part: one append; twice a second and camera also a reference to the picture
drift thread     four times a second: feeds the monitors, measures those pictures (0.3 ms each)
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...calibration.look import look_at
from ...engine.spec import Threshold
from .. import wire_messages as wire
from ..clock import SYSTEM_CLOCK, Clock
from ..outlet import Alarm
from ..records import Result, Verdict
from ..taps import RaiseAlarm
from .drift_monitor import CameraDrift, DriftChange, DriftSettings, has_score_baseline

log = logging.getLogger(__name__)
_EVERY_S = 0.25
_MOST_WAITING = 20_000
_CLOSE_WAIT_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    camera: str
    verdict: Verdict
    score: float
    pixels: NDArray[np.uint8] | None
    """Only of parts whose picture shall be looked at."""
    plan: str
    """Digest of the plan that judged it; another one has a calibration of its own."""


class DriftTap:
    """See taps.Tap. `threshold_of` gives the calibration that a camera's parts are judged by."""

    name = "drift"

    def __init__(
        self,
        settings: DriftSettings,
        threshold_of: Callable[[str], Threshold],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._settings, self._threshold_of, self._clock = settings, threshold_of, clock
        self._between_looks_ns = round(1e9 / settings.looks_per_s)
        self._next_look_ns: dict[str, int] = {}
        self._waiting: deque[_Seen] = deque(maxlen=_MOST_WAITING)
        self._cameras: dict[str, tuple[str, CameraDrift]] = {}
        """Of each camera the plan that judges it, and the monitor that knows its calibration."""
        self._fields: dict[str, wire.DriftFields] = {}
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._loop, name="drift", daemon=True)

    def open(self, raise_alarm: RaiseAlarm) -> None:
        self._raise_alarm = raise_alarm
        self._thread.start()

    def on_result(self, result: Result, seq: int) -> None:
        """Raises what broke the drift thread, so that the tap is taken off with its alarm."""
        if self._failure is not None:
            raise self._failure
        camera, pixels = result.camera, None
        now_ns = self._clock.mono_ns()
        if result.pixels is not None and now_ns >= self._next_look_ns.get(camera, 0):
            self._next_look_ns[camera] = now_ns + self._between_looks_ns
            pixels = result.pixels
        plan = "" if result.model is None else result.model.plan
        self._waiting.append(_Seen(camera, result.verdict, result.score, pixels, plan))

    def on_state(self, state: wire.State, text: str) -> None: ...
    def on_alarm(self, alarm: Alarm) -> None: ...
    def on_heartbeat(self, health: wire.HealthFields) -> None: ...

    def add_health(self, health: wire.HealthFields) -> wire.HealthFields:
        """The heartbeat with the drift of each camera."""
        known = self._fields
        cameras = {
            name: msgspec.structs.replace(camera, drift=known[name]) if name in known else camera
            for name, camera in health.cams.items()
        }
        return msgspec.structs.replace(health, cams=cameras)

    def close(self) -> None:
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_WAIT_S)

    def work(self) -> None:
        """Feed the monitors with everything that waits. The drift thread's turn."""
        while self._waiting:
            seen = self._waiting.popleft()
            plan, monitor = self._cameras.get(seen.camera, ("", None))
            if monitor is None or plan != seen.plan:
                if monitor is not None:
                    # What was seen under the plan before says nothing about this one.
                    self._raise(seen.camera, monitor.end())
                monitor = self._begin(seen.camera, self._threshold_of(seen.camera))
                self._cameras[seen.camera] = seen.plan, monitor
            self._raise(seen.camera, monitor.see(seen.verdict, seen.score))
            if seen.pixels is not None:
                self._raise(seen.camera, monitor.look(look_at(seen.pixels)))
        self._fields = {name: monitor.fields() for name, (_, monitor) in self._cameras.items()}

    def _loop(self) -> None:
        try:
            while not self._closing.wait(_EVERY_S):
                self.work()
        except Exception as error:
            log.exception("the drift monitors failed")
            self._failure = error

    def _raise(self, camera: str, changes: Iterable[DriftChange]) -> None:
        for change in changes:
            self._raise_alarm(Alarm(change.name, change.active, change.text, camera))

    def _begin(self, camera: str, threshold: Threshold) -> CameraDrift:
        missing = [
            what
            for what, there in (
                ("scores", has_score_baseline(threshold)),
                ("pictures", threshold.images is not None),
            )
            if not there
        ]
        if missing:
            log.warning(
                "camera %s: the plan keeps no %s of its calibration, so their drift is shown "
                "but raises no alarm; `skrd4ad calibrate threshold` stores them",
                camera,
                " and no ".join(missing),
            )
        return CameraDrift(threshold, self._settings)
