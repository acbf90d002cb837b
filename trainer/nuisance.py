"""Nuisances of a line that are not defects: light, blur, noise, dust, small pose. Off by default.

An image is changed as a function of (seed, step, place in the batch) alone, so that a resumed or
repeated run sees the same pictures.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.spec import Record
from ..errors import ConfigError

MAX_ROTATION_DEG = 30.0


class Nuisance(Record, frozen=True, kw_only=True):
    """The largest change of each kind; 0 turns it off. Amounts are drawn evenly up to it."""

    light: float = 0.0
    """Relative change of brightness, and a third of it of each colour's share."""
    gamma: float = 0.0
    """Exponent between 1/(1 + gamma) and 1 + gamma."""
    blur_px: float = 0.0
    """Standard deviation of a Gaussian blur."""
    noise: float = 0.0
    """Standard deviation of pixel noise, in grey levels."""
    dust: int = 0
    """Number of specks of 1 to 2 px radius. They become normal: use it only where dust may pass."""
    shift_px: float = 0.0
    rotate_deg: float = 0.0

    @property
    def active(self) -> bool:
        return self != Nuisance()


def check_nuisance(nuisance: Nuisance) -> None:
    """Raise ConfigError naming the key whose value makes no sense."""
    for key in nuisance.__struct_fields__:
        if getattr(nuisance, key) < 0:
            raise ConfigError(f"nuisance: {key} is {getattr(nuisance, key)}, expected 0 or more")
    for key, limit in (("light", 0.9), ("rotate_deg", MAX_ROTATION_DEG)):
        if getattr(nuisance, key) > limit:
            raise ConfigError(f"nuisance: {key} is {getattr(nuisance, key)}, at most {limit}")


def disturb(
    pixels: NDArray[np.uint8], nuisance: Nuisance, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """uint8 RGB (H, W, 3) -> the same part under another light, focus, dust and pose."""
    values = pixels.astype(np.float32)
    # All draws are made whatever is switched on, so that one key does not shift the others.
    angle, dx, dy = generator.uniform(-1.0, 1.0, 3)
    light, gamma, blur = generator.uniform(-1.0, 1.0, 3)
    colours = generator.uniform(-1.0, 1.0, 3)
    noise = generator.uniform(0.0, 1.0)
    if nuisance.shift_px or nuisance.rotate_deg:
        values = _move(
            values, angle * nuisance.rotate_deg, dx * nuisance.shift_px, dy * nuisance.shift_px
        )
    if nuisance.dust:
        _add_dust(values, int(generator.integers(0, nuisance.dust + 1)), generator)
    if nuisance.blur_px:
        sigma = abs(blur) * nuisance.blur_px
        if sigma > 0.05:  # narrower than this, the kernel is the identity
            blurred = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
            values = np.asarray(blurred, dtype=np.float32)
    if nuisance.light:
        values *= (1.0 + light * nuisance.light) * (1.0 + colours * nuisance.light / 3.0)
    if nuisance.gamma:
        exponent = (1.0 + nuisance.gamma) ** gamma
        values = 255.0 * (np.clip(values, 0.0, 255.0) / 255.0) ** exponent
    if nuisance.noise:
        values += generator.normal(0.0, noise * nuisance.noise, values.shape)
    result: NDArray[np.uint8] = np.clip(np.rint(values), 0.0, 255.0).astype(np.uint8)
    return result


def _move(
    values: NDArray[np.float32], angle_deg: float, dx: float, dy: float
) -> NDArray[np.float32]:
    """Turn about the centre and shift; the border is mirrored, never black."""
    height, width = values.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle_deg, 1.0)
    matrix[:, 2] += np.array([dx, dy])
    moved = cv2.warpAffine(
        values, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(moved, dtype=np.float32)


def _add_dust(values: NDArray[np.float32], count: int, generator: np.random.Generator) -> None:
    height, width = values.shape[:2]
    for _ in range(count):
        centre = (int(generator.integers(width)), int(generator.integers(height)))
        radius, grey = int(generator.integers(1, 3)), float(generator.uniform(30.0, 220.0))
        cv2.circle(values, centre, radius, (grey, grey, grey), thickness=-1, lineType=cv2.LINE_AA)
