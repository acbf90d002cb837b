"""What the line publishes about its state, told to systemd as well: STATUS=, STOPPING=1."""

from __future__ import annotations

from . import wire_messages as wire
from .outlet import Alarm
from .records import Result
from .stopping import notify_systemd
from .taps import RaiseAlarm


class SystemdTap:
    """See taps.Tap. READY=1 and WATCHDOG=1 are said by the line's own thread."""

    name = "systemd"

    def open(self, raise_alarm: RaiseAlarm) -> None:
        """Nothing to open: each message has a socket of its own."""

    def on_state(self, state: wire.State, text: str) -> None:
        said = f"STATUS={state}{': ' if text else ''}{text}".replace("\n", " ")
        if state == "DRAINING":
            said = f"STOPPING=1\n{said}"
        notify_systemd(said)

    def on_result(self, result: Result, seq: int) -> None: ...
    def on_alarm(self, alarm: Alarm) -> None: ...
    def on_heartbeat(self, health: wire.HealthFields) -> None: ...
    def close(self) -> None: ...
