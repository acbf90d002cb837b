"""What another threshold would have made of the parts that were seen. Pure; changes nothing.

Compared is the score of the whole picture with the threshold, as the line does it for the plan's
own threshold. Regions with thresholds of their own and deadlines keep their say: parts they
rejected stay rejected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.intervals import Interval, clopper_pearson
from ..topics import VERDICTS
from .part_log import JudgedParts

OK, NG, REVIEW, ERR = (VERDICTS.index(name) for name in ("ok", "ng", "review", "err"))
UNMARKED, MARKED_OK, MARKED_NG = 0, 1, 2
CONFIDENCE = 0.95
_EXACT_TRIALS = 1000
"""Up to so many the interval is exact; its sums grow with them, and a slider must not wait."""


@dataclass(frozen=True, slots=True)
class ThresholdPreview:
    """Counts of parts; `*_rate` with its two-sided 95 % interval."""

    threshold: float
    n: int
    """Inspected parts with a score."""
    rejected_before: int
    rejected_after: int
    newly_rejected: int
    newly_passed: int
    rejected_otherwise: int
    """Rejected on other grounds than the score (late, a region): they stay rejected."""
    good: int
    """Taken as good: an operator said so, or the line passed them and no operator disagreed."""
    good_marked: int
    false_rejects: int
    false_reject_rate: float | None
    false_reject_interval: Interval | None
    bad_marked: int
    """Operators called them defective."""
    escapes: int
    """Of those, how many would pass."""


def preview_threshold(
    parts: JudgedParts, marks: NDArray[np.uint8], threshold: float
) -> ThresholdPreview:
    """`marks` (n,) says what an operator found: UNMARKED, MARKED_OK or MARKED_NG."""
    seen = np.isfinite(parts.score) & (parts.verdict != ERR)
    score, verdict, mark = parts.score[seen], parts.verdict[seen], marks[seen]
    over_before = score > parts.threshold[seen]
    rejected_before = verdict != OK
    otherwise = rejected_before & ~over_before
    # float32, as the scores are: a slider on a part's very score must not reject it.
    over_after = score > np.float32(threshold)
    rejected_after = over_after | otherwise
    good = (mark == MARKED_OK) | ((mark == UNMARKED) & ~rejected_before)
    bad = mark == MARKED_NG
    n_good, false_rejects = _count(good), _count(good & over_after)
    return ThresholdPreview(
        threshold=threshold,
        n=int(score.size),
        rejected_before=_count(rejected_before),
        rejected_after=_count(rejected_after),
        newly_rejected=_count(rejected_after & ~rejected_before),
        newly_passed=_count(rejected_before & ~rejected_after),
        rejected_otherwise=_count(otherwise),
        good=n_good,
        good_marked=_count(mark == MARKED_OK),
        false_rejects=false_rejects,
        false_reject_rate=false_rejects / n_good if n_good else None,
        false_reject_interval=rate_interval(false_rejects, n_good) if n_good else None,
        bad_marked=_count(bad),
        escapes=_count(bad & ~rejected_after),
    )


def would_change(part: Mapping[str, Any], threshold: float) -> bool:
    """Whether this part (a result's header) would be judged otherwise; as `preview_threshold`."""
    score, limit = part["score"], part["thr"]
    if score is None or part["verdict"] == "err":
        return False
    over_after = bool(np.float32(score) > np.float32(threshold))
    if part["verdict"] == "ok":
        return over_after
    return limit is not None and bool(np.float32(score) > np.float32(limit)) and not over_after


def rate_interval(successes: int, trials: int) -> Interval:
    """95 %: Clopper-Pearson's up to 1000 trials, Wilson's (E. B. Wilson 1927) beyond, where both
    upper ends agree to a tenth of their value."""
    if trials <= _EXACT_TRIALS:
        return clopper_pearson(successes, trials, CONFIDENCE)
    z = 1.959963984540054
    rate, scale = successes / trials, 1 + z * z / trials
    middle = (rate + z * z / (2 * trials)) / scale
    half = z * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials**2)) / scale
    return Interval(middle - half, middle + half)


def score_histogram(
    parts: JudgedParts, marks: NDArray[np.uint8], bins: int = 60
) -> dict[str, list[int] | float]:
    """How many parts have which score, from 0 to `top`, the last bin holds all above it.

    Stacked apart: passed, rejected, and what operators called good or defective.
    """
    seen = np.isfinite(parts.score) & (parts.verdict != ERR)
    score, verdict, mark = parts.score[seen], parts.verdict[seen], marks[seen]
    limits = parts.threshold[np.isfinite(parts.threshold) & (parts.threshold > 0)]
    top = 2.0 * float(limits[-1]) if limits.size else max(float(score.max(initial=0.0)), 1e-6)
    place = np.clip(score / np.float32(top) * bins, 0, bins - 1).astype(np.int64)

    def counts(chosen: NDArray[np.bool_]) -> list[int]:
        found: list[int] = np.bincount(place[chosen], minlength=bins).tolist()
        return found

    return {
        "top": top,
        "passed": counts((verdict == OK) & (mark == UNMARKED)),
        "rejected": counts((verdict != OK) & (mark == UNMARKED)),
        "marked_ok": counts(mark == MARKED_OK),
        "marked_ng": counts(mark == MARKED_NG),
    }


def _count(chosen: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(chosen))
