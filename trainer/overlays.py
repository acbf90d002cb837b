"""Anomaly maps over images on one fixed colour scale, anchored at the threshold.

The same map value has the same colour in every picture: nothing below 0.8 of the anchor, amber at
the anchor, red from 1.5 times the anchor on. Scaling each picture to its own extremes would paint
heat on every good part.
"""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.images import png_bytes

AMBER = np.array([255.0, 176.0, 0.0])
RED = np.array([214.0, 0.0, 28.0])
LINE_AT_ANCHOR = (255, 255, 255)
LINE_OF_MASK = (0, 229, 255)
CLEAR_BELOW, RED_FROM = 0.8, 1.5
"""Multiples of the anchor: where colour starts and where it is red."""
ALPHA_AT_ANCHOR, STRONGEST_ALPHA = 0.3, 0.65


def overlay(
    rgb: NDArray[np.uint8],
    scores: NDArray[np.float32],
    anchor: float,
    mask: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """uint8 RGB (h, w, 3) under its map (h, w); the mask's outline is cyan, the anchor's white.

    Infinite map values (uninspected) are as red as it gets.
    """
    level = np.nan_to_num(scores.astype(np.float64) / anchor, nan=np.inf, posinf=1e9)
    steps = [CLEAR_BELOW, 1.0, RED_FROM]
    alpha = np.interp(level, steps, [0.0, ALPHA_AT_ANCHOR, STRONGEST_ALPHA])[..., None]
    heat = np.interp(level, steps, [0.0, 0.0, 1.0])[..., None]
    colour = AMBER * (1 - heat) + RED * heat
    mixed = rgb * (1 - alpha) + colour * alpha
    picture: NDArray[np.uint8] = np.ascontiguousarray(np.rint(mixed), dtype=np.uint8)
    _outline(picture, level > 1.0, LINE_AT_ANCHOR)
    if mask is not None:
        _outline(picture, mask, LINE_OF_MASK)
    return picture


def map_picture(scores: NDArray[np.float32], anchor: float) -> NDArray[np.uint8]:
    """The map alone, uint8 RGB (h, w, 3): black at 0, white at the anchor, amber to red above.

    It shows what an overlay cannot, where a map rises without reaching the anchor.
    """
    level = np.nan_to_num(scores.astype(np.float64) / anchor, nan=np.inf, posinf=1e9)
    stops = [0.0, 1.0, 1.0 + 1e-6, RED_FROM]
    shades = np.array([[0.0] * 3, [255.0] * 3, AMBER, RED])
    channels = [np.interp(level, stops, shades[:, channel]) for channel in range(3)]
    picture: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return picture


def inline_png(rgb: NDArray[np.uint8]) -> str:
    """A data URI, so that a report stays one file."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(rgb)).decode()


def _outline(picture: NDArray[np.uint8], where: NDArray[np.bool_], rgb: tuple[int, ...]) -> None:
    contours, _ = cv2.findContours(where.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, rgb, 1)
