"""How a picture looks, in three numbers that drift is told by; cheap enough for a running line.

Large pictures are thinned out first, so that the cost is bounded whatever the camera. The numbers
of the calibration's pictures are stored in the plan, made by this same function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.spec import ImageBaseline
from ..errors import CalibrationError

LONGEST_SIDE = 512
SATURATED_FROM = 250
"""A channel at or above this grey level has lost its detail."""


@dataclass(frozen=True, slots=True)
class Look:
    """Brightness (mean grey, 0 to 255), share of saturated pixels (0 to 1), and sharpness."""

    brightness: float
    saturated: float
    sharpness: float


def look_at(pixels: NDArray[np.uint8]) -> Look:
    """The look of an RGB picture (h, w, 3), of every n-th pixel when it is larger than 512."""
    step = -(-max(pixels.shape[:2]) // LONGEST_SIDE)
    thin = np.ascontiguousarray(pixels[::step, ::step])
    brightest = cv2.max(cv2.max(thin[..., 0], thin[..., 1]), thin[..., 2])
    grey = np.asarray(cv2.cvtColor(thin, cv2.COLOR_RGB2GRAY), np.uint8)
    return Look(
        brightness=float(grey.mean()),
        saturated=float(np.count_nonzero(brightest >= SATURATED_FROM)) / brightest.size,
        sharpness=gradient_sharpness(grey),
    )


def gradient_sharpness(grey: NDArray[np.uint8]) -> float:
    """Mean squared Sobel gradient over the grey variance: falls with blur, ignores contrast.

    Zero for a uniform picture. (The Tenengrad focus measure, Krotkov 1987, made scale-free.)
    """
    variance = float(grey.var(dtype=np.float32))
    if variance < 1e-6:
        return 0.0
    values = grey.astype(np.float32)
    gradient_x = cv2.Sobel(values, cv2.CV_32F, 1, 0, ksize=3)
    gradient_y = cv2.Sobel(values, cv2.CV_32F, 0, 1, ksize=3)
    return float((gradient_x**2 + gradient_y**2).mean()) / variance


def baseline_of(looks: Sequence[Look]) -> ImageBaseline:
    """Medians of the looks of the calibration's pictures. Raises CalibrationError for none."""
    if not looks:
        raise CalibrationError("there are no images to take a baseline from")
    return ImageBaseline(
        brightness=float(np.median([look.brightness for look in looks])),
        saturated=float(np.median([look.saturated for look in looks])),
        sharpness=float(np.median([look.sharpness for look in looks])),
        n_images=len(looks),
    )
