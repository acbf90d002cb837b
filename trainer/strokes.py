"""Antialiased strokes in reference units: the only place where drawing coordinates become pixels.

Every function draws on an 8-bit canvas (OpenCV antialiases nothing else) that is `MARGIN` reference
pixels larger than the image on each side, at `scale` canvas pixels per reference pixel.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

MARGIN = 20
_BITS = 4

Canvas = NDArray[np.uint8]


def to_canvas(points: ArrayLike, scale: float) -> NDArray[np.int32]:
    """Reference points (..., 2) -> fixed-point canvas coordinates with 4 fractional bits."""
    moved = (np.asarray(points, dtype=np.float64) + MARGIN) * scale
    fixed: NDArray[np.int32] = np.rint(moved * (1 << _BITS)).astype(np.int32)
    return fixed


def fill(canvas: Canvas, corners: ArrayLike, scale: float, value: float = 255) -> None:
    """A filled polygon."""
    cv2.fillPoly(canvas, [to_canvas(corners, scale)], value, cv2.LINE_AA, _BITS)


def stroke(canvas: Canvas, path: ArrayLike, width: float, value: float, scale: float) -> None:
    """An open polyline of `width` reference pixels (at least one canvas pixel)."""
    thickness = max(1, round(width * scale))
    cv2.polylines(canvas, [to_canvas(path, scale)], False, value, thickness, cv2.LINE_AA, _BITS)


def disc(
    canvas: Canvas,
    centre: tuple[float, float],
    radius: float,
    scale: float,
    thickness: float | None = None,
    value: float = 255,
) -> None:
    """A disc, or a ring when `thickness` is given."""
    x, y = (int(v) for v in to_canvas(centre, scale))
    line = cv2.FILLED if thickness is None else max(1, round(thickness * scale))
    cv2.circle(
        canvas, (x, y), round(radius * scale * (1 << _BITS)), value, line, cv2.LINE_AA, _BITS
    )


def letter(
    canvas: Canvas, text: str, origin: tuple[float, float], height: float, scale: float
) -> None:
    """Stroke lettering with its baseline's left end at `origin`; `height` 1 is about 22 pixels."""
    x, y = ((v + MARGIN) * scale for v in origin)
    font: Any = cv2.FONT_HERSHEY_SIMPLEX
    thickness = max(1, round(scale))
    cv2.putText(
        canvas, text, (round(x), round(y)), font, height * scale, 255, thickness, cv2.LINE_AA
    )
