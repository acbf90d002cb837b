"""A moving-belt video of rendered parts with its ground truth, for the line and its tests.

Parts ride on square carriers at a fixed pitch from right to left. Belt position is exactly
`speed_px` pixels a frame, so that the truth of every frame follows from integers.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .render_defects import DEFECTS
from .rendering import check_arguments, render_part

_HINT = "check that the folder is writable and has room"
CODECS = {".avi": "MJPG", ".mp4": "mp4v"}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class BeltTruth:
    """One part of the video. Frames are counted from 0, boxes are pixels of the centre frame.

    `first_frame` and `last_frame` are the first and the last one that show the whole carrier;
    in `centre_frame` its centre is nearest to the middle of the image. The defect's box is
    -1, -1, 0, 0 for a good part.
    """

    part: int
    seed: int
    defect: str
    first_frame: int
    centre_frame: int
    last_frame: int
    x: int
    y: int
    width: int
    height: int
    defect_x: int
    defect_y: int
    defect_width: int
    defect_height: int


def write_belt_video(
    path: Path,
    truth_csv: Path,
    parts: int = 24,
    fps: float = 30.0,
    size: int = 256,
    speed_px: int = 8,
    defect_rate: float = 0.25,
    seed: int = 0,
) -> list[BeltTruth]:
    """Write the video (.avi Motion JPEG or .mp4) and one CSV row for each part; return the rows.

    The image is 2.5 carriers wide and 1.25 high; the pitch of the parts is 1.5 carriers.

    Raises:
        ConfigError: a number out of its range or an unknown file suffix.
        DataError: the folder cannot be written or OpenCV here lacks the codec.
    """
    path, truth_csv = Path(path), Path(truth_csv)
    check_arguments(seed, "good", size)
    _check_belt(path, parts, fps, speed_px, size, defect_rate)
    defects = draw_defects(parts, defect_rate, seed)
    renderings = [render_part(seed * 1_000_000 + n, d, size) for n, d in enumerate(defects)]
    truth = [
        _truth(n, seed * 1_000_000 + n, defects[n], r.mask, size, speed_px)
        for n, r in enumerate(renderings)
    ]
    carriers = [rendering.pixels[..., ::-1] for rendering in renderings]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        truth_csv.parent.mkdir(parents=True, exist_ok=True)
        _write_video(path, _frames(carriers, size, speed_px, seed), fps, size)
        _write_truth(truth_csv, truth)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}", _HINT) from error
    return truth


def draw_defects(parts: int, defect_rate: float, seed: int) -> list[str]:
    """The defect of each part on the belt: "good", or with probability `defect_rate` another."""
    rng = np.random.default_rng([seed, 1])
    bad = rng.random(parts) < defect_rate
    kinds = rng.integers(len(DEFECTS), size=parts)
    return [DEFECTS[kind] if is_bad else "good" for is_bad, kind in zip(bad, kinds, strict=True)]


def _check_belt(
    path: Path, parts: int, fps: float, speed_px: int, size: int, defect_rate: float
) -> None:
    if path.suffix not in CODECS:
        raise ConfigError(f"cannot write a '{path.suffix}' video", "use .avi or .mp4")
    if parts < 1:
        raise ConfigError(f"a belt with {parts} parts has nothing to show", "use --parts 1 or more")
    if not 0 < fps <= 1000:
        raise ConfigError(f"{fps} frames per second are impossible", "use 0 to 1000")
    if not 1 <= speed_px <= size:
        raise ConfigError(
            f"a belt speed of {speed_px} pixels a frame would skip parts", f"use 1 to {size}"
        )
    if not 0 <= defect_rate <= 1:
        raise ConfigError(f"a defect rate of {defect_rate} is not a share", "use 0 to 1")


def _frame_shape(size: int) -> tuple[int, int]:
    """Height and width of the video, even numbers as codecs want them."""
    return 2 * round(size * 1.25 / 2), 2 * round(size * 2.5 / 2)


def _pitch(size: int) -> int:
    return round(1.5 * size)


def _left(part: int, frame: int, size: int, speed_px: int) -> int:
    """Image column of the carrier's left edge; part 0 enters at the right edge in frame 0."""
    return _frame_shape(size)[1] + part * _pitch(size) - frame * speed_px


def _frame_count(parts: int, size: int, speed_px: int) -> int:
    """Frames until the last carrier has left on the left side."""
    travel = _frame_shape(size)[1] + (parts - 1) * _pitch(size) + size
    return -(-travel // speed_px)


def _truth(
    part: int, seed: int, defect: str, mask: NDArray[np.bool_], size: int, speed_px: int
) -> BeltTruth:
    height, width = _frame_shape(size)
    start = _left(part, 0, size, speed_px)
    centre = round((start + size / 2 - width / 2) / speed_px)
    x, y = _left(part, centre, size, speed_px), (height - size) // 2
    box = (-1, -1, 0, 0)
    if mask.any():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (
            x + int(columns[0]),
            y + int(rows[0]),
            int(columns[-1] - columns[0] + 1),
            int(rows[-1] - rows[0] + 1),
        )
    return BeltTruth(
        part=part,
        seed=seed,
        defect=defect,
        first_frame=-((width - size - start) // speed_px),
        centre_frame=centre,
        last_frame=start // speed_px,
        x=x,
        y=y,
        width=size,
        height=size,
        defect_x=box[0],
        defect_y=box[1],
        defect_width=box[2],
        defect_height=box[3],
    )


def _frames(carriers: Sequence[Pixels], size: int, speed_px: int, seed: int) -> Iterator[Pixels]:
    """The BGR images of the video, one after the other; only visible carriers are touched."""
    height, width = _frame_shape(size)
    top = (height - size) // 2
    belt = _belt_texture(height, width, seed)
    for frame in range(_frame_count(len(carriers), size, speed_px)):
        image = np.roll(belt, -(frame * speed_px) % width, axis=1)
        for part, carrier in enumerate(carriers):
            left = _left(part, frame, size, speed_px)
            first, last = max(left, 0), min(left + size, width)
            if first < last:
                image[top : top + size, first:last] = carrier[:, first - left : last - left]
        yield image


def _belt_texture(height: int, width: int, seed: int) -> Pixels:
    """Dark ribbed rubber, uint8 (height, width, 3), that repeats after one image width."""
    grain = np.random.default_rng([seed, 0]).normal(0.0, 4.0, size=(height, width))
    ribs = 6.0 * np.sin(np.arange(width) * 2 * np.pi * round(width / 16) / width)
    grey = np.clip(46.0 + grain + ribs[None, :], 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _write_video(path: Path, frames: Iterator[Pixels], fps: float, size: int) -> None:
    height, width = _frame_shape(size)
    partial = path.with_name(f".{path.stem}.part{path.suffix}")
    codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix])
    writer = cv2.VideoWriter(str(partial), cv2.CAP_FFMPEG, codec, fps, (width, height))
    if not writer.isOpened():
        raise DataError(f"OpenCV cannot write {path} here", "try a file name ending in .avi")
    written = 0
    try:
        try:
            for frame in frames:
                writer.write(frame)
                written += 1
        finally:
            writer.release()
        # OpenCV says nothing of a write that failed, so the file is asked.
        if _frames_in(partial) != written:
            raise DataError(f"cannot write {path}: its end is missing", _HINT)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _frames_in(path: Path) -> int:
    """How many frames can be read; 0 when it is no video."""
    reader = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = 0
    while reader.grab():
        count += 1
    reader.release()
    return count


def _write_truth(path: Path, truth: Sequence[BeltTruth]) -> None:
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(BeltTruth)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in truth)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
