"""The check images inside a plan, with the maps that the reference network gave for them.

Eight or more pictures of good parts, and copies of some with a foreign patch, so that the
comparison also covers maps with a defect. They travel in `check.npz`; `verify` needs nothing else.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, PlanError
from .images import read_rgb
from .plan import Plan
from .preprocess import crop_and_resize, normalise
from .spec import InputSpec

MEMBER = "check.npz"
MIN_PICTURES = 8
MAX_PICTURES = 12
N_PATCHED = 4


@dataclass(frozen=True, slots=True, eq=False)
class CheckPictures:
    """What the network sees of each check image, before normalisation."""

    pixels: NDArray[np.uint8]
    """(n, H, W, 3) RGB, cropped and resized."""
    sources: tuple[str, ...]
    """File name of each, "pattern N", or "NAME, patched"."""

    def network_input(self, spec: InputSpec) -> NDArray[np.float32]:
        """float32 (n, 3, H, W)."""
        return np.stack([normalise(picture, spec) for picture in self.pixels])


@dataclass(frozen=True, slots=True, eq=False)
class CheckSet:
    """Check pictures with their reference."""

    pictures: CheckPictures
    maps: NDArray[np.float32]
    """(n, H, W) of the reference network."""
    scores: NDArray[np.float32]
    resize_sha256: str
    """Fingerprint of the resize where the plan was made (see `resize_fingerprint`)."""


def choose_pictures(paths: Sequence[Path], spec: InputSpec) -> CheckPictures:
    """Check pictures from image files, spread evenly over `paths`.

    Fewer than MIN_PICTURES files are filled up with rendered test patterns, and the sources say
    so; no files at all are refused with EngineError. Raises DataError for an unreadable file.
    """
    if not paths:
        raise EngineError(
            "the run names no images to check the plan with",
            "its split.csv is empty or its images have moved; train again",
        )
    count = min(len(paths), MAX_PICTURES)
    chosen = [paths[index * len(paths) // count] for index in range(count)]
    pictures = [crop_and_resize(read_rgb(path), spec) for path in chosen]
    sources = [path.name for path in chosen]
    for number in range(MIN_PICTURES - count):
        pictures.append(_pattern(spec.height, spec.width, seed=number))
        sources.append(f"pattern {number}")
    for index in range(N_PATCHED):
        pictures.append(_patched(pictures[index], index))
        sources.append(f"{sources[index]}, patched")
    return CheckPictures(np.stack(pictures), tuple(sources))


def check_set_bytes(
    pictures: CheckPictures, maps: NDArray[np.floating], scores: NDArray[np.floating]
) -> bytes:
    """The content of `check.npz`."""
    buffer = io.BytesIO()
    np.savez(
        buffer,
        pixels=pictures.pixels,
        sources=np.array(pictures.sources, dtype=np.str_),
        maps=maps.astype(np.float32),
        scores=scores.astype(np.float32),
        resize_sha256=np.array(resize_fingerprint(), dtype=np.str_),
    )
    return buffer.getvalue()


def read_check_set(plan: Plan) -> CheckSet:
    """The check set of `plan`. Raises PlanError when it is missing, malformed or too small."""
    spec = plan.manifest.input
    try:
        with np.load(io.BytesIO(plan.read(MEMBER)), allow_pickle=False) as stored:
            pixels, maps, scores = stored["pixels"], stored["maps"], stored["scores"]
            sources = tuple(str(source) for source in stored["sources"])
            fingerprint = str(stored["resize_sha256"])
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise PlanError(f"{plan.path}: {MEMBER} cannot be read: {error}") from error
    count, size = len(pixels), (spec.height, spec.width)
    shapes = (pixels.shape, maps.shape, scores.shape, len(sources))
    if shapes != ((count, *size, 3), (count, *size), (count,), count) or pixels.dtype != np.uint8:
        raise PlanError(f"{plan.path}: {MEMBER} does not fit the plan's input: {shapes}")
    if count < MIN_PICTURES:
        raise PlanError(f"{plan.path}: {MEMBER} holds {count} images, {MIN_PICTURES} are needed")
    return CheckSet(CheckPictures(pixels, sources), maps, scores, fingerprint)


def resize_fingerprint() -> str:
    """SHA-256 of four resized test pictures: equal wherever Pillow resizes as it should.

    Its bilinear filter works in integers, so another value means another preprocessing, and
    thresholds calibrated before do not hold.
    """
    digest = hashlib.sha256()
    for source, target in (
        ((900, 900), (256, 256)),
        ((480, 640), (256, 256)),
        ((1080, 1920), (288, 512)),
        ((97, 61), (128, 64)),
    ):
        spec = msgspec.structs.replace(InputSpec(), height=target[0], width=target[1])
        digest.update(crop_and_resize(_pattern(*source, seed=0), spec).tobytes())
    return digest.hexdigest()


def _pattern(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """A busy test picture in integer arithmetic, the same everywhere."""
    y = np.arange(height, dtype=np.int64)[:, None, None]
    x = np.arange(width, dtype=np.int64)[None, :, None]
    c = np.arange(3, dtype=np.int64)[None, None, :]
    coarse = (x // 24 + y // 16 + c + seed) % 3 * 70
    fine = (x * 13 + y * 7 + c * 29 + ((x * y) >> 5) * (seed + 1)) % 97
    picture: NDArray[np.uint8] = (coarse + fine).astype(np.uint8)
    return picture


def _patched(picture: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
    """A copy with an inverted patch of a quarter of each side, at another place per index."""
    height, width = picture.shape[:2]
    top = height // 8 + (index % 2) * height // 2
    left = width // 8 + (index // 2) * width // 2
    patched: NDArray[np.uint8] = picture.copy()
    region = patched[top : top + height // 4, left : left + width // 4]
    np.subtract(255, region, out=region)
    return patched
