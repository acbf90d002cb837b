"""A threshold with a guarantee: the conformal quantile of held-out normal scores.

Sort the scores of n good parts that the network was not fitted on, s(1) <= ... <= s(n), and take

    value = s(k),  k = ceil((n + 1)(1 - alpha)),  reject when score > value.

If a new good part is exchangeable with those n, its score is equally likely to take any of the
n + 1 ranks, so P(false reject) <= (n + 1 - k)/(n + 1) <= alpha: for every n, whatever the
distribution of scores (Vovk, Gammerman and Shafer 2005; Papadopoulos et al. 2002). Ties only
lower the rate, because equality is not a reject. k > n means that n images cannot support alpha:
the largest normal score is then used, whose rate is 1/(n + 1), and the record says so.

The guarantee averages over the draw of the calibration set. For one set, and without ties, the
realised rate is Beta(n + 1 - k, k) distributed; `realised_rate_interval` gives its exact interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..engine.spec import Threshold
from ..errors import CalibrationError, ConfigError
from .intervals import Interval, beta_quantile, clopper_pearson

QUANTILE_LEVELS = (0.0, 0.05, 0.25, 0.50, 0.75, 0.95, 1.0)
"""Levels of `Threshold.score_quantiles`."""

Scores = Sequence[float] | NDArray[np.float64] | NDArray[np.float32]


def conformal_threshold(
    scores: Scores,
    false_reject_rate: float,
    *,
    review_band: float | None = None,
    revision: int = 1,
    created: str = "",
    source: str = "",
    method: Literal["conformal", "cross-conformal"] = "conformal",
) -> Threshold:
    """The smallest held-out score that keeps P(false reject) <= `false_reject_rate`.

    `scores` are n >= 1 finite scores of normal images that training did not see. `review_band`
    opens a review band of that fraction of the value above it. Raises CalibrationError for no or
    non-finite scores and ConfigError for a rate outside (0, 1).
    """
    ordered = sorted_scores(scores)
    n = ordered.size
    rank = min(conformal_rank(n, false_reject_rate), n)
    value = float(ordered[rank - 1])
    return Threshold(
        value=value,
        method=method,
        target_false_reject_rate=false_reject_rate,
        attainable_rate=1.0 / (n + 1),
        n_normals=n,
        score_quantiles=score_quantiles(ordered),
        review_value=review_limit(value, review_band),
        revision=revision,
        created=created,
        source=source,
    )


def manual_threshold(
    value: float,
    scores: Scores,
    false_reject_rate: float,
    *,
    review_band: float | None = None,
    revision: int = 1,
    created: str = "",
    source: str = "",
    method: Literal["manual", "escape"] = "manual",
) -> Threshold:
    """A value chosen without the normal scores, and what they say about it.

    `attainable_rate` is (number of normals above + 1)/(n + 1): the false-reject rate that the
    images support for a value chosen without looking at them. No scores at all are allowed here:
    the rate is then unknown (1.0) and there is no baseline for drift.
    """
    if not math.isfinite(value):
        raise ConfigError(f"the threshold {value} is not a finite number")
    check_rate(false_reject_rate)
    ordered = sorted_scores(scores) if len(scores) else np.empty(0)
    n = ordered.size
    return Threshold(
        value=value,
        method=method,
        target_false_reject_rate=false_reject_rate,
        attainable_rate=(int(np.count_nonzero(ordered > value)) + 1) / (n + 1),
        n_normals=n,
        score_quantiles=score_quantiles(ordered) if n else (),
        review_value=review_limit(value, review_band),
        revision=revision,
        created=created,
        source=source,
    )


def conformal_rank(n: int, false_reject_rate: float) -> int:
    """ceil((n + 1)(1 - alpha)), counted from 1; larger than n when n cannot support the rate.

    Computed in exact decimals: in doubles (n + 1)(1 - alpha) can land above a whole number.
    """
    check_rate(false_reject_rate)
    return math.ceil((n + 1) * (1 - Fraction(repr(float(false_reject_rate)))))


def images_needed(false_reject_rate: float) -> int:
    """The smallest n that supports the rate: n >= 1/alpha - 1."""
    check_rate(false_reject_rate)
    return max(1, math.ceil(1 / Fraction(repr(float(false_reject_rate))) - 1))


def escape_limit(defect_scores: Scores, escape_rate: float) -> float:
    """The largest threshold under which a new defect escapes at most at `escape_rate`.

    A new defect exchangeable with the m labelled ones takes each rank with equal probability, so
    it scores below d(k), the k-th smallest, with probability at most k/(m + 1). Here
    k = floor((m + 1) rate), and the value is just below d(k): equality would pass. Raises
    CalibrationError when m < 1/rate - 1: so few defects cannot bound the rate.
    """
    check_rate(escape_rate)
    ordered = sorted_scores(defect_scores)
    rank = math.floor((ordered.size + 1) * Fraction(repr(float(escape_rate))))
    if rank < 1:
        raise CalibrationError(
            f"{ordered.size} labelled defects cannot bound the escape rate at {escape_rate:.2%}",
            f"at least {images_needed(escape_rate)} are needed",
        )
    return math.nextafter(float(ordered[rank - 1]), -math.inf)


def is_attained(threshold: Threshold) -> bool:
    """Whether the calibration images are enough for the target rate."""
    if threshold.method in ("manual", "escape"):
        return threshold.attainable_rate <= threshold.target_false_reject_rate
    return conformal_rank(threshold.n_normals, threshold.target_false_reject_rate) <= (
        threshold.n_normals
    )


def realised_rate_interval(threshold: Threshold, confidence: float = 0.95) -> Interval:
    """Where the false-reject rate of this one threshold lies, given its calibration set's size.

    Conformal: exact quantiles of Beta(n + 1 - k, k), the rate's distribution over calibration
    sets when scores are continuous (ties move it down). Manual: Clopper-Pearson of the normals
    above the value.
    """
    n = threshold.n_normals
    if threshold.method in ("manual", "escape"):
        above = round(threshold.attainable_rate * (n + 1)) - 1
        return clopper_pearson(above, n, confidence)
    rank = min(conformal_rank(n, threshold.target_false_reject_rate), n)
    tail = (1.0 - confidence) / 2
    return Interval(
        beta_quantile(tail, n + 1 - rank, rank), beta_quantile(1.0 - tail, n + 1 - rank, rank)
    )


def escape_interval(
    threshold_value: float, defect_scores: Scores, confidence: float = 0.95
) -> tuple[float, Interval]:
    """Observed escape rate of labelled defects (score <= value) and its Clopper-Pearson interval.

    Valid for defects that were not used to choose the value.
    """
    ordered = sorted_scores(defect_scores)
    escapes = int(np.count_nonzero(ordered <= threshold_value))
    return escapes / ordered.size, clopper_pearson(escapes, ordered.size, confidence)


def score_quantiles(scores: Scores) -> tuple[float, ...]:
    """Scores at QUANTILE_LEVELS, linearly interpolated: the stored baseline of drift."""
    return tuple(float(q) for q in np.quantile(sorted_scores(scores), QUANTILE_LEVELS))


def review_limit(value: float, review_band: float | None) -> float | None:
    """Upper end of the review band: value + band * |value|; None without a band."""
    if review_band is None:
        return None
    if not (math.isfinite(review_band) and review_band > 0):
        raise ConfigError(
            f"the review band {review_band} is not a positive number",
            "give it as a fraction of the threshold, for example 0.1",
        )
    return value + review_band * abs(value)


def sorted_scores(scores: Scores) -> NDArray[np.float64]:
    """The scores ascending as float64; none or non-finite ones are a CalibrationError."""
    values = np.asarray(scores, dtype=np.float64).ravel()
    if values.size == 0:
        raise CalibrationError("there are no normal scores to calibrate on")
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise CalibrationError(
            f"{bad} of {values.size} scores are not finite, so no threshold can be computed",
            "run `skrd4ad verify --plan F`: the plan is damaged or its backend computes NaN",
        )
    return np.sort(values)


def check_rate(false_reject_rate: float) -> None:
    """Refuse anything that is not a rate strictly between 0 and 1."""
    if not (math.isfinite(false_reject_rate) and 0.0 < false_reject_rate < 1.0):
        raise ConfigError(
            f"the false-reject rate {false_reject_rate} is not between 0 and 1",
            "0.01 asks for at most one good part in a hundred rejected",
        )
