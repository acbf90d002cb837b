"""What another threshold would have made of the parts that were seen. Pure; changes nothing.

An event's score and threshold are those of the region that decided. Only parts that were judged by
the threshold in question are judged again; what was rejected or passed on other grounds than the
score (late, areas too small) stays so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.feedback import MARKED_NG, MARKED_OK, UNMARKED, taken_as_good
from ...calibration.intervals import Interval, clopper_pearson
from ..topics import VERDICTS
from .part_log import JudgedParts

OK, NG, REVIEW, ERR = (VERDICTS.index(name) for name in ("ok", "ng", "review", "err"))
CONFIDENCE = 0.95
_EXACT_TRIALS = 1000
"""Up to so many the interval is exact; its sums grow with them, and a slider must not wait."""


@dataclass(frozen=True, slots=True)
class ThresholdPreview:
    """Counts of parts; `*_rate` with its two-sided 95 % interval."""

    threshold: float
    n: int
    """Inspected parts that were judged by the threshold in question."""
    n_others: int
    """Inspected parts that another region's threshold judged: they are left out."""
    rejected_before: int
    rejected_after: int
    newly_rejected: int
    newly_passed: int
    kept: int
    """Judged on other grounds than the score (late, areas too small): they stay as they are."""
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


@dataclass(frozen=True, slots=True)
class UsedThreshold:
    """A threshold that judged some of the parts, newest first."""

    value: float
    parts: int


def used_thresholds(parts: JudgedParts) -> list[UsedThreshold]:
    """The thresholds that may be previewed.

    Where every part of one camera and revision was judged by the same value, the line has one
    threshold, which changed at most: the newest stands for all. Otherwise regions have thresholds
    of their own, and each is a question by itself.
    """
    seen = _inspected(parts) & np.isfinite(parts.threshold)
    values = parts.threshold[seen]
    if not values.size:
        return []
    if not _has_regions(parts, seen):
        return [UsedThreshold(float(values[-1]), int(values.size))]
    found, first_from_end, counts = np.unique(values[::-1], return_index=True, return_counts=True)
    return [UsedThreshold(float(found[at]), int(counts[at])) for at in np.argsort(first_from_end)]


def preview_threshold(
    parts: JudgedParts, marks: NDArray[np.uint8], instead_of: float, threshold: float
) -> ThresholdPreview:
    """`threshold` in place of `instead_of`, one of `used_thresholds`.

    `marks` (n,) says what an operator found: UNMARKED, MARKED_OK or MARKED_NG.
    """
    seen = _inspected(parts)
    subject = seen.copy()
    if _has_regions(parts, seen):
        subject &= parts.threshold == np.float32(instead_of)
    score, verdict, mark = parts.score[subject], parts.verdict[subject], marks[subject]
    over_before = score > parts.threshold[subject]
    rejected_before = verdict != OK
    kept = rejected_before != over_before
    # float32, as the scores are: a slider on a part's very score must not reject it.
    over_after = score > np.float32(threshold)
    rejected_after = np.where(kept, rejected_before, over_after)
    good = taken_as_good(mark, rejected_before)
    bad = mark == MARKED_NG
    n_good, false_rejects = _count(good), _count(good & rejected_after)
    return ThresholdPreview(
        threshold=threshold,
        n=int(score.size),
        n_others=_count(seen & ~subject),
        rejected_before=_count(rejected_before),
        rejected_after=_count(rejected_after),
        newly_rejected=_count(rejected_after & ~rejected_before),
        newly_passed=_count(rejected_before & ~rejected_after),
        kept=_count(kept),
        good=n_good,
        good_marked=_count(mark == MARKED_OK),
        false_rejects=false_rejects,
        false_reject_rate=false_rejects / n_good if n_good else None,
        false_reject_interval=rate_interval(false_rejects, n_good) if n_good else None,
        bad_marked=_count(bad),
        escapes=_count(bad & ~rejected_after),
    )


def would_change(part: Mapping[str, Any], instead_of: float | None, threshold: float) -> bool:
    """Whether this part (a result's header) would be judged otherwise; as `preview_threshold`.

    `instead_of` None: all parts are asked about.
    """
    if part["score"] is None or part["thr"] is None or part["verdict"] == "err":
        return False
    score, limit = np.float32(part["score"]), np.float32(part["thr"])
    if instead_of is not None and limit != np.float32(instead_of):
        return False
    rejected: bool = part["verdict"] != "ok"
    return rejected == bool(score > limit) and bool(score > np.float32(threshold)) != rejected


def _inspected(parts: JudgedParts) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isfinite(parts.score) & (parts.verdict != ERR)
    return found


def _has_regions(parts: JudgedParts, seen: NDArray[np.bool_]) -> bool:
    """Whether one revision of one camera's threshold has several values."""
    sets = np.stack([parts.camera[seen], parts.boot_of[seen], parts.revision[seen]], axis=1)
    # The bits of the value, so that the columns are whole numbers.
    bits = parts.threshold[seen].view(np.int32)
    whole = np.concatenate([sets, bits[:, None]], axis=1)
    return len(np.unique(whole, axis=0)) > len(np.unique(sets, axis=0))


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
    parts: JudgedParts, marks: NDArray[np.uint8], instead_of: float, bins: int = 60
) -> dict[str, list[int] | float]:
    """How many parts that this threshold judged have which score, from 0 to `top`, twice the
    threshold; the last bin holds all above it.

    Stacked apart: passed, rejected, and what operators called good or defective.
    """
    seen = _inspected(parts)
    if _has_regions(parts, seen):
        seen &= parts.threshold == np.float32(instead_of)
    score, verdict, mark = parts.score[seen], parts.verdict[seen], marks[seen]
    top = 2.0 * instead_of if instead_of > 0 else max(float(score.max(initial=0.0)), 1e-6)
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
