"""Good parts in, scores out, through exactly the path that a part on the line takes.

read_rgb -> to_network_input -> Engine.infer: a threshold chosen from any other path (the training
graph, another resize) would be a threshold for another machine.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..engine.backends.base import Engine
from ..engine.images import IMAGE_SUFFIXES, read_rgb
from ..engine.preprocess import to_network_input
from ..errors import CalibrationError, ConfigError, DataError

log = logging.getLogger(__name__)

LINE_EVERY_S = 5.0
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Split:
    """The images of a run by role, with the content hashes recorded when it was trained."""

    calibration: dict[Path, str]
    """Path -> lower-case hex SHA-256 of the file."""
    fit_hashes: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What the engine says about one image file."""

    path: Path
    image_size: tuple[int, int]
    """(height, width) of the file."""
    anomaly_map: NDArray[np.float32]
    """(H, W) of the network's input."""
    score: float


def infer_images(paths: Sequence[Path], engine: Engine) -> Iterator[Scored]:
    """Map and score of image files, in order. Raises DataError naming an unusable file."""
    manifest = engine.manifest
    starts = range(0, len(paths), manifest.batch)
    for batch in _progress([paths[at : at + manifest.batch] for at in starts], "scoring"):
        inputs, sizes = [], []
        for path in batch:
            pixels = read_rgb(path)
            try:
                inputs.append(to_network_input(pixels, manifest.input))
            except ConfigError as error:
                raise DataError(f"{path}: {error.sentence}", error.hint) from error
            sizes.append((pixels.shape[0], pixels.shape[1]))
        maps, scores = engine.infer(np.stack(inputs))
        for path, size, anomaly_map, score in zip(batch, sizes, maps, scores, strict=True):
            yield Scored(path, size, anomaly_map, float(score))


def score_images(paths: Sequence[Path], engine: Engine) -> NDArray[np.float64]:
    """Scores (n,) of image files, in order, as `infer_images`."""
    return np.array([scored.score for scored in infer_images(paths, engine)], dtype=np.float64)


def images_in(folder: Path) -> list[Path]:
    """Every image file below `folder`, sorted. Raises DataError when there is none."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "check the path")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not found:
        raise DataError(
            f"{folder} contains no images", f"files ending in {' '.join(IMAGE_SUFFIXES)} count"
        )
    return found


def read_split(run: Path) -> Split:
    """The roles of a run's images, from its split.csv (columns path, sha256, role).

    Read without the trainer, so that a line computer can recalibrate. Relative paths are taken
    from the run folder. Raises DataError when the file is missing or malformed.
    """
    source = run / "split.csv"
    try:
        with source.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{source} cannot be read: {error}", "give the folder that `skrd4ad train` wrote"
        ) from error
    calibration: dict[Path, str] = {}
    fit_hashes: set[str] = set()
    for number, row in enumerate(rows, start=2):
        path, sha256, role = row.get("path"), row.get("sha256"), row.get("role")
        if not path or not sha256 or role not in ("fit", "calibration"):
            raise DataError(f"{source} line {number} is not a path, a sha256 and a role")
        if role == "fit":
            fit_hashes.add(bare_hex(sha256))
        else:
            calibration[run / path] = bare_hex(sha256)
    if not calibration:
        raise DataError(f"{source} names no images with the role calibration")
    return Split(calibration=calibration, fit_hashes=frozenset(fit_hashes))


def check_held_out(paths: Sequence[Path], split: Split) -> None:
    """Refuse images that the network was fitted on, by content, and replaced calibration images.

    Fitted images score lower than new ones, so a threshold from them rejects good parts. Raises
    CalibrationError for those and DataError for files missing or changed since training.
    """
    for path in paths:
        sha256 = file_sha256(path)
        expected = split.calibration.get(path)
        if expected is not None and sha256 != expected:
            raise DataError(
                f"{path} has changed since the run was trained",
                "restore the image, or calibrate on other held-out images with --images",
            )
        if sha256 in split.fit_hashes:
            raise CalibrationError(
                f"{path} was used to fit the network, so its score says nothing about new parts",
                "calibrate on images that training did not see",
            )


def file_sha256(path: Path) -> str:
    """Lower-case hex SHA-256 of a file. Raises DataError when it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
            return digest.hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def bare_hex(digest: str) -> str:
    return digest.strip().lower().removeprefix("sha256:")


def _progress(items: Sequence[Item], label: str) -> Iterator[Item]:
    """A counter rewritten in place on a terminal, a log line every few seconds elsewhere."""
    live = sys.stderr.isatty()
    said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if live:
            end = "\n" if done == len(items) else ""
            print(f"\r{label} {done}/{len(items)}", end=end, file=sys.stderr, flush=True)
        elif time.monotonic() - said >= LINE_EVERY_S:
            said = time.monotonic()
            log.info("%s %d/%d", label, done, len(items))
