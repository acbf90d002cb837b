"""`watch:` - a folder into which a camera or another program writes pictures, one file a part.

A file becomes a part once it is complete: its writer has closed it or renamed it into place, or
(on a network share, where the kernel does not hear of that) it has rested for a while and can be
read to its end. Each file version, told by name and time of writing, becomes a part exactly once.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

from ...engine.images import IMAGE_SUFFIXES
from ...errors import CameraError
from ..clock import SYSTEM_CLOCK, Clock
from .base import Shot
from .inotify import FolderEvents
from .still_folder import read_shot
from .watch_seen import read_seen, seen_path

log = logging.getLogger(__name__)
SETTLE_MS = 500.0
_SCAN_EVERY_NS = 500_000_000
_OLD_NS = 2_000_000_000
_GIVE_UP_NS = 10_000_000_000
"""A file that cannot be read to its end, and has not grown for so long, is damaged."""


@dataclass(slots=True)
class _Candidate:
    """A file that was seen and has not become a part."""

    size: int
    written_ns: int
    since_mono_ns: int
    """When it was last seen to have changed."""


class WatchFolderSource:
    """`settle_ms`: how long a file must rest where nobody tells when it is complete. `existing`:
    whether files that are there already, and have no result yet, become parts. `seen`: the list of
    files with results (default: .skrd4ad-seen in the folder)."""

    live = True

    def __init__(
        self,
        folder: Path,
        clock: Clock = SYSTEM_CLOCK,
        settle_ms: float = SETTLE_MS,
        existing: bool = True,
        seen: str | None = None,
    ) -> None:
        self._folder, self._clock = folder, clock
        self._settle_ns = round(settle_ms * 1e6)
        self._existing = existing
        self._seen_path = seen_path(folder, seen)
        self._done: dict[str, int] = {}
        """Name to time of writing, of every version that became a part."""
        self._candidates: dict[str, _Candidate] = {}
        self._open_files: set[str] = set()
        self._complete: deque[str] = deque()
        self._events: FolderEvents | None = None
        self._scanned_ns: int | None = None
        self._first_scan = True
        self._number = 0

    def open(self) -> None:
        if not self._folder.is_dir():
            raise CameraError(f"the folder {self._folder} does not exist", "create it first")
        try:
            self._events = FolderEvents(self._folder)
        except OSError as error:
            log.warning("%s is looked at only every half second: %s", self._folder, error)

    def configure(self) -> None:
        self._done = {**read_seen(self._seen_path), **self._done}
        self._candidates.clear()
        self._open_files.clear()
        self._complete.clear()
        self._scanned_ns = None

    def grab(self, timeout_s: float) -> Shot | None:
        if not self._complete:
            self._listen(timeout_s)
        while self._complete:
            shot = self._part(self._complete.popleft())
            if shot is not None:
                return shot
        return None

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    def _listen(self, timeout_s: float) -> None:
        now_ns = self._clock.mono_ns()
        if self._scanned_ns is None or now_ns - self._scanned_ns >= _SCAN_EVERY_NS:
            self._scanned_ns = now_ns
            self._scan(now_ns)
        if self._complete:
            return
        if self._events is None:
            time.sleep(timeout_s)
            return
        events = self._events.wait(timeout_s)
        if events.gone:
            raise CameraError(f"the folder {self._folder} is gone", "was it removed or unmounted?")
        self._open_files |= events.being_written
        self._open_files -= set(events.complete)
        self._complete.extend(name for name in events.complete if _is_image(name))

    def _scan(self, now_ns: int) -> None:
        """Files that nobody told us of; those that have rested are complete."""
        try:
            with os.scandir(self._folder) as entries:
                found = {one.name: one.stat() for one in entries if _is_image(one.name)}
        except FileNotFoundError as error:
            if self._folder.is_dir():
                return  # a file went away between two looks; the next scan sees what is left
            raise CameraError(f"the folder {self._folder} is gone", "") from error
        except OSError as error:
            raise CameraError(f"{self._folder} cannot be read: {error.strerror}", "") from error
        if self._first_scan and not self._existing:
            self._done.update((name, stat.st_mtime_ns) for name, stat in found.items())
        first, self._first_scan = self._first_scan, False
        self._candidates = {n: one for n, one in self._candidates.items() if n in found}
        rested: list[tuple[int, str]] = []
        for name, stat in found.items():
            if self._done.get(name) == stat.st_mtime_ns or name in self._open_files:
                self._candidates.pop(name, None)
                continue
            known = self._candidates.get(name)
            if known is None or (known.size, known.written_ns) != (stat.st_size, stat.st_mtime_ns):
                # What lay here before the start has rested already, and comes before what arrives.
                age_ns = self._clock.wall_ns() - stat.st_mtime_ns
                long_ago = first and age_ns > max(self._settle_ns, _OLD_NS)
                since_ns = now_ns - self._settle_ns if long_ago else now_ns
                known = _Candidate(stat.st_size, stat.st_mtime_ns, since_ns)
                self._candidates[name] = known
            if now_ns - known.since_mono_ns >= self._settle_ns:
                rested.append((stat.st_mtime_ns, name))
        self._complete.extend(name for _, name in sorted(rested))

    def _part(self, name: str) -> Shot | None:
        """The file as a part; None when it was one already, is gone, or is not whole yet."""
        path = self._folder / name
        try:
            written_ns = path.stat().st_mtime_ns
        except OSError:
            self._candidates.pop(name, None)
            return None  # renamed away, or removed before anybody was told that it is complete
        if self._done.get(name) == written_ns:
            return None
        shot = read_shot(path, name, self._number + 1, self._clock)
        waiting = self._candidates.get(name)
        if shot.failure is not None and waiting is not None:
            # It only seemed complete because it rested; its writer may go on.
            rested_ns = self._clock.mono_ns() - waiting.since_mono_ns
            if rested_ns < _GIVE_UP_NS:
                return None
        self._number += 1
        self._candidates.pop(name, None)
        self._done[name] = written_ns
        return replace(shot, captured_ns=written_ns)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)
