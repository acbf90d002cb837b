"""The figures that we report, as docs/metrics.md defines them: exact in float64, never binned.

Labels come from folders, scores may be any real numbers; +inf and NaN rank highest, as a map that
cannot be trusted must. A figure whose classes are not both present is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..calibration.intervals import Interval, clopper_pearson
from . import ranking
from .aupro import aupro_of, aupro_rd4ad
from .pixel_scores import PixelScores
from .ranking import Ranking

__all__ = [
    "DeployedRates",
    "Rate",
    "aupro",
    "aupro_rd4ad",
    "best_f1",
    "deployed_rates",
    "image_ap",
    "image_auroc",
    "image_ranking",
    "pixel_ap",
    "pixel_auroc",
]

Bools = NDArray[np.bool_]
Maps = Sequence[NDArray[np.floating]]


@dataclass(frozen=True)
class Rate:
    """`count` of `total`, with its Clopper-Pearson interval; rate and interval are NaN for 0."""

    count: int
    total: int
    interval: Interval

    @property
    def rate(self) -> float:
        return self.count / self.total if self.total else float("nan")


@dataclass(frozen=True)
class DeployedRates:
    """What the line would have done to a labelled test set at its threshold."""

    threshold: float
    confidence: float
    false_reject: Rate
    """Good parts rejected, of all good parts."""
    escape: Rate
    """Defective parts accepted, of all defective parts."""
    precision: float
    """Defective share of the rejected parts; NaN when none is rejected."""
    f1: float
    """F1 of `reject` at this threshold; unlike `best_f1` no oracle."""


def image_ranking(labels: ArrayLike, scores: ArrayLike) -> Ranking:
    """Labels (n,) true for defective, scores (n,) -> exact counts. Raises ValueError on shapes."""
    defective, values = _checked(labels, scores)
    return ranking.rank(values[defective], [np.sort(values[~defective])])


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of image scores; ties count half."""
    return ranking.auroc(image_ranking(labels, scores))


def image_ap(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision of image scores: the stepwise sum, not a trapezoid."""
    return ranking.average_precision(image_ranking(labels, scores))


def best_f1(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """Oracle: the largest F1 over all thresholds, and the score (reject at >=) that gives it."""
    return ranking.best_f1(image_ranking(labels, scores))


def pixel_auroc(masks: Sequence[Bools], maps: Maps) -> float:
    """Area under the ROC curve over all pixels of all images pooled; masks and maps (h, w)."""
    return ranking.auroc(_pixels(masks, maps))


def pixel_ap(masks: Sequence[Bools], maps: Maps) -> float:
    """Average precision over all pixels of all images pooled."""
    return ranking.average_precision(_pixels(masks, maps))


def aupro(masks: Sequence[Bools], maps: Maps, limit: float = 0.3) -> float:
    """Exact AUPRO over the data set (MVTec's definition), up to the false-positive rate `limit`.

    8-connected regions of all images count equally; false positives are counted over the
    defect-free pixels of all images, good ones included; every distinct score is a threshold.
    """
    return aupro_of(_pixels(masks, maps), limit)


def deployed_rates(
    labels: ArrayLike, scores: ArrayLike, threshold: float, confidence: float = 0.95
) -> DeployedRates:
    """False rejects and escapes of the rule `score > threshold`, with exact binomial intervals.

    A score that is not finite is a reject: the line reports such a part as uninspected, and it
    never passes.
    """
    defective, values = _checked(labels, scores)
    rejected = (values > threshold) | ~np.isfinite(values)
    hits = int(np.count_nonzero(rejected & defective))
    alarms = int(np.count_nonzero(rejected & ~defective))
    n_defective = int(np.count_nonzero(defective))
    n_good = len(values) - n_defective
    flagged = hits + alarms
    return DeployedRates(
        threshold=float(threshold),
        confidence=confidence,
        false_reject=_rate(alarms, n_good, confidence),
        escape=_rate(n_defective - hits, n_defective, confidence),
        precision=hits / flagged if flagged else float("nan"),
        f1=2 * hits / (flagged + n_defective) if flagged + n_defective else float("nan"),
    )


def _rate(count: int, total: int, confidence: float) -> Rate:
    nothing = Interval(float("nan"), float("nan"))
    return Rate(count, total, clopper_pearson(count, total, confidence) if total else nothing)


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Bools, NDArray[np.float64]]:
    defective = np.asarray(labels).astype(bool)
    values = np.asarray(scores, dtype=np.float64)
    if defective.ndim != 1 or defective.shape != values.shape:
        raise ValueError(f"labels {defective.shape} and scores {values.shape} must be equal (n,)")
    return defective, np.where(np.isnan(values), np.inf, values)


def _pixels(masks: Sequence[Bools], maps: Maps) -> Ranking:
    pixels = PixelScores()
    try:
        for mask, scores in zip(masks, maps, strict=True):
            pixels.add(scores, mask)
        return pixels.ranking()
    finally:
        pixels.close()
