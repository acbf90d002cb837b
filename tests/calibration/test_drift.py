"""Drift alarms are raised for a moved line, and at most at the stated rate for a still one."""

import math

import cv2
import numpy as np
import pytest
from skrd4ad.calibration.drift import (
    GoldenPart,
    ImageBaseline,
    brightness,
    drift,
    golden_check,
    image_baseline,
    sharpness,
)
from skrd4ad.calibration.threshold import conformal_threshold, manual_threshold
from skrd4ad.errors import CalibrationError

BASELINE = ImageBaseline(brightness=120.0, sharpness=2.0, n_images=50)
STILL = [(120.0, 2.0)] * 60


def calibrated(seed, n=50):
    return conformal_threshold(np.random.default_rng(seed).gamma(4.0, 0.1, n), 0.05)


def codes(report):
    return [alarm.code for alarm in report.alarms]


def test_a_still_line_alarms_at_most_at_the_stated_rate():
    generator = np.random.default_rng(1)
    alarms = 0
    for seed in range(1000):
        scores = generator.gamma(4.0, 0.1, 60)
        alarms += bool(drift(scores, STILL, calibrated(seed), BASELINE).alarms)
    assert alarms <= 5  # 1 expected at most; 5 would be a one in 300 accident


@pytest.mark.parametrize(("scale", "code"), [(0.17, "score_high"), (0.06, "score_low")])
def test_scores_that_moved_raise_the_right_alarm(scale, code):
    scores = np.random.default_rng(2).gamma(4.0, scale, 200)
    report = drift(scores, STILL[:1] * 200, calibrated(3, n=100), BASELINE)
    assert codes(report) == [code]


def test_scores_that_are_not_finite_count_as_high():
    scores = [math.nan] * 30 + [math.inf] * 30
    assert codes(drift(scores, STILL, calibrated(3), BASELINE)) == ["score_high"]


@pytest.mark.parametrize(
    ("seen", "code"),
    [((100.0, 2.0), "brightness"), ((140.0, 2.0), "brightness"), ((121.0, 1.2), "sharpness")],
)
def test_a_changed_picture_raises_the_right_alarm(seen, code):
    scores = np.random.default_rng(4).gamma(4.0, 0.1, 60)
    assert codes(drift(scores, [seen] * 60, calibrated(5), BASELINE)) == [code]


def test_sharpness_falls_with_blur_and_ignores_exposure():
    generator = np.random.default_rng(6)
    texture = cv2.GaussianBlur(generator.normal(0, 90, (200, 200)), (0, 0), 1.5)
    sharp = np.repeat(np.clip(110 + texture, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    assert sharpness(cv2.GaussianBlur(sharp, (0, 0), 2)) < 0.5 * sharpness(sharp)
    darker = (sharp * 0.7).astype(np.uint8)
    assert sharpness(darker) == pytest.approx(sharpness(sharp), rel=0.02)
    assert brightness(darker) == pytest.approx(0.7 * brightness(sharp), rel=0.02)
    assert sharpness(np.full((50, 50, 3), 80, np.uint8)) == 0.0


def test_the_baseline_is_the_median():
    baseline = image_baseline([(100.0, 1.0), (110.0, 5.0), (250.0, 2.0)])
    assert (baseline.brightness, baseline.sharpness, baseline.n_images) == (110.0, 2.0, 3)
    with pytest.raises(CalibrationError, match="no images"):
        image_baseline([])


def test_too_few_parts_or_no_baseline_are_refused():
    with pytest.raises(CalibrationError, match="29 parts are too few"):
        drift([0.1] * 29, STILL[:29], calibrated(1), BASELINE)
    bare = manual_threshold(0.5, [], 0.01)
    with pytest.raises(CalibrationError, match="no score quantiles"):
        drift([0.1] * 60, STILL, bare, BASELINE)


def test_golden_parts_must_be_judged_as_known_and_of_both_kinds():
    threshold = manual_threshold(1.0, [], 0.01)
    good, bad = GoldenPart("g1", False, 0.4), GoldenPart("b1", True, 2.0)
    assert golden_check([good, bad], threshold) == ()
    assert [a.code for a in golden_check([good], threshold)] == ["golden_incomplete"]
    assert [a.code for a in golden_check([], threshold)] == ["golden_incomplete"]
    wrong = [good, bad, GoldenPart("b2", True, 1.0), GoldenPart("g2", False, math.nan)]
    alarms = golden_check([*wrong, GoldenPart("b3", True, math.inf)], threshold)
    assert [a.code for a in alarms] == ["golden_wrong"] * 3
    assert "bad part b2 scored 1, threshold 1" in alarms[0].text
