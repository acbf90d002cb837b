"""Where a map exceeds its thresholds: connected defects with outline, area and peak. Pure.

Two thresholds (hysteresis): an area begins at pixels above `threshold` and grows over all connected
pixels above `grow`; a faint rim belongs to its defect, and faint noise alone is none. With
grow == threshold this is plain thresholding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .records import Affine, Defect, Homography

MAX_DEFECTS = 16
"""An event names at most this many defects, highest peak first: its header has 8 KB."""
MAX_CONTOUR_POINTS = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where a map lies: in the picture, and the picture in the world."""

    map_to_image: Affine
    """(sx, 0, tx, 0, sy, ty) between pixel centres: x_image = sx * x_map + tx."""
    image_size: tuple[int, int]
    """(height, width) of the picture."""
    image_to_mm: Homography | None = None
    """3 x 3, row by row: picture pixel -> millimetres where the parts lie; None: no scale known."""


@dataclass(frozen=True, slots=True, eq=False)
class Areas:
    """The connected areas of one map that hold a seed, numbered from 0."""

    labels: NDArray[np.int32]
    """(h, w): 1 + the number of the area, 0 outside all."""
    peaks: NDArray[np.float32]
    """Largest map value of each."""
    map_pixels: NDArray[np.int64]
    """Map pixels of each."""
    boxes: NDArray[np.int32]
    """(n, 4): x, y, width, height of each on the map."""

    def __len__(self) -> int:
        return len(self.peaks)


def grow_areas(
    anomaly_map: NDArray[np.float32],
    threshold: float,
    grow: float,
    mask: NDArray[np.bool_] | None = None,
) -> Areas:
    """8-connected areas of `mask` above `grow` (<= threshold) that hold a pixel above `threshold`.

    `anomaly_map` (h, w) is finite; pixels outside `mask` do not exist.
    """
    above = anomaly_map > min(grow, threshold)
    if mask is not None:
        above &= mask
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above.view(np.uint8), connectivity=8)
    inside = np.asarray(labels, np.int32)[above]
    peaks = np.full(count, -np.inf, np.float32)
    np.maximum.at(peaks, inside, anomaly_map[above])
    seeded = peaks > threshold
    seeded[0] = False
    numbers = np.zeros(count, np.int32)
    numbers[seeded] = np.arange(1, np.count_nonzero(seeded) + 1)
    kept = np.asarray(stats, np.int32)[seeded]
    return Areas(
        numbers[labels], peaks[seeded], kept[:, cv2.CC_STAT_AREA].astype(np.int64), kept[:, :4]
    )


def areas_px(areas: Areas, place: Place) -> NDArray[np.float64]:
    """Area of each in pixels of the picture."""
    pixel = abs(place.map_to_image[0] * place.map_to_image[4])
    return areas.map_pixels.astype(np.float64) * pixel


def areas_mm2(areas: Areas, place: Place) -> NDArray[np.float64] | None:
    """Area of each in mm2, summed over its pixels (the scale may differ over the picture)."""
    if place.image_to_mm is None:
        return None
    ys, xs = np.nonzero(areas.labels)
    each = pixel_mm2(xs, ys, place)
    summed = np.bincount(areas.labels[ys, xs], weights=each, minlength=len(areas) + 1)
    return summed[1:].astype(np.float64)


def pixel_mm2(x: NDArray[np.int64], y: NDArray[np.int64], place: Place) -> NDArray[np.float64]:
    """Area in mm2 of the map pixels at x, y: |det J| of the homography at their centres."""
    assert place.image_to_mm is not None
    sx, _, tx, _, sy, ty = place.map_to_image
    matrix = np.array(place.image_to_mm, np.float64).reshape(3, 3)
    weight = matrix[2, 0] * (sx * x + tx) + matrix[2, 1] * (sy * y + ty) + matrix[2, 2]
    # For a homography the Jacobian's determinant is det(H) / w^3.
    area: NDArray[np.float64] = np.abs(np.linalg.det(matrix) / weight**3 * (sx * sy))
    return area


def describe(
    areas: Areas,
    chosen: NDArray[np.bool_],
    anomaly_map: NDArray[np.float32],
    place: Place,
    region: str,
    threshold: float,
) -> tuple[Defect, ...]:
    """The `chosen` areas as records, highest peak first, at most MAX_DEFECTS of them."""
    numbers = np.flatnonzero(chosen)
    numbers = numbers[np.argsort(-areas.peaks[numbers], kind="stable")][:MAX_DEFECTS]
    sizes, millimetres = areas_px(areas, place), areas_mm2(areas, place)
    found = []
    for number in numbers:
        x, y, width, height = (int(value) for value in areas.boxes[number])
        rows, columns = slice(y, y + height), slice(x, x + width)
        window = areas.labels[rows, columns] == number + 1
        inside = np.where(window, anomaly_map[rows, columns], -np.inf)
        peak_y, peak_x = divmod(int(inside.argmax()), width)
        outline = simplified(outer_contour(window) + (x, y), MAX_CONTOUR_POINTS)
        found.append(
            Defect(
                region=region,
                score=float(areas.peaks[number]),
                threshold=threshold,
                area_px=max(1, round(float(sizes[number]))),
                bbox_px=_box_in_image((x, y, width, height), place),
                peak_px=_point_in_image((x + peak_x, y + peak_y), place),
                area_mm2=None if millimetres is None else float(millimetres[number]),
                contour_px=tuple(
                    _point_in_image((left, top), place) for left, top in outline.tolist()
                ),
            )
        )
    return tuple(found)


def outer_contour(area: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The outline (n, 2) of one connected area, x, y along the outer edges of its pixels.

    It encloses every pixel of the area; gaps one pixel wide are bridged and holes are not shown.
    """
    # Pixel corners that touch the area: border following on them walks along the pixels' edges.
    corners = np.zeros((area.shape[0] + 1, area.shape[1] + 1), np.uint8)
    for dy in (0, 1):
        for dx in (0, 1):
            corners[dy : dy + area.shape[0], dx : dx + area.shape[1]] |= area
    outlines, _ = cv2.findContours(corners, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    longest = max(outlines, key=len)
    return longest.reshape(-1, 2).astype(np.float64) - 0.5


def simplified(outline: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """The outline with at most `most` corners: those stay whose loss would show most."""
    tolerance = 0.5
    points = outline
    while len(points) > most:
        kept = cv2.approxPolyDP(outline.astype(np.float32), tolerance, True)
        points = kept.reshape(-1, 2).astype(np.float64)
        tolerance *= 1.6
    return points


def _point_in_image(point: Sequence[float], place: Place) -> tuple[int, int]:
    sx, _, tx, _, sy, ty = place.map_to_image
    height, width = place.image_size
    x, y = round(sx * point[0] + tx), round(sy * point[1] + ty)
    return min(max(x, 0), width - 1), min(max(y, 0), height - 1)


def _box_in_image(box: tuple[int, int, int, int], place: Place) -> tuple[int, int, int, int]:
    # The transform joins pixel centres; a box runs between pixel edges, half a pixel further out.
    sx, _, tx, _, sy, ty = place.map_to_image
    x, y, box_width, box_height = box
    height, width = place.image_size
    left = min(max(math.floor(sx * (x - 0.5) + tx + 0.5), 0), width - 1)
    top = min(max(math.floor(sy * (y - 0.5) + ty + 0.5), 0), height - 1)
    right = min(max(math.ceil(sx * (x + box_width - 0.5) + tx + 0.5), left + 1), width)
    bottom = min(max(math.ceil(sy * (y + box_height - 0.5) + ty + 0.5), top + 1), height)
    return left, top, right - left, bottom - top
