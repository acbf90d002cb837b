"""Flat field and white balance: every pixel answers the same to the same light.

From pictures of an evenly lit, evenly coloured card, a gain for each pixel and channel is computed
that makes the card uniform and neutral. It is smoothed, because dust on the card is not in the
lens, and applied in 8.8 fixed point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.spec import Record
from ..errors import CalibrationError, ConfigError
from .array_file import load_array, store_array

DARKEST, BRIGHTEST = 20.0, 250.0
"""Grey levels outside which a card picture is under- or overexposed and cannot be divided by."""

LARGEST_GAIN = 8.0
SMOOTHING = 0.02
"""Standard deviation of the smoothing as a fraction of the longer image side."""


class FlatFieldFacts(Record, frozen=True, kw_only=True):
    """What goes with the gains: on which camera and how even the card was before and after."""

    schema: str = "skrd4ad-flatfield/1"
    camera: str = ""
    created: str = ""
    n_images: int
    white_balance: tuple[float, float, float]
    """Mean gain of red, green and blue relative to green."""
    unevenness_before: float
    """(95th - 5th percentile)/median of the smoothed green channel."""
    unevenness_after: float


@dataclass(frozen=True, slots=True, eq=False)
class FlatField:
    """Gains (h, w, 3) as uint16 in 1/256, and their facts."""

    gains: NDArray[np.uint16]
    facts: FlatFieldFacts


def estimate_flat_field(
    cards: Sequence[NDArray[np.uint8]],
    *,
    dark: NDArray[np.uint8] | None = None,
    camera: str = "",
    created: str = "",
) -> FlatField:
    """Gains from one or more pictures (h, w, 3) of the card; more pictures average the noise.

    `dark` is a picture with the lens covered, subtracted first. Raises CalibrationError for
    differing sizes, an under- or overexposed card, or gains beyond LARGEST_GAIN.
    """
    if not cards:
        raise CalibrationError("there are no pictures of the card")
    shape = cards[0].shape
    if any(card.shape != shape for card in cards) or (dark is not None and dark.shape != shape):
        raise CalibrationError("the pictures of the card differ in size")
    mean = np.mean(np.stack([card.astype(np.float32) for card in cards]), axis=0)
    if float(np.percentile(mean.max(axis=2), 99.9)) > BRIGHTEST:
        raise CalibrationError(
            "the card is overexposed: part of it reads above grey level 250",
            "shorten the exposure until the brightest part reads about 200",
        )
    if dark is not None:
        mean = mean - dark.astype(np.float32)
    smooth = _smooth(mean)
    if float(smooth.min()) < DARKEST:
        raise CalibrationError(
            f"the card is underexposed: its darkest part reads {smooth.min():.0f} of 255",
            "lengthen the exposure until the brightest part reads about 200",
        )
    # The middle of the picture keeps its green level, so that exposure stays what it was.
    height, width = shape[:2]
    centre = smooth[height // 4 : -(height // 4), width // 4 : -(width // 4)]
    target = float(np.median(centre[:, :, 1]))
    gain = target / smooth
    if float(gain.max()) > LARGEST_GAIN:
        raise CalibrationError(
            f"the darkest part of the card would need a gain of {gain.max():.1f}",
            f"light it more evenly; gains up to {LARGEST_GAIN:.0f} are usable",
        )
    gains = np.round(gain * 256).astype(np.uint16)
    balance = gain.reshape(-1, 3).mean(axis=0)
    corrected = _smooth(mean * (gains / np.float32(256)))
    return FlatField(
        gains=gains,
        facts=FlatFieldFacts(
            camera=camera,
            created=created,
            n_images=len(cards),
            white_balance=tuple(float(value / balance[1]) for value in balance),  # type: ignore[arg-type]
            unevenness_before=unevenness(smooth),
            unevenness_after=unevenness(corrected),
        ),
    )


def apply_flat_field(
    pixels: NDArray[np.uint8], gains: NDArray[np.uint16], out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """round(pixels * gains / 256), saturated at 255; uint8 (h, w, 3). `out` may be `pixels`."""
    if pixels.shape != gains.shape:
        raise ConfigError(
            f"the flat field is for {gains.shape[1]} x {gains.shape[0]} pixels, but the camera "
            f"gives {pixels.shape[1]} x {pixels.shape[0]}",
            "take the flat field again at this resolution",
        )
    product = np.multiply(pixels, gains, dtype=np.uint32)
    product += 128
    product >>= 8
    np.minimum(product, 255, out=product)
    if out is None:
        return product.astype(np.uint8)
    out[...] = product
    return out


def unevenness(picture: NDArray[np.float32]) -> float:
    """(95th - 5th percentile)/median of the green channel of a smooth (h, w, 3) picture."""
    low, middle, high = np.percentile(picture[:, :, 1], (5, 50, 95))
    return float((high - low) / middle)


def store_flat_field(path: Path, field: FlatField) -> None:
    """Write `path` (.npz: gains and facts), atomically."""
    store_array(path, "gains", field.gains, field.facts)


def load_flat_field(path: Path) -> FlatField:
    """Read a flat field. Raises CalibrationError naming the file when it is damaged or foreign."""
    gains, facts = load_array(
        path, "gains", FlatFieldFacts, "a flat field", "skrd4ad calibrate flatfield makes one"
    )
    if gains.dtype != np.uint16 or gains.ndim != 3 or gains.shape[2] != 3:
        raise CalibrationError(f"{path} is not a flat field: its gains are {gains.dtype}")
    return FlatField(gains=gains, facts=facts)


def _smooth(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    # reflect_101 continues a slope to first order less badly than a constant border would.
    sigma = SMOOTHING * max(picture.shape[:2])
    floats = picture.astype(np.float32)
    blurred = cv2.GaussianBlur(floats, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32)
