"""The decision: strict, never a pass without evidence, the worst region decides."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from skrd4ad.engine.score_map import image_score
from skrd4ad.engine.spec import ScoreContract
from skrd4ad.pipeline.decide import Decision, Rule, apply_deadline, decide, uninspected
from skrd4ad.pipeline.defects import Place
from skrd4ad.pipeline.records import Verdict

MAXIMUM, TOP_MEAN = ScoreContract(), ScoreContract(score="top-mean", top_fraction=0.05)
SAME = Place((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (8, 8))
RULE = Rule(1.0)
SIDE = 12
MAPS = stn.arrays(np.float32, (SIDE, SIDE), elements=st.floats(0, 4, width=32))
MASKS = stn.arrays(np.bool_, (SIDE, SIDE))
LEVELS = st.floats(0.1, 3.9)
RANK = {Verdict.OK: 0, Verdict.REVIEW: 1, Verdict.NG: 2}


def flat(value: float, size: int = 8) -> np.ndarray:
    return np.full((size, size), value, np.float32)


def judged(
    values: np.ndarray, *rules: Rule, contract: ScoreContract = MAXIMUM, mm: float | None = None
) -> Decision:
    to_mm = None if mm is None else (mm, 0.0, 0.0, 0.0, mm, 0.0, 0.0, 0.0, 1.0)
    place = Place(SAME.map_to_image, values.shape, to_mm)
    score = float(image_score(values[None], contract)[0])
    return decide(values, score, rules, contract, place)


def test_a_score_on_the_threshold_passes_and_the_next_number_does_not() -> None:
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    assert judged(flat(1.0), RULE).verdict is Verdict.OK
    decision = judged(flat(above), RULE)
    assert decision.verdict is Verdict.NG
    assert decision.reasons == ("score",)
    assert len(decision.defects) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_err_and_never_a_pass(bad: float) -> None:
    for score, values in ((bad, flat(0.0)), (0.0, flat(bad))):
        decision = decide(values, score, (RULE,), MAXIMUM, SAME)
        assert decision.verdict is Verdict.ERR
        assert decision.reasons == ("not_finite",)
        assert not decision.evaluated
        assert math.isnan(decision.score)
        assert decision.threshold == 1.0


def test_review_band_lies_between_the_two_thresholds() -> None:
    band = dataclasses.replace(RULE, review_value=1.5)
    expected = {1.0: Verdict.OK, 1.2: Verdict.REVIEW, 1.5: Verdict.REVIEW, 1.6: Verdict.NG}
    for score, verdict in expected.items():
        assert judged(flat(score), band).verdict is verdict


def test_the_worst_region_decides_and_names_itself() -> None:
    left, right = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    left[:, :4], right[:, 4:] = True, True
    values = flat(0.0)
    values[1, 1], values[5, 6] = 2.2, 2.0
    lenient = Rule(2.1, review_value=2.5, name="left", mask=left)
    strict = Rule(0.5, name="right", mask=right)
    decision = judged(values, lenient, strict)
    assert (decision.verdict, decision.threshold, decision.score) == (Verdict.NG, 0.5, 2.0)
    assert [defect.region for defect in decision.defects] == ["right", "left"]
    assert decision.defects[0].threshold == 0.5
    only = judged(values, lenient, dataclasses.replace(strict, threshold=2.0))
    assert (only.verdict, only.threshold) == (Verdict.REVIEW, 2.1)
    calm = judged(values, dataclasses.replace(lenient, threshold=3.0, review_value=None),
                  dataclasses.replace(strict, threshold=2.5))  # fmt: skip
    # Nearest to its threshold, though not the highest score.
    assert (calm.verdict, calm.score, calm.threshold) == (Verdict.OK, 2.0, 2.5)


def test_a_small_defect_passes_and_the_reason_is_kept() -> None:
    values = flat(0.0)
    values[2, 2:5] = 2.0
    assert judged(values, dataclasses.replace(RULE, min_area_px=3)).verdict is Verdict.NG
    small = judged(values, dataclasses.replace(RULE, min_area_px=3.5))
    assert (small.verdict, small.reasons, small.defects) == (Verdict.OK, ("min_area",), ())
    assert small.score == 2.0
    in_mm = dataclasses.replace(RULE, min_area_mm2=0.75)
    assert judged(values, in_mm, mm=0.5).verdict is Verdict.NG  # 3 pixels of 0.25 mm2
    assert judged(values, in_mm, mm=0.49).verdict is Verdict.OK


def test_a_small_spike_does_not_make_a_large_faint_defect_worse() -> None:
    values = flat(0.0)
    values[0, 0] = 9.0
    values[4:7, 4:7] = 1.2
    rule = Rule(1.0, review_value=1.5, min_area_px=4)
    decision = judged(values, rule)
    assert decision.verdict is Verdict.REVIEW
    assert [defect.area_px for defect in decision.defects] == [9]


@settings(max_examples=120)
@given(values=MAPS, low=LEVELS, high=LEVELS, contract=st.sampled_from([MAXIMUM, TOP_MEAN]))
def test_a_higher_threshold_never_makes_a_part_worse(
    values: np.ndarray, low: float, high: float, contract: ScoreContract
) -> None:
    low, high = sorted((low, high))
    for review in (None, 4.5):
        strict = judged(values, Rule(low, review), contract=contract)
        lenient = judged(values, Rule(high, review), contract=contract)
        assert RANK[lenient.verdict] <= RANK[strict.verdict]


@settings(max_examples=120)
@given(values=MAPS, threshold=LEVELS, grow=LEVELS, areas=st.tuples(LEVELS, LEVELS))
def test_a_larger_minimum_and_a_narrower_growth_never_make_a_part_worse(
    values: np.ndarray, threshold: float, grow: float, areas: tuple[float, float]
) -> None:
    small, large = sorted(area * 10 for area in areas)
    loose = judged(values, Rule(threshold, grow=grow, min_area_px=small))
    assert (
        RANK[judged(values, Rule(threshold, grow=grow, min_area_px=large)).verdict]
        <= (RANK[loose.verdict])
    )
    assert RANK[judged(values, Rule(threshold, min_area_px=small)).verdict] <= RANK[loose.verdict]
    # Without a minimum, growing changes what a defect looks like and never the verdict.
    plain, grown = judged(values, Rule(threshold)), judged(values, Rule(threshold, grow=grow))
    assert plain.verdict is grown.verdict


@settings(max_examples=120)
@given(values=MAPS, other=MAPS, mask=MASKS, threshold=LEVELS, grow=LEVELS)
def test_masked_pixels_never_decide(
    values: np.ndarray, other: np.ndarray, mask: np.ndarray, threshold: float, grow: float
) -> None:
    mask[0, 0] = True
    rule = Rule(threshold, grow=grow, min_area_px=2, mask=mask, name="lead")
    assert judged(values, rule) == judged(np.where(mask, values, other), rule)


@settings(max_examples=120)
@given(values=MAPS, split=MASKS, threshold=LEVELS, contract=st.sampled_from([MAXIMUM, TOP_MEAN]))
def test_regions_together_are_as_bad_as_the_worst_of_them(
    values: np.ndarray, split: np.ndarray, threshold: float, contract: ScoreContract
) -> None:
    split[0, 0], split[0, 1] = True, False
    rules = [Rule(threshold, 3.0, name="a", mask=split), Rule(threshold, 3.0, mask=~split)]
    apart = [judged(values, rule, contract=contract) for rule in rules]
    together = judged(values, *rules, contract=contract)
    assert RANK[together.verdict] == max(RANK[one.verdict] for one in apart)
    assert bool(together.defects) == any(one.defects for one in apart)
    if contract is MAXIMUM:
        # Dividing a picture into regions of one threshold changes no verdict.
        assert together.verdict is judged(values, Rule(threshold, 3.0)).verdict


def test_a_late_result_never_passes() -> None:
    ok = judged(flat(0.0), RULE)
    ng = judged(flat(2.0), RULE)
    assert apply_deadline(ok, 10, 10, "err") is ok
    late_err = apply_deadline(ok, 11, 10, "err")
    assert (late_err.verdict, late_err.reasons, late_err.late) == (Verdict.ERR, ("late",), True)
    late_reject = apply_deadline(ok, 11, 10, "reject")
    assert (late_reject.verdict, late_reject.reasons) == (Verdict.NG, ("late",))
    assert late_reject.score == 0.0
    assert apply_deadline(ng, 11, 10, "reject").verdict is Verdict.NG
    assert apply_deadline(uninspected("unreadable"), 11, 10, "reject").verdict is Verdict.ERR
