"""A tap for watched folders: what was published needs no second look after a restart.

A line is added after a result was published. After a crash between the two one part may be judged
a second time, never left out; after an ordinary stop neither happens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from ..engine.atomic import write_atomically
from ..errors import ConfigError
from . import wire_messages as wire
from .capture.watch_seen import read_seen
from .outlet import Alarm
from .records import Result
from .taps import RaiseAlarm


class SeenTap:
    """Adds each published file to the list of its camera. `paths`: camera to (folder, list)."""

    name = "watched folders"

    def __init__(self, paths: Mapping[str, tuple[Path, Path]]) -> None:
        self._paths = dict(paths)
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
            file.write(json.dumps([result.name, result.captured_ns]) + "\n")
            file.flush()

    def on_state(self, state: wire.State, text: str) -> None:
        """Nothing to keep."""

    def on_alarm(self, alarm: Alarm) -> None:
        """Nothing to keep."""

    def on_heartbeat(self, health: wire.HealthFields) -> None:
        """Nothing to keep."""

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
