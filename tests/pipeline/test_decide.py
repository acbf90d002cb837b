"""The decision: strict, never a pass without evidence, defects where they are."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from skrd4ad.engine.preprocess import map_to_image
from skrd4ad.engine.spec import InputSpec, Roi, Threshold
from skrd4ad.pipeline.decide import MAX_DEFECTS, apply_deadline, decide, find_defects, uninspected
from skrd4ad.pipeline.records import Verdict

THRESHOLD = Threshold(value=1.0, target_false_reject_rate=0.01, attainable_rate=0.01, n_normals=99)
SAME = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def flat(value: float, size: int = 8) -> np.ndarray:
    return np.full((size, size), value, np.float32)


def test_a_score_on_the_threshold_passes_and_the_next_number_does_not() -> None:
    above = float(np.nextafter(np.float32(1), np.float32(2)))
    assert decide(flat(1.0), 1.0, THRESHOLD, SAME, (8, 8)).verdict is Verdict.OK
    decision = decide(flat(above), above, THRESHOLD, SAME, (8, 8))
    assert decision.verdict is Verdict.NG
    assert decision.reasons == ("score",)
    assert len(decision.defects) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_err_and_never_a_pass(bad: float) -> None:
    for score, values in ((bad, flat(0.0)), (0.0, flat(bad))):
        decision = decide(values, score, THRESHOLD, SAME, (8, 8))
        assert decision.verdict is Verdict.ERR
        assert decision.reasons == ("not_finite",)
        assert not decision.evaluated
        assert math.isnan(decision.score)
        assert decision.threshold == 1.0


def test_review_band_lies_between_the_two_thresholds() -> None:
    band = msgspec.structs.replace(THRESHOLD, review_value=1.5)
    expected = {1.0: Verdict.OK, 1.2: Verdict.REVIEW, 1.5: Verdict.REVIEW, 1.6: Verdict.NG}
    for score, verdict in expected.items():
        assert decide(flat(score), score, band, SAME, (8, 8)).verdict is verdict


@settings(max_examples=100, deadline=None)
@given(
    values=stn.arrays(np.float32, (12, 9), elements=st.floats(0, 4, width=32)),
    threshold=st.floats(0.1, 3.9),
)
def test_defects_cover_exactly_what_is_above_the_threshold(
    values: np.ndarray, threshold: float
) -> None:
    defects = find_defects(values, threshold, SAME, (12, 9))
    above = values > threshold
    if len(defects) < MAX_DEFECTS:
        assert sum(defect.area_px for defect in defects) == int(above.sum())
        covered = np.zeros_like(above)
        for defect in defects:
            x, y, width, height = defect.bbox_px
            covered[y : y + height, x : x + width] = True
        assert not (above & ~covered).any()
    assert bool(defects) == bool(above.any())
    for defect in defects:
        x, y = defect.peak_px
        assert values[y, x] == np.float32(defect.score) > threshold
    if defects:
        assert defects[0].score == float(values.max())
        assert [d.score for d in defects] == sorted((d.score for d in defects), reverse=True)


def test_touching_corners_are_one_defect() -> None:
    values = flat(0.0)
    values[2, 2] = values[3, 3] = 5.0
    assert len(find_defects(values, 1.0, SAME, (8, 8))) == 1


def test_a_box_lies_over_the_defect_in_the_captured_image() -> None:
    # A 64 x 32 map of a region of interest of 256 x 64 pixels at (100, 40): 4 x 2 pixels each.
    spec = InputSpec(height=32, width=64, roi=Roi(x=100, y=40, width=256, height=64))
    values = np.zeros((32, 64), np.float32)
    values[10:14, 20:30] = 2.0
    values[12, 25] = 3.0
    defect = find_defects(values, 1.0, map_to_image(spec, (480, 640)), (480, 640))[0]
    assert defect.bbox_px == (100 + 20 * 4, 40 + 10 * 2, 10 * 4, 4 * 2)
    assert defect.area_px == 40 * 8
    # The centre of the peak's 4 x 2 pixel cell (a half rounds to the even pixel).
    assert defect.peak_px == (100 + 25 * 4 + 2, 40 + 12 * 2)


def test_boxes_are_clipped_to_the_image() -> None:
    values = flat(2.0, 4)
    stretched = (3.0, 0.0, -4.0, 0.0, 3.0, -4.0)
    (defect,) = find_defects(values, 1.0, stretched, (5, 5))
    x, y, width, height = defect.bbox_px
    assert 0 <= x < x + width <= 5
    assert 0 <= y < y + height <= 5
    assert all(0 <= value < 5 for value in defect.peak_px)


def test_a_late_result_never_passes() -> None:
    ok = decide(flat(0.0), 0.0, THRESHOLD, SAME, (8, 8))
    ng = decide(flat(2.0), 2.0, THRESHOLD, SAME, (8, 8))
    assert apply_deadline(ok, 10, 10, "err") is ok
    late_err = apply_deadline(ok, 11, 10, "err")
    assert (late_err.verdict, late_err.reasons, late_err.late) == (Verdict.ERR, ("late",), True)
    late_reject = apply_deadline(ok, 11, 10, "reject")
    assert (late_reject.verdict, late_reject.reasons) == (Verdict.NG, ("late",))
    assert late_reject.score == 0.0
    assert apply_deadline(ng, 11, 10, "reject").verdict is Verdict.NG
    assert apply_deadline(uninspected("unreadable"), 11, 10, "reject").verdict is Verdict.ERR
