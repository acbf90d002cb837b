"""How a map and a mask of another resolution are brought together. Always by a named rule.

The rule moves pixel figures, so every result says which it was. Masks are reduced to the map:

    half     a map pixel is defective when at least half of its area is (default; near RD4AD's rule)
    any      when any of its area is: no defect can vanish, regions grow by up to one map pixel
    nearest  when the point at its centre is

or the map is enlarged (bilinear) to the mask, as MVTec's own definition has it:

    native   the mask stays as it is; slower, and every pixel of the camera counts
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.preprocess import map_to_image
from ..engine.spec import InputSpec

MaskRule = Literal["half", "any", "nearest", "native"]
HUGE = 1e30
"""Stands for infinity while a map is enlarged: above any score."""
MASK_RULES: tuple[MaskRule, ...] = get_args(MaskRule)


def match(
    scores: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    image_size: tuple[int, int],
    spec: InputSpec,
    rule: MaskRule,
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Map (H, W) and mask (h, w) of an image -> both at one size, inside the region of interest.

    `image_size` is (h, w). No mask stays no mask. Raises ConfigError when the region of `spec`
    does not lie inside the image.
    """
    if rule != "native":
        return scores, None if mask is None else reduce_mask(mask, spec, rule)
    sx, _, tx, _, sy, ty = map_to_image(spec, image_size)
    height, width = round(sy * spec.height), round(sx * spec.width)
    top, left = round(ty + 0.5 - 0.5 * sy), round(tx + 0.5 - 0.5 * sx)
    # cv2's convention keeps pixel edges, as the resize of the picture did; its coefficients for
    # float images are float32. Infinity times a zero weight would be NaN: huge stays finite.
    finite = np.nan_to_num(scores, nan=HUGE, posinf=HUGE)
    enlarged = np.asarray(cv2.resize(finite, (width, height)), np.float32)
    enlarged[enlarged > 1e-6 * HUGE] = np.inf  # whatever an uninspected pixel had a share in
    seen = None if mask is None else mask[top : top + height, left : left + width]
    return enlarged, seen


def reduce_mask(mask: NDArray[np.bool_], spec: InputSpec, rule: MaskRule) -> NDArray[np.bool_]:
    """Mask of the captured image, bool (h, w) -> mask of the map, bool (spec.height, spec.width).

    The region of interest of `spec` is cut out first; areas are exact, also at odd ratios.
    Raises ConfigError when the region does not lie inside the image.
    """
    assert rule != "native"
    sx, _, tx, _, sy, ty = map_to_image(spec, mask.shape)
    if rule == "nearest":
        rows = np.floor(sy * np.arange(spec.height) + ty + 0.5).astype(int)
        columns = np.floor(sx * np.arange(spec.width) + tx + 0.5).astype(int)
        picked: NDArray[np.bool_] = mask[np.ix_(rows, columns)]
        return picked
    # Pixel edges: map pixel i covers [edge + s*i, edge + s*(i+1)] of the image.
    rows_of = _coverage(spec.height, mask.shape[0], sy, ty + 0.5 - 0.5 * sy)
    columns_of = _coverage(spec.width, mask.shape[1], sx, tx + 0.5 - 0.5 * sx)
    covered = rows_of @ mask.astype(np.float32) @ columns_of.T
    # float32 sums of at most a few thousand exact shares: 1e-5 is far below one image pixel.
    reduced: NDArray[np.bool_] = covered >= 0.5 - 1e-5 if rule == "half" else covered > 1e-7
    return reduced


def for_picture(rule: MaskRule) -> MaskRule:
    """The rule for outlining a defect on a picture of the map's size: `native` becomes `any`."""
    return "any" if rule == "native" else rule


@lru_cache(maxsize=8)
def _coverage(n_map: int, n_image: int, scale: float, edge: float) -> NDArray[np.float32]:
    """Share of each map pixel's extent that each image pixel fills, (n_map, n_image)."""
    low = edge + scale * np.arange(n_map)[:, None]
    pixel = np.arange(n_image)[None, :]
    overlap = np.minimum(low + scale, pixel + 1) - np.maximum(low, pixel)
    share: NDArray[np.float32] = (np.clip(overlap, 0, None) / scale).astype(np.float32)
    share[share < 1e-6] = 0.0  # rounding of the edges is not coverage
    return share
