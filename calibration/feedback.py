"""What operators found, turned into a proposal for the threshold. Pure; nothing is applied here.

Operators look at rejected parts more often than at passed ones, so what they marked is no sample of
the line. The good parts are therefore all that the line passed and nobody called defective, with
those that somebody called good; the defective ones are those that somebody called defective.
Rejected parts that nobody looked at are neither: how far they could move the figures is reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError
from .intervals import Interval, clopper_pearson
from .threshold import check_rate, conformal_rank, images_needed, sorted_scores

UNMARKED, MARKED_OK, MARKED_NG = 0, 1, 2
CONFIDENCE = 0.95
SMALLEST_GOOD = 30
"""Fewer good parts say less than the calibration did."""


@dataclass(frozen=True, slots=True, eq=False)
class InspectedParts:
    """Parts that the line inspected, in order: three arrays of length n."""

    score: NDArray[np.float64]
    rejected: NDArray[np.bool_]
    """The line's own verdict, ng or review."""
    mark: NDArray[np.uint8]
    """UNMARKED, MARKED_OK or MARKED_NG: what an operator found."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one threshold would have done with these parts; rates with exact 95 % intervals."""

    name: str
    threshold: float
    false_rejects: int
    false_reject_rate: float
    false_reject_interval: Interval
    escapes: int
    escape_rate: float | None
    """None without parts that somebody called defective."""
    escape_interval: Interval
    unseen_rejects: int
    """Parts above it that the line rejected and nobody looked at."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Thresholds beside each other. `proposed` is a suggestion; a person decides."""

    n_parts: int
    n_good: int
    n_good_marked: int
    n_bad: int
    n_unseen_rejects: int
    target_false_reject_rate: float
    attained: bool
    """Whether so many good parts support the target."""
    outcomes: tuple[Outcome, ...]
    """now, proposed and, where there are defective parts, the largest without an escape."""

    @property
    def proposed(self) -> Outcome:
        return self.outcomes[1]


def taken_as_good(mark: NDArray[np.uint8], rejected: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) which parts count as good: marked so, or passed by the line and not marked."""
    good: NDArray[np.bool_] = (mark == MARKED_OK) | ((mark == UNMARKED) & ~rejected)
    return good


def propose_threshold(parts: InspectedParts, current: float, false_reject_rate: float) -> Proposal:
    """The conformal threshold of the good parts, beside the current one.

    Raises CalibrationError when nobody has marked anything, for fewer than SMALLEST_GOOD good parts
    and for scores that are not finite; ConfigError for a rate outside (0, 1).
    """
    check_rate(false_reject_rate)
    marked = parts.mark != UNMARKED
    if not marked.any():
        raise CalibrationError(
            "no operator has said anything about these parts, so there is nothing to learn",
            "mark parts on the operator's page, or with: skrd4ad control feedback SEQ ok|ng",
        )
    good = taken_as_good(parts.mark, parts.rejected)
    bad, unseen = parts.mark == MARKED_NG, ~marked & parts.rejected
    n_good = int(np.count_nonzero(good))
    if n_good < SMALLEST_GOOD:
        raise CalibrationError(
            f"{n_good} good parts are too few for a proposal; at least {SMALLEST_GOOD} are needed",
            f"{images_needed(false_reject_rate)} support a false-reject rate of "
            f"{false_reject_rate:.2%}",
        )
    ordered = sorted_scores(parts.score[good])
    defects = sorted_scores(parts.score[bad]) if bad.any() else np.empty(0)
    unseen_scores = parts.score[unseen]
    rank = conformal_rank(n_good, false_reject_rate)
    candidates = [("now", current), ("proposed", float(ordered[min(rank, n_good) - 1]))]
    if defects.size:
        # The largest double below the mildest defect: score > threshold is a reject.
        candidates.append(("no escape", math.nextafter(float(defects[0]), -math.inf)))
    return Proposal(
        n_parts=int(parts.score.size),
        n_good=n_good,
        n_good_marked=int(np.count_nonzero(parts.mark == MARKED_OK)),
        n_bad=int(defects.size),
        n_unseen_rejects=int(np.count_nonzero(unseen)),
        target_false_reject_rate=false_reject_rate,
        attained=rank <= n_good,
        outcomes=tuple(
            outcome(name, value, ordered, defects, unseen_scores) for name, value in candidates
        ),
    )


def outcome(
    name: str,
    threshold: float,
    good: NDArray[np.float64],
    bad: NDArray[np.float64],
    unseen: NDArray[np.float64],
) -> Outcome:
    """What `threshold` does with the scores of good, defective and unseen rejected parts."""
    false_rejects = int(np.count_nonzero(good > threshold))
    escapes = int(np.count_nonzero(bad <= threshold))
    return Outcome(
        name=name,
        threshold=threshold,
        false_rejects=false_rejects,
        false_reject_rate=false_rejects / good.size,
        false_reject_interval=clopper_pearson(false_rejects, good.size, CONFIDENCE),
        escapes=escapes,
        escape_rate=escapes / bad.size if bad.size else None,
        escape_interval=clopper_pearson(escapes, bad.size, CONFIDENCE),
        unseen_rejects=int(np.count_nonzero(unseen > threshold)),
    )
