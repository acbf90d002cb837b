"""The fixed colour scale of defect maps on the page: yellow is the threshold on every part.

A map travels as bytes with the threshold at mid scale (wire_map.py); the scale is never stretched
to one part, so that a good part stays calm and two parts can be compared.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_ANCHORS = (0, 64, 128, 191, 255)
"""Bytes of a map: 0, half, one, one and a half and two times the threshold ..."""
_RED, _GREEN, _BLUE = (14, 30, 250, 245, 190), (18, 120, 210, 100, 10), (34, 150, 50, 30, 30)
"""... and their colours: dark, teal, yellow at the threshold, orange, red."""
_OPACITY = (0, 90, 215, 240, 255)
"""Over a picture: nothing where nothing is, and hardly anything up to half the threshold."""
_OPACITY_ANCHORS = (24, 80, 128, 191, 255)


def _table() -> NDArray[np.uint8]:
    steps = np.arange(256)
    channels = [np.interp(steps, _ANCHORS, channel) for channel in (_RED, _GREEN, _BLUE)]
    opacity = np.interp(steps, _OPACITY_ANCHORS, _OPACITY)
    table: NDArray[np.uint8] = np.stack([*channels, opacity], axis=1).round().astype(np.uint8)
    return table


_TABLE = _table()
"""(256, 4) uint8: RGB and opacity of each byte."""


def paint_map(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB (h, w, 3) of a map's bytes (h, w), outlined where it exceeds the threshold (127.5)."""
    painted = np.ascontiguousarray(_TABLE[raw][..., :3])
    _outline(painted, raw, (255, 255, 255))
    return painted


def paint_overlay(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA (h, w, 4) to lay over the part's picture: transparent where the map is low."""
    painted = np.ascontiguousarray(_TABLE[raw])
    _outline(painted, raw, (255, 255, 255, 255))
    return painted


def _outline(painted: NDArray[np.uint8], raw: NDArray[np.uint8], colour: tuple[int, ...]) -> None:
    above = (raw > 127).astype(np.uint8)
    contours, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(painted, contours, -1, colour, 1)
