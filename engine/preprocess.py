"""From a captured image to the network's input: the one definition for trainer, line and tests.

ROI crop -> Pillow's antialiased bilinear resize in uint8 -> normalisation by a table of 3 x 256
values. cv2.resize is not the same operation: it differs by tens of grey levels when it shrinks.
"""

from __future__ import annotations

from functools import lru_cache
from math import isfinite

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .resize import resize
from .spec import InputSpec

INPUT_MULTIPLE = 32
"""Height and width of the network's input are multiples of this (the bottleneck's stride)."""


def check_input_spec(spec: InputSpec) -> None:
    """Raise ConfigError when `spec` cannot describe a network input."""
    for side, value in (("height", spec.height), ("width", spec.width)):
        if value < INPUT_MULTIPLE or value % INPUT_MULTIPLE:
            raise ConfigError(
                f"input {side} {value} is not a positive multiple of {INPUT_MULTIPLE}",
                f"use {max(INPUT_MULTIPLE, round(value / INPUT_MULTIPLE) * INPUT_MULTIPLE)}",
            )
    if not all(isfinite(value) for value in (*spec.mean, *spec.std)) or min(spec.std) <= 0:
        raise ConfigError(f"input mean {spec.mean} / std {spec.std}: std must be positive")
    if spec.roi is not None and (
        min(spec.roi.x, spec.roi.y) < 0 or min(spec.roi.width, spec.roi.height) < 1
    ):
        raise ConfigError(f"region of interest {_roi_text(spec)} is empty or negative")


def to_network_input(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """uint8 RGB (h, w, 3) -> float32 (3, spec.height, spec.width), C-contiguous.

    Raises ConfigError when the ROI does not lie inside the image.
    """
    return normalise(crop_and_resize(pixels, spec), spec)


def crop_and_resize(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """uint8 RGB (h, w, 3) -> what the network sees, still uint8 (spec.height, spec.width, 3)."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected uint8 (h, w, 3), got {pixels.dtype} {pixels.shape}")
    x, y, width, height = _seen_rectangle(spec, pixels.shape[0], pixels.shape[1])
    seen = np.ascontiguousarray(pixels[y : y + height, x : x + width])
    return resize(seen, spec.height, spec.width)


def normalise(resized: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """uint8 (H, W, 3) -> float32 (3, H, W) by table, hence the same bits on every machine."""
    table = normalisation_table(spec.mean, spec.std)
    output = np.empty((3, *resized.shape[:2]), np.float32)
    for channel in range(3):
        cv2.LUT(cv2.extractChannel(resized, channel), table[channel], dst=output[channel])
    return output


@lru_cache(maxsize=8)
def normalisation_table(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> NDArray[np.float32]:
    """(v/255 - mean)/std for the 256 values of each channel, float32 (3, 256), in float64 first."""
    values = np.arange(256, dtype=np.float64) / 255.0
    table = (values[None, :] - np.array(mean)[:, None]) / np.array(std)[:, None]
    rounded: NDArray[np.float32] = table.astype(np.float32)
    rounded.setflags(write=False)
    return rounded


def map_to_image(
    spec: InputSpec, image_size: tuple[int, int]
) -> tuple[float, float, float, float, float, float]:
    """The affine transform (sx, 0, tx, 0, sy, ty) from map pixels to captured-image pixels.

    x_image = sx * x_map + tx, y_image = sy * y_map + ty, where whole numbers are pixel *centres*
    (as in cv2.warpAffine). `image_size` is (height, width) of the captured image.
    Raises ConfigError when the ROI does not lie inside the image.
    """
    x, y, width, height = _seen_rectangle(spec, *image_size)
    sx, sy = width / spec.width, height / spec.height
    # A resize keeps pixel edges: (x_image + 1/2) - x = sx * (x_map + 1/2).
    return (sx, 0.0, x + 0.5 * sx - 0.5, 0.0, sy, y + 0.5 * sy - 0.5)


def _seen_rectangle(spec: InputSpec, height: int, width: int) -> tuple[int, int, int, int]:
    roi = spec.roi
    if roi is None:
        return 0, 0, width, height
    if min(roi.x, roi.y) < 0 or roi.x + roi.width > width or roi.y + roi.height > height:
        raise ConfigError(
            f"region of interest {_roi_text(spec)} is not inside the {width} x {height} image",
            "the camera's resolution differs from the one the region was drawn on",
        )
    return roi.x, roi.y, roi.width, roi.height


def _roi_text(spec: InputSpec) -> str:
    roi = spec.roi
    return "none" if roi is None else f"{roi.width} x {roi.height} at ({roi.x}, {roi.y})"
