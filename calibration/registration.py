"""Part registration: the part lies where the network saw it in training, to a fraction of a pixel.

A template of the part (or of a fiducial on it) is found in the picture: coarsely by normalised
correlation over rotations, then to sub-pixel accuracy by maximising the enhanced correlation
coefficient (Evangelidis and Psarakis 2008), which ignores brightness and contrast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError

COARSE_SIDE_PX = 160
"""The coarse search runs on pictures shrunk to about this size."""

_MOTION = cv2.MOTION_EUCLIDEAN
_ITERATIONS, _PRECISION = 200, 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """How the template lies in the picture."""

    template_to_image: NDArray[np.float64]
    """2 x 3 rotation and shift between pixel centres: x_image = A x_template + t."""
    correlation: float
    """Of the template and the picture beneath it, -1 to 1."""

    @property
    def angle_deg(self) -> float:
        return math.degrees(math.atan2(self.template_to_image[1, 0], self.template_to_image[0, 0]))

    @property
    def shift_px(self) -> tuple[float, float]:
        return float(self.template_to_image[0, 2]), float(self.template_to_image[1, 2])


def register(
    pixels: NDArray[np.uint8],
    template: NDArray[np.uint8],
    *,
    largest_angle_deg: float = 10.0,
    smallest_correlation: float = 0.6,
) -> Registration:
    """Find `template` (h, w, 3) in `pixels` (at least as large), turned by at most the angle given.

    Raises CalibrationError when it is not there (correlation below the limit): the part is missing
    or wrong, and the caller must not inspect some other place instead.
    """
    image, part = _grey(pixels), _grey(template)
    if part.shape[0] > image.shape[0] or part.shape[1] > image.shape[1]:
        raise CalibrationError("the template is larger than the picture")
    if float(part.std()) < 1.0:
        raise CalibrationError("the template is uniform, so nothing can be registered to it")
    start = _coarse(image, part, largest_angle_deg)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _ITERATIONS, _PRECISION)
    try:
        # Blurring over 5 pixels widens the basin to more than the coarse step.
        align: Any = cv2.findTransformECC
        correlation, warp = align(part, image, start.astype(np.float32), _MOTION, criteria, None, 5)
    except cv2.error as error:
        raise CalibrationError("the part was not found: its picture does not converge") from error
    found = Registration(np.asarray(warp, np.float64), float(correlation))
    if not math.isfinite(correlation) or correlation < smallest_correlation:
        raise CalibrationError(
            f"the part was not found: its best correlation is {correlation:.2f}, "
            f"at least {smallest_correlation:.2f} is needed"
        )
    if abs(found.angle_deg) > largest_angle_deg + 1.0:
        raise CalibrationError(
            f"the part is turned by {found.angle_deg:.1f} degrees, more than {largest_angle_deg:g}"
        )
    return found


def straighten(
    pixels: NDArray[np.uint8], found: Registration, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The picture as if the part lay like the template: uint8 (height, width, 3) of `size`."""
    moved: Any = cv2.warpAffine(
        pixels,
        found.template_to_image,
        (size[1], size[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(moved, np.uint8)


def _coarse(
    image: NDArray[np.float32], part: NDArray[np.float32], largest_angle_deg: float
) -> NDArray[np.float64]:
    """2 x 3 start for the fine search: the best of the turned templates on shrunken pictures."""
    shrink = max(1.0, max(image.shape) / COARSE_SIDE_PX)
    small = _resize(image, shrink)
    # Half a picture pixel at the template's rim per step keeps every angle within the basin.
    step = max(1.0, math.degrees(2.0 * shrink / max(part.shape)))
    count = math.ceil(largest_angle_deg / step)
    best, start = -math.inf, np.eye(2, 3)
    for angle in np.linspace(-largest_angle_deg, largest_angle_deg, 2 * count + 1):
        turned, inside, to_turned = _turn(part, float(angle), shrink)
        if turned.shape[0] > small.shape[0] or turned.shape[1] > small.shape[1]:
            continue
        match: Any = cv2.matchTemplate(small, turned, cv2.TM_CCOEFF_NORMED, mask=inside)
        scores = np.where(np.isfinite(match), match, -1.0)
        y, x = divmod(int(scores.argmax()), scores.shape[1])
        if float(scores[y, x]) > best:
            best = float(scores[y, x])
            # Pixel centres: shrunken (u + 1/2) * shrink = full (x + 1/2).
            offset = np.array([x, y], np.float64) * shrink
            start = to_turned.copy()
            start[:, 2] += offset
    return start


def _turn(
    part: NDArray[np.float32], angle_deg: float, shrink: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Template turned about its centre and shrunken, its mask, and template -> turned (full)."""
    height, width = part.shape
    turn = np.radians(angle_deg)
    cos, sin = math.cos(turn), math.sin(turn)
    full_w = math.ceil(abs(width * cos) + abs(height * sin))
    full_h = math.ceil(abs(width * sin) + abs(height * cos))
    rotation = np.array([[cos, -sin], [sin, cos]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    target = np.array([(full_w - 1) / 2, (full_h - 1) / 2])
    to_turned = np.column_stack([rotation, target - rotation @ centre])
    turned: Any = cv2.warpAffine(part, to_turned, (full_w, full_h))
    inside: Any = cv2.warpAffine(np.ones_like(part), to_turned, (full_w, full_h))
    mask = (_resize(inside, shrink) > 0.99).astype(np.float32)
    return _resize(turned, shrink), mask, to_turned


def _resize(image: NDArray[np.float32], shrink: float) -> NDArray[np.float32]:
    if shrink <= 1.0:
        return image
    size = max(1, round(image.shape[1] / shrink)), max(1, round(image.shape[0] / shrink))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.asarray(grey, np.float32)
