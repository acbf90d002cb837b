"""The archive on disk: where a part's files are, writing them, finding them, forgetting them.

    <root>/<date of capture, UTC>/<camera>/<seq>.json      the event, byte for byte as published
                                          <seq>.png       the captured image, lossless
                                          <seq>.map.npz   the anomaly map, float32

The sidecar (.json) is written last and removed first: where there is one, its part is complete. A
box without a journal counts from 1 again in each process; a number that is taken by another process
gets the process' `boot` behind it: <seq>.<boot>.json.
"""

from __future__ import annotations

import datetime
import io
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..built_types import built
from ..engine.atomic import write_atomically
from ..errors import DataError
from .records import Result, Verdict
from .topics import is_name

_PNG_LEVEL = 1
"""Images from cameras are noise in their last bits: level 6 takes three times as long for 3 %."""
_SUFFIXES = (".json", ".png", ".map.npz")
_UNFINISHED = ".tmp"
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class ArchivedPart(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of one part are made from."""

    camera: str
    seq: int
    boot: str
    captured_ns: int
    event: bytes
    """The header of its `res`, as published."""
    pixels: NDArray[np.uint8] | None = None
    """(height, width, 3) RGB."""
    anomaly_map: NDArray[np.float32] | None = None
    map_to_image: tuple[float, float, float, float, float, float] | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept; the oldest parts go first, whichever limit is met."""

    max_days: float
    max_bytes: int
    min_free_bytes: int


class _Names(msgspec.Struct):
    boot: str


def worth_keeping(
    result: Result, number_ok: int, kinds: tuple[str, ...], borderline: float, every: int
) -> bool:
    """Whether the archive wants this part.

    `kinds` are verdicts that are always kept. Of the good parts those are kept whose score lies
    within `borderline` (a share of the threshold) below the threshold, and each `every`-th
    (`number_ok` counts them from 1; 0 keeps none).
    """
    if result.verdict.value in kinds:
        return True
    if result.verdict is not Verdict.OK:
        return False
    near = borderline > 0 and result.score >= result.threshold * (1.0 - borderline)
    return near or (every > 0 and number_ok % every == 0)


def write_part(root: Path, part: ArchivedPart) -> int:
    """Write the files of one part; returns their size in bytes. Writing it again changes nothing.

    Raises ConfigError when the disk refuses; what was written of the part is removed then.
    """
    stem = _stem_for(root, part)
    files: list[tuple[str, bytes]] = []
    if part.pixels is not None:
        files.append((".png", _png(part.pixels)))
    if part.anomaly_map is not None:
        files.append((".map.npz", _npz(part.anomaly_map, part.map_to_image)))
    files.append((".json", part.event))
    try:
        for suffix, content in files:
            write_atomically(_with(stem, suffix), content)
    except BaseException:
        remove_part(stem)
        raise
    return sum(len(content) for _, content in files)


def find(root: Path, seq: int, boot: str | None = None) -> Path | None:
    """The sidecar of event `seq`, of process `boot` when that is given; else the newest."""
    for day in sorted(_days(root), reverse=True):
        for camera in _folders(day):
            for path in sorted(camera.glob(f"{seq:08d}.*json"), key=_age_key, reverse=True):
                if boot is None or _boot_of(path) == boot:
                    return path
    return None


def image_of(sidecar: Path) -> Path:
    """The image beside a sidecar; it need not exist (a part that could not be captured)."""
    return _with(sidecar.with_suffix(""), ".png")


def map_of(sidecar: Path) -> Path:
    """The map beside a sidecar; it need not exist."""
    return _with(sidecar.with_suffix(""), ".map.npz")


def load_map(path: Path) -> tuple[NDArray[np.float32], tuple[float, ...] | None]:
    """(float32 map (h, w), map_to_image or None) of a .map.npz. Raises DataError."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            values = np.asarray(stored["map"], np.float32)
            transform = tuple(float(value) for value in stored["map_to_image"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not an archived map: {error}") from error
    return values, transform or None


def remove_part(stem: Path) -> int:
    """Remove the files of one part, sidecar first; returns how many bytes they had."""
    removed = 0
    unfinished = stem.name.endswith(_UNFINISHED)
    for path in [stem] if unfinished else [_with(stem, suffix) for suffix in _SUFFIXES]:
        if not path.is_file():
            continue
        size = path.stat().st_size
        path.unlink(missing_ok=True)
        removed += size
    return removed


class _Stored(NamedTuple):
    modified_ns: int
    stem: Path


class Retention:
    """Keeps an archive within its limits; what is not the archive's own stays where it is.

    It remembers sizes by day and the names of one day, so that memory stays small.
    """

    def __init__(
        self,
        root: Path,
        limits: Limits,
        wall_ns: Callable[[], int] = time.time_ns,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._root = root
        self._limits = limits
        self._wall_ns = wall_ns
        self._free_bytes = free_bytes or (lambda: shutil.disk_usage(root).free)
        self._day_bytes = {
            day.name: sum(path.stat().st_size for path in _files(day)) for day in _days(root)
        }
        self._oldest: tuple[str, deque[_Stored]] | None = None
        self.removed_parts = 0

    @property
    def total_bytes(self) -> int:
        """Of all files, as known."""
        return sum(self._day_bytes.values())

    def note(self, captured_ns: int, size_bytes: int) -> None:
        """A part of this day was written."""
        day = day_of(captured_ns)
        self._day_bytes[day] = self._day_bytes.get(day, 0) + size_bytes

    def apply(self, at_most: int = 100) -> int:
        """Remove the oldest parts until all limits are met, `at_most` in one call; how many."""
        removed = 0
        while removed < at_most and self._must_shrink():
            removed += self._remove_oldest()
        self.removed_parts += removed
        return removed

    def disk_full(self) -> bool:
        """Whether the disk lacks room although nothing of the archive is left to remove."""
        return not self._day_bytes and self._free_bytes() < self._limits.min_free_bytes

    def _must_shrink(self) -> bool:
        if not self._day_bytes:
            return False
        limits = self._limits
        if min(self._day_bytes) < day_of(self._wall_ns() - int(limits.max_days * 86_400e9)):
            return True
        return self.total_bytes > limits.max_bytes or self._free_bytes() < limits.min_free_bytes

    def _remove_oldest(self) -> int:
        """Remove one part, or the day that has none left; how many parts that were."""
        day = min(self._day_bytes)
        if self._oldest is None or self._oldest[0] != day or not self._oldest[1]:
            self._oldest = (day, deque(sorted(_stems(self._root / day))))
        if not self._oldest[1]:
            del self._day_bytes[day]
            _remove_empty(self._root / day)
            return 0
        size = remove_part(self._oldest[1].popleft().stem)
        self._day_bytes[day] = max(self._day_bytes[day] - size, 0)
        return 1


def day_of(captured_ns: int) -> str:
    """The UTC date of an instant, as the archive's folders are called."""
    instant = datetime.datetime.fromtimestamp(captured_ns // 1_000_000_000, datetime.timezone.utc)
    return instant.strftime("%Y-%m-%d")


def _stem_for(root: Path, part: ArchivedPart) -> Path:
    assert is_name(part.camera), "the publisher refuses such a name"
    stem = root / day_of(part.captured_ns) / part.camera / f"{part.seq:08d}"
    taken = _with(stem, ".json")
    if taken.exists() and _boot_of(taken) != part.boot:
        return stem.with_name(f"{stem.name}.{part.boot}")
    return stem


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.save(buffer, "PNG", compress_level=_PNG_LEVEL)
    return buffer.getvalue()


def _npz(values: NDArray[np.float32], transform: tuple[float, ...] | None) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, map=values, map_to_image=np.array(transform or (), np.float64))
    return buffer.getvalue()


def _with(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _boot_of(sidecar: Path) -> str | None:
    try:
        return msgspec.json.decode(sidecar.read_bytes(), type=built(_Names)).boot
    except (OSError, msgspec.DecodeError):
        return None


def _age_key(path: Path) -> int:
    return path.stat().st_mtime_ns


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def _days(root: Path) -> list[Path]:
    return [path for path in _folders(root) if _DAY.fullmatch(path.name)]


def _files(day: Path) -> Iterator[Path]:
    ours = (*_SUFFIXES, _UNFINISHED)
    return (
        path for camera in _folders(day) for path in camera.iterdir() if path.name.endswith(ours)
    )


def _stems(day: Path) -> set[_Stored]:
    """One entry per part, by its newest file; what a crash left unfinished counts as one too."""
    newest: dict[Path, int] = {}
    for path in _files(day):
        suffix = next((end for end in _SUFFIXES if path.name.endswith(end)), "")
        stem = path.with_name(path.name.removesuffix(suffix))
        newest[stem] = max(newest.get(stem, 0), path.stat().st_mtime_ns)
    return {_Stored(modified_ns, stem) for stem, modified_ns in newest.items()}


def _remove_empty(day: Path) -> None:
    for folder in (*_folders(day), day):
        try:
            folder.rmdir()
        except OSError:
            # Not empty: something else lies there, which is not ours to remove.
            return
