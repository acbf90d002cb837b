"""Per-region overlap: exact, over the whole data set, and the per-image variant of RD4AD.

Definition of AUPRO: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .ranking import Floats, Ranking, area_to, pro_curve

Bools = NDArray[np.bool_]
RD4AD_THRESHOLDS = 200
RD4AD_LIMIT = 0.3


def region_weights(mask: Bools) -> NDArray[np.float64]:
    """1/area of its 8-connected region for every defect pixel of (h, w), in row-major order.

    Summed over a data set and divided by the number of regions they are the PRO curve's weights:
    every region counts the same, however small.
    """
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    inside = labels[mask]
    areas = np.bincount(inside)
    weights: NDArray[np.float64] = 1.0 / areas[inside]
    return weights


def aupro_of(ranking: Ranking, limit: float) -> float:
    """Area under the PRO curve up to the false-positive rate `limit`, divided by `limit`.

    `ranking` holds all pixels of all images, good images included, with `region_weights`.
    Every distinct score is a threshold; the curve is interpolated at the limit. NaN if undefined.
    """
    if not 0.0 < limit <= 1.0:
        raise ValueError(f"limit must lie in (0, 1], got {limit}")
    if not ranking.is_defined:
        return float("nan")
    return area_to(*pro_curve(ranking), limit)


def aupro_rd4ad_image(mask: Bools, scores: NDArray[np.floating]) -> float:
    """RD4AD's legacy AUPRO of one defective image; only good for comparing with its tables.

    200 linear thresholds inside the image, false positives of this image alone, points below a
    false-positive rate of 0.3 kept and divided by the largest one left, no interpolation.
    NaN when no such point has a false positive (the original divides by zero there).
    """
    values = scores.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not mask.any() or mask.all() or not high > low or not np.isfinite(high):
        return float("nan")
    steps = np.arange(RD4AD_THRESHOLDS, dtype=np.float64)
    thresholds: Floats = low + (high - low) / RD4AD_THRESHOLDS * steps
    fpr = _share_above(values[~mask], thresholds)
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    regions = range(1, int(labels.max()) + 1)
    pro = np.mean([_share_above(values[labels == index], thresholds) for index in regions], axis=0)
    kept = fpr < RD4AD_LIMIT
    if not fpr[kept].any():
        return float("nan")
    x, y = fpr[kept] / fpr[kept].max(), pro[kept]  # falling along the thresholds
    return float(-np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def aupro_rd4ad(masks: Sequence[Bools], maps: Sequence[NDArray[np.floating]]) -> float:
    """Mean of `aupro_rd4ad_image` over the images with a defect in their mask.

    It cannot see that maps of different images disagree in level; see docs/metrics.md.
    """
    areas = [
        aupro_rd4ad_image(mask, scores)
        for mask, scores in zip(masks, maps, strict=True)
        if mask.any()
    ]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else float("nan")


def _share_above(values: Floats, thresholds: Floats) -> Floats:
    """Share of `values` strictly above each threshold."""
    at_most = np.searchsorted(np.sort(values), thresholds, side="right")
    share: Floats = (len(values) - at_most) / float(len(values))
    return share
