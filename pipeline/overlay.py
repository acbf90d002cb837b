"""Heat maps for people, on one fixed colour scale: the same colour is the same score everywhere.

The scale is anchored at the threshold and never stretched to the image: a good part stays calm,
and two overlays can be compared. 0 is transparent, the threshold is yellow, twice the threshold
and above is full red.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from .records import Defect, Result, Verdict

Value = TypeVar("Value", bound=np.generic)
_LABEL_COLOURS = {
    Verdict.OK: (40, 150, 60),
    Verdict.NG: (200, 40, 40),
    Verdict.REVIEW: (210, 140, 20),
    Verdict.ERR: (90, 90, 90),
}
_MIN_LABEL_WIDTH_PX = 320
_ANCHORS = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
"""Map value in units of the threshold ..."""
_RED = np.array([30, 40, 250, 245, 190])
_GREEN = np.array([60, 160, 210, 100, 10])
_BLUE = np.array([140, 170, 50, 30, 30])
_OPACITY = np.array([0.0, 0.18, 0.5, 0.6, 0.65])
"""... and its colour and opacity there, linear in between."""


def draw_overlay(pixels: NDArray[np.uint8], result: Result) -> NDArray[np.uint8]:
    """uint8 RGB (h, w, 3) with heat map, outlines of the defects and a label with the verdict.

    A part that was not evaluated has no map: it gets its label and nothing else. Small images are
    enlarged by a whole factor, so that the label can be read.
    """
    height, width = pixels.shape[0], pixels.shape[1]
    factor = max(1, -(-_MIN_LABEL_WIDTH_PX // width))
    if result.anomaly_map is None or result.map_to_image is None:
        return _labelled(_enlarge(pixels, factor), result)
    values = map_on_image(result.anomaly_map, result.map_to_image, (height, width))
    canvas = _enlarge(_tint(pixels, values, result.threshold), factor)
    _outline(canvas, result.defects, factor)
    return _labelled(canvas, result)


def map_on_image(
    anomaly_map: NDArray[np.float32],
    transform: tuple[float, float, float, float, float, float],
    image_size: tuple[int, int],
) -> NDArray[np.float32]:
    """The map in the captured image's pixels, float32 (h, w); 0 outside the region of interest."""
    sx, _, tx, _, sy, ty = transform
    height, width = image_size
    matrix = np.array([[sx, 0, tx], [0, sy, ty]])
    map_height, map_width = anomaly_map.shape
    # The value continues to the region's very edge, half a map pixel beyond the last centre.
    values = cv2.warpAffine(anomaly_map, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    x0, y0 = round(tx + 0.5 - 0.5 * sx), round(ty + 0.5 - 0.5 * sy)
    x1, y1 = x0 + round(sx * map_width), y0 + round(sy * map_height)
    result = np.zeros((height, width), np.float32)
    result[max(y0, 0) : y1, max(x0, 0) : x1] = values[max(y0, 0) : y1, max(x0, 0) : x1]
    return result


def _tint(
    pixels: NDArray[np.uint8], values: NDArray[np.float32], threshold: float
) -> NDArray[np.uint8]:
    relative = np.clip(values / max(threshold, 1e-12), _ANCHORS[0], _ANCHORS[-1])
    opacity = np.interp(relative, _ANCHORS, _OPACITY)[:, :, None]
    colour = np.stack(
        [np.interp(relative, _ANCHORS, channel) for channel in (_RED, _GREEN, _BLUE)], axis=-1
    )
    blended = pixels * (1 - opacity) + colour * opacity
    return np.asarray(np.rint(blended), dtype=np.uint8)


def _enlarge(array: NDArray[Value], factor: int) -> NDArray[Value]:
    return np.ascontiguousarray(array.repeat(factor, axis=0).repeat(factor, axis=1))


def _outline(canvas: NDArray[np.uint8], defects: Sequence[Defect], factor: int) -> None:
    """What was judged to be a defect, and not whatever is warm: areas may be ignored or small."""
    # A pixel's centre lies in the middle of its enlarged block.
    outlines = [
        np.array(one.contour_px, np.int32).reshape(-1, 1, 2) * factor + factor // 2
        for one in defects
    ]
    cv2.polylines(canvas, outlines, True, (0, 0, 0), 3)
    cv2.polylines(canvas, outlines, True, (255, 255, 255), 1)


def _labelled(canvas: NDArray[np.uint8], result: Result) -> NDArray[np.uint8]:
    text = result.verdict.value.upper()
    if result.evaluated:
        text += f"  score {result.score:.3f}  threshold {result.threshold:.3f}"
    else:
        text += "  " + ", ".join(result.reasons)
    bar = np.full((22, canvas.shape[1], 3), _LABEL_COLOURS[result.verdict], np.uint8)
    cv2.putText(bar, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, canvas])
