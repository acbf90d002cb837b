"""From map and score to a verdict with its defects. Pure: the same values give the same verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..calibration.regions import region_score
from ..engine.spec import ScoreContract
from .defects import MAX_DEFECTS, Place, areas_mm2, areas_px, describe, grow_areas
from .records import Defect, Verdict

OnLate = Literal["err", "reject"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its grounds. `evaluated` is False exactly for `err`."""

    verdict: Verdict
    reasons: tuple[str, ...]
    score: float
    threshold: float
    defects: tuple[Defect, ...] = ()
    detail: str = ""
    late: bool = False

    @property
    def evaluated(self) -> bool:
        return self.verdict is not Verdict.ERR


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """How one region is judged. Regions of one picture do not overlap.

    score > threshold rejects (strictly: a score on the threshold passes); with a `review_value`,
    scores up to and including it are `review`. A defect begins above `threshold`, grows over what
    is above `grow` (None: no further), and counts only when its area reaches both minima.
    """

    threshold: float
    review_value: float | None = None
    grow: float | None = None
    min_area_px: float = 0.0
    """In pixels of the picture."""
    min_area_mm2: float = 0.0
    """Needs a place with a scale."""
    name: str = "image"
    mask: NDArray[np.bool_] | None = None
    """(h, w) of the map; None for all of it."""

    @property
    def has_minimum(self) -> bool:
        return self.min_area_px > 0 or self.min_area_mm2 > 0


def decide(
    anomaly_map: NDArray[np.float32],
    score: float,
    rules: Sequence[Rule],
    contract: ScoreContract,
    place: Place,
) -> Decision:
    """Judge one part: the worst region decides, and score and threshold are the ones of it.

    `anomaly_map` (height, width) and `score` as the engine gave them. A score or map that is not
    finite means that the network did not evaluate the part: `err`, never a pass.
    """
    if not math.isfinite(score) or not bool(np.isfinite(anomaly_map).all()):
        detail = "the network returned a score or map that is not finite"
        return uninspected("not_finite", detail, rules[0].threshold)
    found = [_judge_region(anomaly_map, score, rule, contract, place) for rule in rules]
    worst = max(found, key=lambda one: (_SEVERITY[one.verdict], one.score - one.threshold))
    if len(found) == 1 or worst.verdict is Verdict.OK:
        return worst
    defects = sorted(
        (defect for one in found for defect in one.defects), key=lambda defect: -defect.score
    )
    # The region that decided comes first, so that its worst defect names the reason.
    defects.sort(key=lambda defect: defect not in worst.defects)
    return replace(worst, defects=tuple(defects[:MAX_DEFECTS]))


_SEVERITY = {Verdict.OK: 0, Verdict.REVIEW: 1, Verdict.NG: 2}


def _judge_region(
    anomaly_map: NDArray[np.float32],
    score: float,
    rule: Rule,
    contract: ScoreContract,
    place: Place,
) -> Decision:
    if rule.mask is not None:
        score = region_score(anomaly_map[rule.mask], contract)
    if not score > rule.threshold:
        return Decision(Verdict.OK, (), score, rule.threshold)
    grow = rule.threshold if rule.grow is None else rule.grow
    areas = grow_areas(anomaly_map, rule.threshold, grow, rule.mask)
    counts = areas_px(areas, place) >= rule.min_area_px
    if rule.min_area_mm2 > 0:
        millimetres = areas_mm2(areas, place)
        assert millimetres is not None, "a rule in mm2 is refused without a scale"
        counts &= millimetres >= rule.min_area_mm2
    if rule.has_minimum:
        if not counts.any():
            return Decision(Verdict.OK, ("min_area",), score, rule.threshold)
        # A small spike beside a large defect must not decide how bad the large one is.
        deciding = min(score, float(areas.peaks[counts].max()))
    else:
        deciding = score
    review = rule.review_value is not None and deciding <= rule.review_value
    return Decision(
        verdict=Verdict.REVIEW if review else Verdict.NG,
        reasons=("score",),
        score=score,
        threshold=rule.threshold,
        defects=describe(areas, counts, anomaly_map, place, rule.name, rule.threshold),
    )


def uninspected(reason: str, detail: str = "", threshold: float = math.nan) -> Decision:
    """An `err`: nothing is known about the part, so its score is NaN and not a small number."""
    return Decision(Verdict.ERR, (reason,), math.nan, threshold, detail=detail)


def apply_deadline(decision: Decision, age_ns: int, deadline_ns: int, on_late: OnLate) -> Decision:
    """A verdict that comes after its deadline may belong to another part: it never passes one.

    `age_ns` is the time since capture. `reject` turns ok and review into ng and keeps the score;
    `err` reports the part as uninspected. An `err` or `ng` part stays what it is.
    """
    if age_ns <= deadline_ns:
        return decision
    if decision.verdict is Verdict.ERR:
        return replace(decision, late=True)
    detail = f"the result is {age_ns / 1e6:.1f} ms old, the deadline is {deadline_ns / 1e6:.1f} ms"
    if on_late == "reject":
        return replace(
            decision,
            verdict=Verdict.NG,
            reasons=(*decision.reasons, "late"),
            detail=detail,
            late=True,
        )
    return replace(uninspected("late", detail, decision.threshold), late=True)
