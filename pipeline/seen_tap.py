"""A tap for watched folders: what was published needs no second look after a restart.

A line is added a second after a result was published: by then sockets and journal have it too.
After a crash the parts of that second may be judged again, and none is left out; after an ordinary
stop neither happens.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from ..engine.atomic import write_atomically
from ..errors import ConfigError
from . import wire_messages as wire
from .capture.watch_seen import read_seen
from .clock import SYSTEM_CLOCK, Clock
from .outlet import Alarm
from .records import Result
from .taps import RaiseAlarm

_KEPT_BACK_NS = 1_000_000_000


class SeenTap:
    """Adds each published file to the list of its camera. `paths`: camera to (folder, list)."""

    name = "watched folders"

    def __init__(self, paths: Mapping[str, tuple[Path, Path]], clock: Clock = SYSTEM_CLOCK) -> None:
        self._paths, self._clock = dict(paths), clock
        self._young: deque[tuple[int, TextIO, str]] = deque()
        """(when it was published, list, line)."""
        self._files: dict[str, TextIO] = {}

    def open(self, raise_alarm: RaiseAlarm) -> None:
        for camera, (folder, path) in self._paths.items():
            # Files that were taken away need not be remembered.
            kept = {n: t for n, t in read_seen(path).items() if (folder / n).exists()}
            text = "".join(json.dumps([name, written]) + "\n" for name, written in kept.items())
            try:
                write_atomically(path, text.encode())
            except ConfigError as error:
                hint = "the list of inspected files can lie elsewhere: seen=FILE"
                raise ConfigError(error.sentence, hint) from error
            self._files[camera] = path.open("a", encoding="utf-8")

    def on_result(self, result: Result, seq: int) -> None:
        file = self._files.get(result.camera)
        # A part that the stop cut off is for the next start.
        if file is not None and result.name is not None and result.reasons != ("stopped",):
            line = json.dumps([result.name, result.captured_ns]) + "\n"
            self._young.append((self._clock.mono_ns(), file, line))
        self._note(_KEPT_BACK_NS)

    def on_state(self, state: wire.State, text: str) -> None:
        """Nothing to keep."""

    def on_alarm(self, alarm: Alarm) -> None:
        """Nothing to keep."""

    def on_heartbeat(self, health: wire.HealthFields) -> None:
        self._note(_KEPT_BACK_NS)

    def _note(self, older_than_ns: int) -> None:
        now_ns = self._clock.mono_ns()
        while self._young and now_ns - self._young[0][0] >= older_than_ns:
            _, file, line = self._young.popleft()
            file.write(line)
            file.flush()

    def close(self) -> None:
        self._note(0)
        for file in self._files.values():
            file.close()
        self._files.clear()
