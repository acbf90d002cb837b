"""States and alarms in the log, with their codes: what is left when nobody was subscribed."""

from __future__ import annotations

import logging

from ... import logs
from .. import wire_messages as wire
from ..alarms import ALARM_BY_NAME
from ..outlet import Alarm
from ..records import Result
from ..taps import RaiseAlarm

log = logging.getLogger(__name__)


class LogTap:
    """See taps.Tap. An alarm that is raised again while it is active is logged once."""

    name = "log"

    def __init__(self) -> None:
        self._active: set[tuple[str, str]] = set()

    def open(self, raise_alarm: RaiseAlarm) -> None: ...
    def on_result(self, result: Result, seq: int) -> None: ...
    def on_heartbeat(self, health: wire.HealthFields) -> None: ...
    def close(self) -> None: ...

    def on_state(self, state: wire.State, text: str) -> None:
        fields = logs.with_fields(event="state", state=state, text=text)
        log.info("state %s%s", state, f": {text}" if text else "", extra=fields)

    def on_alarm(self, alarm: Alarm) -> None:
        key = alarm.name, alarm.camera
        if alarm.active == (key in self._active):
            return
        self._active ^= {key}
        row = ALARM_BY_NAME[alarm.name]
        fields = logs.with_fields(
            event="alarm",
            code=row.code,
            alarm=alarm.name,
            active=alarm.active,
            camera=alarm.camera,
            text=alarm.text,
        )
        level = logging.INFO
        if alarm.active:
            level = logging.ERROR if row.severity == "error" else logging.WARNING
        where = f" camera {alarm.camera}" if alarm.camera else ""
        what = f": {alarm.text or row.meaning}" if alarm.active else " is over"
        log.log(level, "alarm %d %s%s%s", row.code, alarm.name, where, what, extra=fields)
