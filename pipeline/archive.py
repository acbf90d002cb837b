"""Images and maps for later: a tap that hands chosen parts to an archive process and never waits.

publish thread   on_result: a few comparisons, one append to a bounded queue
archive thread   socket to the process, one part at a time; starts the process again when it dies
archive process  PNG, map, sidecar, retention (archive_child.py, at low priority)

What does not fit is dropped, counted and alarmed. No verdict ever waits for an image.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from ..errors import ConfigError
from . import wire_messages as wire
from .archive_store import ArchivedPart, Limits, worth_keeping
from .archive_writer import ArchiveWriter, WriterLost
from .outlet import Alarm
from .records import Result, Verdict
from .taps import RaiseAlarm

log = logging.getLogger(__name__)
_MIB = 1024 * 1024
_ATTEMPTS = 3
"""A part during which the process died this often is given up: it may be the cause."""
_CLOSE_WAIT_S = 1.5
_RESTART_WAIT_S = 0.5


class ArchiveSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`archive:` of the station file: which parts are kept, where, and how long."""

    path: str
    keep: tuple[wire.VerdictName, ...] = ("ng", "review", "err")
    """Verdicts that are always kept."""
    borderline: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """Also good parts whose score is within this share of the threshold below it; 0: none."""
    every: Annotated[int, Meta(ge=0)] = 100
    """Also each N-th good part of a camera; 0: none."""
    maps: bool = True
    max_days: Annotated[float, Meta(gt=0)] = 30.0
    max_mb: Annotated[float, Meta(gt=0)] = 20_480.0
    min_free_mb: Annotated[float, Meta(ge=0)] = 1024.0
    """Free space of the disk below which the oldest parts are removed."""
    queue_parts: Annotated[int, Meta(ge=1, le=10_000)] = 64
    queue_mb: Annotated[float, Meta(gt=0)] = 256.0
    """How much may wait for the disk."""


class ArchiveTap:
    """See taps.Tap. `published` gives the parts of the event last sent for a camera."""

    name = "archive"

    def __init__(
        self,
        settings: ArchiveSettings,
        published: Callable[[str], Sequence[bytes]],
        boot: str,
    ) -> None:
        limits = Limits(
            max_days=settings.max_days,
            max_bytes=int(settings.max_mb * _MIB),
            min_free_bytes=int(settings.min_free_mb * _MIB),
        )
        self._settings = settings
        self._published = published
        self._boot = boot
        self._root = Path(settings.path).absolute()
        self._ok_seen: dict[str, int] = {}
        self._queue: deque[ArchivedPart] = deque()
        self._queue_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._behind = self._failed = False
        self._thread = threading.Thread(target=self._loop, name="archive", daemon=True)
        self.writer = ArchiveWriter(self._root, limits)
        self.written = 0
        self.dropped = 0
        """Chosen parts that were given up, for whatever reason."""

    def open(self, raise_alarm: RaiseAlarm) -> None:
        """Raises ConfigError when the folder cannot be written."""
        self._raise_alarm = raise_alarm
        _check_writable(self._root)
        self._thread.start()

    def on_result(self, result: Result, seq: int) -> None:
        settings = self._settings
        number_ok = self._ok_seen.get(result.camera, 0) + (result.verdict is Verdict.OK)
        self._ok_seen[result.camera] = number_ok
        if not worth_keeping(result, number_ok, settings.keep, settings.borderline, settings.every):
            return
        part = ArchivedPart(
            camera=result.camera,
            seq=seq,
            boot=self._boot,
            captured_ns=result.captured_ns,
            event=self._published(result.camera)[1],
            pixels=result.pixels,
            anomaly_map=result.anomaly_map if settings.maps else None,
            map_to_image=result.map_to_image,
        )
        size = _memory_bytes(part)
        with self._changed:
            full = len(self._queue) >= settings.queue_parts
            if full or self._queue_bytes + size > settings.queue_mb * _MIB:
                self.dropped += 1
                self._say_behind(True)
                return
            self._queue.append(part)
            self._queue_bytes += size
            self._changed.notify()

    def on_state(self, state: wire.State, text: str) -> None:
        """Nothing to keep."""

    def on_alarm(self, alarm: Alarm) -> None:
        """Nothing to keep."""

    def on_heartbeat(self, health: wire.HealthFields) -> None:
        """Nothing to keep."""

    def close(self) -> None:
        """Hand what is left to the process, which writes it after the line has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is None:
            return
        self._thread.join(_CLOSE_WAIT_S)
        if self._thread.is_alive():
            log.error("the archive process does not answer; %d parts are lost", len(self._queue))
            self.writer.kill()
        log.info("archive: %d parts written, %d given up", self.written, self.dropped)

    # ---- the archive thread ----------------------------------------------------------------

    def _loop(self) -> None:
        try:
            # Before the first part is there: it need not wait for the process to start.
            self.writer.start()
        except WriterLost as error:
            self._say_failed(str(error))
        while (part := self._take()) is not None:
            self._write(part)
        with self._changed:
            left, self._queue = tuple(self._queue), deque()
        try:
            self.writer.finish(left)
            self.written += len(left)
        except WriterLost as error:
            self.dropped += len(left)
            log.error("%d parts are not archived: %s", len(left), error)

    def _take(self) -> ArchivedPart | None:
        """The oldest part; None when the line ends (what is left is then given away at once)."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if self._closing:
                return None
            part = self._queue.popleft()
            self._queue_bytes -= _memory_bytes(part)
            if self._behind and len(self._queue) <= self._settings.queue_parts // 2:
                self._say_behind(False)
            return part

    def _write(self, part: ArchivedPart) -> None:
        for _ in range(_ATTEMPTS):
            try:
                answer = self.writer.write(part)
            except WriterLost as error:
                self._say_failed(f"{error}; it is started again")
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, _RESTART_WAIT_S)
                continue
            if answer.error:
                self._say_failed(answer.error)
                break
            self.written += 1
            if self._failed:
                self._failed = False
                self._raise_alarm(Alarm("archive_failed", False, "images are archived again"))
            return
        self.dropped += 1

    def _say_failed(self, text: str) -> None:
        if not self._failed:
            log.error("archive: %s", text)
        self._failed = True
        self._raise_alarm(Alarm("archive_failed", True, text))

    def _say_behind(self, behind: bool) -> None:
        if behind != self._behind:
            self._behind = behind
            text = f"{self.dropped} parts were given up so far"
            self._raise_alarm(Alarm("archive_behind", behind, text))


def _memory_bytes(part: ArchivedPart) -> int:
    arrays = (part.pixels, part.anomaly_map)
    return len(part.event) + sum(array.nbytes for array in arrays if array is not None)


def _check_writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return
    except OSError as error:
        raise ConfigError(
            f"archive: {root} cannot be written: {error.strerror}",
            "name a folder that the line's user may write, in archive: path:",
        ) from error
