"""What a gate switches: one small class per kind of output.

`log` and `file` are for trials and records and run anywhere; the others drive real outputs. Each
kind that needs a package of its own imports it when it is opened.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import IO, Protocol

from ...errors import SkrdError
from .fifo import Decision
from .settings import OutputSettings

log = logging.getLogger(__name__)
_FILE_LIMIT_BYTES = 64 * 1024 * 1024


class GateError(SkrdError):
    """An output that cannot be opened or switched."""

    exit_code = 2


class Gate(Protocol):
    """One output. All calls come from the gate's thread; `close` leaves it off."""

    def open(self) -> None:
        """Take the output and switch it off. Raises GateError."""

    def switch(self, on: bool) -> None:
        """Raises GateError when it could not be switched; it is asked again then."""

    def note(self, decision: Decision, now_ns: int) -> None:
        """What was decided, for outputs that keep records (wall-clock ns). Never raises."""

    def close(self) -> None: ...


class LogGate:
    """Says what it would do."""

    def __init__(self, camera: str) -> None:
        self._camera = camera

    def open(self) -> None:
        log.info("gate behind %s: decisions go to the log, nothing is switched", self._camera)

    def switch(self, on: bool) -> None:
        log.info("gate behind %s: %s", self._camera, "on" if on else "off")

    def note(self, decision: Decision, now_ns: int) -> None:
        log.info("gate behind %s: %s", self._camera, as_json(decision, now_ns))

    def close(self) -> None: ...


class FileGate:
    """One JSON line per decision and per switching; at 64 MB the file is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._failed = False

    def open(self) -> None:
        try:
            self._file = self._path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise _unwritable(self._path, error) from None

    def switch(self, on: bool) -> None:
        self._write(json.dumps({"on": on}))

    def note(self, decision: Decision, now_ns: int) -> None:
        try:
            self._write(as_json(decision, now_ns))
            self._failed = False
        except GateError as error:
            if not self._failed:  # the next switching tells it too, and raises the alarm
                log.error("%s", error.sentence)
            self._failed = True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: str) -> None:
        assert self._file is not None
        try:
            if self._file.tell() > _FILE_LIMIT_BYTES:
                self._file.close()
                self._path.replace(self._path.with_suffix(self._path.suffix + ".1"))
                self._file = self._path.open("a", encoding="utf-8", buffering=1)
            self._file.write(line + "\n")
        except OSError as error:
            raise _unwritable(self._path, error) from None


def _unwritable(path: Path, error: OSError) -> GateError:
    return GateError(f"the gate's file {path} cannot be written: {error.strerror}")


def as_json(decision: Decision, now_ns: int) -> str:
    """A decision as one line for programs."""
    return json.dumps(
        {
            "t": now_ns,
            "cam_seq": decision.camera_seq,
            "part": decision.part.part_id,
            "trigger_seq": decision.part.trigger_seq,
            "reject": decision.reject,
            "cause": decision.cause,
            "in_time": decision.in_time,
            "late_by": round(decision.late_by, 3),
        }
    )


def make_gate(settings: OutputSettings, camera: str) -> Gate:
    """The output of these (checked) settings, not opened."""
    if settings.kind == "log":
        return LogGate(camera)
    if settings.kind == "file":
        assert settings.path is not None
        return FileGate(Path(settings.path))
    if settings.kind == "gpiod":
        from .gpio import GpiodGate

        assert settings.chip is not None
        assert settings.line is not None
        return GpiodGate(settings.chip, settings.line, settings.active_low)
    if settings.kind == "jetson":
        from .gpio import JetsonGate

        assert settings.pin is not None
        return JetsonGate(settings.pin, settings.active_low)
    from .modbus import ModbusGate

    assert settings.host is not None
    assert settings.coil is not None
    return ModbusGate(settings.host, settings.port, settings.unit, settings.coil)
