"""Repeated random splits: exact on exchangeable scores, and the verb leaves the plan alone."""

import json

import numpy as np
import pytest
from skrd4ad.calibration.coverage import coverage, false_reject_count_interval
from skrd4ad.cli import main
from skrd4ad.engine.images import write_png
from skrd4ad.errors import CalibrationError


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_mean_realised_rate_is_the_promised_one_on_distinct_scores(rate):
    scores = np.random.default_rng(1).gamma(2.0, size=200)
    seen = coverage(scores, rate, splits=2000, seed=5)
    assert seen.promised_rate <= rate
    assert abs(seen.realised_mean - seen.promised_rate) < 5 * seen.realised_standard_error
    assert seen.within_interval >= 0.93


def test_the_count_interval_is_the_central_beta_binomial_one():
    betabinom = pytest.importorskip("scipy.stats").betabinom
    for n, rank, judged in ((99, 99, 100), (50, 45, 30), (20, 20, 5)):
        low, high = false_reject_count_interval(n, rank, judged, 0.95)
        law = betabinom(judged, n + 1 - rank, rank)
        assert law.cdf(low - 1) <= 0.025 < law.cdf(low)
        assert law.sf(high) <= 0.025 + 1e-12
        assert high == 0 or law.sf(high - 1) > 0.025


def test_the_same_seed_gives_the_same_figures():
    scores = np.random.default_rng(2).random(40)
    assert coverage(scores, 0.1, 20, seed=3) == coverage(scores, 0.1, 20, seed=3)


def test_too_few_images_are_refused():
    with pytest.raises(CalibrationError, match="too few to split"):
        coverage(np.arange(19.0), 0.1, 10, seed=0)


def test_the_verb_reports_each_target_and_changes_nothing(tmp_path, tiny_plan, capsys):
    generator = np.random.default_rng(4)
    for number in range(20):
        pixels = np.full((64, 64, 3), (124, 116, 104), np.uint8)
        pixels[:20, :20] = generator.integers(0, 255, 3)
        write_png(tmp_path / "good" / f"{number:02}.png", pixels)
    before = tiny_plan.read_bytes()
    arguments = ["calibrate", "coverage", "--plan", str(tiny_plan)]
    assert main([*arguments, "--images", str(tmp_path / "good"), "--splits", "50", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["n_images"] == 20
    assert [row["target"] for row in facts["rows"]] == [0.01, 0.05, 0.1]
    assert facts["rows"][0]["promised_rate"] == pytest.approx(1 / 11)
    assert tiny_plan.read_bytes() == before
    assert main(arguments) == 2
