"""Exact curves and areas from two piles of scores, without ever merging or binning them.

Every curve that we report moves only at the scores of positives; negatives matter through how many
lie above each such score and how many equal it. These two integers per distinct positive score are
a lossless summary: any number of negatives can be counted into it chunk by chunk, and AUROC,
average precision, F1 and PRO curves follow from it exactly (counts are int64, sums are float64).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """Counts at each of m distinct positive scores, highest first.

    `thresholds` (m,) float64; `positives` (m,) int64 equal to each; `weights` (m,) float64, the
    sum of the positives' weights there (they add up to 1); `above` (m,) int64 negatives strictly
    greater; `reached` (m,) int64 negatives greater or equal; `n_negatives` in all.
    """

    thresholds: Floats
    positives: Counts
    weights: Floats
    above: Counts
    reached: Counts
    n_negatives: int

    @property
    def n_positives(self) -> int:
        return int(self.positives.sum())

    @property
    def is_defined(self) -> bool:
        """False when one of the two classes is empty: then no curve exists."""
        return self.n_positives > 0 and self.n_negatives > 0


def rank(
    positives: NDArray[np.floating],
    negatives: Iterable[NDArray[np.floating]],
    weights: Floats | None = None,
) -> Ranking:
    """Summarise positives (p,) and *sorted ascending* chunks of negatives; NaN must be +inf by now.

    `weights` (p,) default to equal ones; they are scaled to add up to 1.
    """
    distinct, inverse = np.unique(positives, return_inverse=True)
    counts = np.bincount(inverse, minlength=len(distinct)).astype(np.int64)
    if weights is None:
        shares = counts / max(len(positives), 1)
    else:
        shares = np.bincount(inverse, weights, minlength=len(distinct)) / max(weights.sum(), 1e-300)
    above = np.zeros(len(distinct), np.int64)
    reached = np.zeros(len(distinct), np.int64)
    n_negatives = 0
    for chunk in negatives:
        # Comparisons happen in the dtype of the scores, so float32 maps are never widened.
        above += len(chunk) - np.searchsorted(chunk, distinct, side="right")
        reached += len(chunk) - np.searchsorted(chunk, distinct, side="left")
        n_negatives += len(chunk)
    return Ranking(
        thresholds=distinct[::-1].astype(np.float64),
        positives=counts[::-1],
        weights=shares[::-1],
        above=above[::-1],
        reached=reached[::-1],
        n_negatives=n_negatives,
    )


def roc_curve(ranking: Ranking) -> tuple[Floats, Floats]:
    """False-positive rate and recall, from (0, 0) to (1, 1); both (2m + 2,).

    Between two positive scores it runs level; where negatives tie with positives it slopes.
    """
    return _curve(ranking, np.cumsum(ranking.positives) / float(ranking.n_positives))


def pro_curve(ranking: Ranking) -> tuple[Floats, Floats]:
    """False-positive rate and weighted recall: with `region_weights` the PRO curve."""
    return _curve(ranking, np.cumsum(ranking.weights))


def _curve(ranking: Ranking, after: Floats) -> tuple[Floats, Floats]:
    before = np.concatenate(([0.0], after[:-1]))
    recall = np.concatenate(([0.0], np.stack([before, after], axis=1).ravel(), [1.0]))
    alarms = np.stack([ranking.above, ranking.reached], axis=1).ravel()
    fpr = np.concatenate(([0], alarms, [ranking.n_negatives])) / float(ranking.n_negatives)
    return fpr, np.minimum(recall, 1.0)


def area_to(fpr: Floats, recall: Floats, limit: float) -> float:
    """Area under the curve from 0 to `limit`, interpolated there, divided by `limit`."""
    inside = int(np.searchsorted(fpr, limit, side="right"))
    x, y = fpr[:inside], recall[:inside]
    if inside < len(fpr):
        slope = (recall[inside] - y[-1]) / (fpr[inside] - x[-1])
        x = np.append(x, limit)
        y = np.append(y, y[-1] + slope * (limit - x[-2]))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2 / limit)


def auroc(ranking: Ranking) -> float:
    """Probability that a positive outranks a negative, ties counting half; NaN when undefined."""
    if not ranking.is_defined:
        return float("nan")
    return area_to(*roc_curve(ranking), 1.0)


def precision_recall(ranking: Ranking) -> tuple[Floats, Floats]:
    """Recall (m,) and precision (m,) when everything at or above each threshold is flagged."""
    flagged = np.cumsum(ranking.positives)
    return flagged / float(ranking.n_positives), flagged / (flagged + ranking.reached)


def average_precision(ranking: Ranking) -> float:
    """Sum of precision times gain in recall, stepwise (not the trapezoid); NaN when undefined."""
    if not ranking.is_defined:
        return float("nan")
    recall, precision = precision_recall(ranking)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def best_f1(ranking: Ranking) -> tuple[float, float]:
    """The largest F1 over all thresholds and the score (flag >= score) that gives it.

    An oracle figure: the threshold is chosen on the labels that judge it. NaN when undefined.
    """
    if not ranking.is_defined:
        return float("nan"), float("nan")
    hits = np.cumsum(ranking.positives)
    f1 = 2.0 * hits / (hits + ranking.reached + ranking.n_positives)
    best = int(np.argmax(f1))
    return float(f1[best]), float(ranking.thresholds[best])
