"""Taps: what else looks at everything the line publishes, in the publish thread, after it was sent.

Archive, gate, metrics, drift monitors and pictures are taps. A tap takes microseconds (whatever
waits or computes has a thread or a process of its own) and can never cost a verdict: one that
raises is taken off the line, with the alarm "tap_failed".
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from . import wire_messages as wire
from .outlet import Alarm, Outlet
from .records import Announced, Result
from .trigger_door import Refused

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")

RaiseAlarm = Callable[[Alarm], None]
"""May be called from any thread; the alarm is sent at the publish thread's next turn."""


class Tap(Protocol):
    """Every method is called from the publish thread."""

    name: str

    def open(self, raise_alarm: RaiseAlarm) -> None:
        """Before the first event. Raises a class of skrd4ad.errors when it cannot work."""

    def on_result(self, result: Result, seq: int) -> None: ...
    def on_state(self, state: wire.State, text: str) -> None: ...
    def on_alarm(self, alarm: Alarm) -> None: ...
    def on_heartbeat(self, health: wire.HealthFields) -> None: ...
    def close(self) -> None: ...


@runtime_checkable
class AddsHealth(Protocol):
    """A tap that has something to say in the heartbeat."""

    def add_health(self, health: wire.HealthFields) -> wire.HealthFields:
        """The same with its own fields; called from the publish thread."""


@runtime_checkable
class Listener(Protocol):
    """A tap that also wants to know of parts before they have a result (the gate).

    Both are called from any thread, under a lock of the line, and return in microseconds. An
    announcement comes before the part's result, and for a triggered part before its picture.
    """

    def on_admitted(self, part: Announced) -> None: ...
    def on_refused(self, refused: Refused) -> None: ...


class TappedOutlet:
    """An outlet that shows all it sends to `taps`."""

    def __init__(self, outlet: Outlet, taps: Sequence[Tap]) -> None:
        self._outlet = outlet
        self._taps = list(taps)
        # Looked up once: a part may come every millisecond.
        self._listeners = [tap for tap in taps if isinstance(tap, Listener)]
        self._raised: queue.SimpleQueue[Alarm] = queue.SimpleQueue()

    def open(self) -> None:
        self._outlet.open()
        opened: list[Tap] = []
        try:
            for tap in self._taps:
                tap.open(self._raised.put)
                opened.append(tap)
        except BaseException:
            self._taps = opened
            self.close()
            raise

    def send_result(self, result: Result, dropped_since_boot: int = 0) -> int:
        seq = self._outlet.send_result(result, dropped_since_boot)
        self._show("on_result", result, seq)
        return seq

    def send_state(self, state: wire.State, text: str = "") -> int:
        seq = self._outlet.send_state(state, text)
        self._show("on_state", state, text)
        return seq

    def send_alarm(self, name: str, active: bool, text: str = "", camera: str = "") -> int:
        seq = self._outlet.send_alarm(name, active, text, camera)
        self._show("on_alarm", Alarm(name, active, text, camera))
        return seq

    def heartbeat_if_due(self, snapshot: Callable[[], wire.HealthFields]) -> bool:
        self._send_raised()
        taken: list[wire.HealthFields] = []

        def take() -> wire.HealthFields:
            health = snapshot()
            for tap in tuple(self._taps):
                if isinstance(tap, AddsHealth):
                    health = self._guarded(tap, tap.add_health, health) or health
            taken.append(health)
            return health

        due = self._outlet.heartbeat_if_due(take)
        if taken:
            self._show("on_heartbeat", taken[0])
        return due

    def on_admitted(self, part: Announced) -> None:
        """For run_line: shown to the taps that listen for it (any thread)."""
        self._hear("on_admitted", part)

    def on_refused(self, refused: Refused) -> None:
        """For run_line, likewise."""
        self._hear("on_refused", refused)

    @property
    def subscribers(self) -> int:
        return self._outlet.subscribers

    def wait_for_subscribers(self, count: int, timeout_s: float) -> bool:
        return self._outlet.wait_for_subscribers(count, timeout_s)

    def close(self, text: str = "") -> None:
        self._send_raised()
        for tap in self._taps:
            try:
                tap.close()
            except Exception:
                log.exception("closing %s failed", tap.name)
        self._send_raised()
        self._outlet.close(text)

    def _show(self, method: str, *values: Any) -> None:
        for tap in tuple(self._taps):
            self._guarded(tap, getattr(tap, method), *values)

    def _guarded(self, tap: Tap, call: Callable[..., Answer], *values: Any) -> Answer | None:
        try:
            return call(*values)
        except Exception as error:
            log.exception("%s failed and is taken off the line", tap.name)
            self._taps.remove(tap)
            text = f"{tap.name}: {type(error).__name__}: {error}"
            self._raised.put(Alarm("tap_failed", True, text))
            return None

    def _hear(self, method: str, value: Announced | Refused) -> None:
        for tap in self._listeners:
            try:
                getattr(tap, method)(value)
            except Exception as error:
                # In a camera's thread: the tap stays on the line, the alarm says what is wrong.
                log.exception("%s failed", tap)
                text = f"{type(tap).__name__}: {type(error).__name__}: {error}"
                self._raised.put(Alarm("tap_failed", True, text))

    def _send_raised(self) -> None:
        # Only what is there now: a tap that answers alarms with alarms must not hold the line.
        for _ in range(self._raised.qsize()):
            alarm = self._raised.get()
            self.send_alarm(alarm.name, alarm.active, alarm.text, alarm.camera)
