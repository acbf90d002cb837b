"""`dir:` - every image of a folder, sorted and recursive, each exactly once.

A file that cannot be read is a part all the same: it becomes a shot without pixels, whose verdict
is `err`. A count of results can then be compared with a count of files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...engine.images import IMAGE_SUFFIXES, read_rgb
from ...errors import CameraError, DataError
from ..clock import SYSTEM_CLOCK, Clock
from ..records import Part
from .base import EndOfStream, Shot
from .pace import Pace


def find_images(root: Path) -> list[Path]:
    """All image files below `root` (or `root` itself), sorted by path.

    Raises CameraError when the path does not exist or holds no image.
    """
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise CameraError(f"{root} does not exist", "check the path")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and (path.is_file() or path.is_symlink())
    )
    if not found:
        raise CameraError(
            f"the folder {root} holds no images", "suffixes that count: " + " ".join(IMAGE_SUFFIXES)
        )
    return found


def read_shot(path: Path, name: str, number: int, clock: Clock = SYSTEM_CLOCK) -> Shot:
    """One file as a shot; its capture time is the moment we began to read it."""
    captured_ns, captured_mono_ns = clock.wall_ns(), clock.mono_ns()
    pixels, failure, detail = None, None, ""
    try:
        pixels = read_rgb(path)
    except DataError as error:
        failure, detail = "unreadable", error.sentence
    return Shot(
        pixels=pixels,
        captured_ns=captured_ns,
        captured_mono_ns=captured_mono_ns,
        captured_source="file",
        frame_id=number,
        part=Part(part_id=name, trigger_seq=number, source="file", match="exact"),
        name=name,
        failure=failure,
        detail=detail,
    )


class StillFolderSource:
    """`root` is listed once, at open; `pace_hz` delivers that many parts a second."""

    live = False

    def __init__(
        self, root: Path, clock: Clock = SYSTEM_CLOCK, pace_hz: float | None = None
    ) -> None:
        self._root = root
        self._clock = clock
        self._pace = Pace(pace_hz, clock)
        self._paths: Sequence[Path] = ()
        self._remaining: Iterator[tuple[int, Path]] = iter(())

    def open(self) -> None:
        self._paths = find_images(self._root)
        self._remaining = enumerate(self._paths, start=1)

    def configure(self) -> None:
        self._pace.restart()

    def grab(self, timeout_s: float) -> Shot | None:
        wait_s = self._pace.wait_s()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return None
        number, path = next(self._remaining, (0, None))
        if path is None:
            raise EndOfStream
        self._pace.advance()
        base = self._root if self._root.is_dir() else self._root.parent
        return read_shot(path, path.relative_to(base).as_posix(), number, self._clock)

    def close(self) -> None:
        self._remaining = iter(())
