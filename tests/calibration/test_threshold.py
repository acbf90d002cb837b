"""The conformal threshold keeps its promise, and says when it cannot."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.calibration.threshold import (
    QUANTILE_LEVELS,
    conformal_rank,
    conformal_threshold,
    escape_interval,
    escape_limit,
    images_needed,
    is_attained,
    manual_threshold,
    realised_rate_interval,
)
from skrd4ad.errors import CalibrationError, ConfigError

finite_scores = st.lists(
    st.floats(min_value=-1e6, max_value=1e6, allow_nan=False), min_size=1, max_size=300
)
rates = st.floats(min_value=0.001, max_value=0.999)


@pytest.mark.parametrize(
    ("n", "rate", "rank"),
    [
        (99, 0.01, 99),
        (98, 0.01, 99),
        (199, 0.01, 198),
        (19, 0.05, 19),
        (9, 0.1, 9),
        (999, 0.3, 700),
    ],
)
def test_rank_is_exact_in_decimals(n, rate, rank):
    assert conformal_rank(n, rate) == rank


@pytest.mark.parametrize(("rate", "n"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.5, 1), (0.9, 1)])
def test_images_needed_is_the_first_n_that_attains_the_rate(rate, n):
    assert images_needed(rate) == n
    assert conformal_rank(n, rate) <= n
    if n > 1:
        assert conformal_rank(n - 1, rate) > n - 1


@given(finite_scores, rates)
def test_value_is_a_score_and_rejects_at_most_the_promised_share_of_the_exchangeable_ranks(
    scores, rate
):
    threshold = conformal_threshold(scores, rate)
    n = len(scores)
    assert threshold.value in [float(s) for s in scores]
    above = sum(s > threshold.value for s in scores)
    allowed = rate if is_attained(threshold) else threshold.attainable_rate
    # A new part takes any of the n + 1 ranks; at most `above` + 1 of them lie above the value.
    assert (above + 1) / (n + 1) <= allowed + 1e-12


@given(finite_scores, rates)
def test_a_lower_score_would_break_the_promise_unless_tied_or_unattainable(scores, rate):
    threshold = conformal_threshold(scores, rate)
    lower = [s for s in scores if s < threshold.value]
    if lower and is_attained(threshold):
        above = sum(s > max(lower) for s in scores)
        assert Fraction(above + 1, len(scores) + 1) > Fraction(repr(rate))


def test_too_few_images_use_the_largest_score_and_state_the_attainable_rate():
    threshold = conformal_threshold([3.0, 1.0, 2.0], 0.01)
    assert threshold.value == 3.0
    assert threshold.attainable_rate == 0.25
    assert threshold.target_false_reject_rate == 0.01
    assert not is_attained(threshold)


def test_enough_images_attain_the_target():
    threshold = conformal_threshold(np.arange(1, 100), 0.01)
    assert threshold.value == 99.0
    assert is_attained(threshold)
    assert threshold.n_normals == 99


def test_all_scores_equal_reject_nothing_of_that_score():
    threshold = conformal_threshold([0.5] * 40, 0.1)
    assert threshold.value == 0.5
    assert not threshold.value > threshold.value


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(CalibrationError, match="1 of 3 scores are not finite"):
        conformal_threshold([1.0, bad, 2.0], 0.1)


def test_no_scores_are_refused():
    with pytest.raises(CalibrationError, match="no normal scores"):
        conformal_threshold([], 0.1)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan, math.inf])
def test_a_rate_outside_0_and_1_is_refused(rate):
    with pytest.raises(ConfigError, match="false-reject rate"):
        conformal_threshold([1.0, 2.0], rate)


def test_quantiles_are_the_baseline_of_drift():
    threshold = conformal_threshold(range(101), 0.1)
    assert threshold.score_quantiles == pytest.approx([100 * q for q in QUANTILE_LEVELS])


def test_review_band_opens_above_the_value():
    threshold = conformal_threshold([1.0, 2.0], 0.1, review_band=0.25)
    assert threshold.review_value == pytest.approx(2.5)
    assert conformal_threshold([-2.0], 0.1, review_band=0.5).review_value == pytest.approx(-1.0)
    with pytest.raises(ConfigError, match="review band"):
        conformal_threshold([1.0], 0.1, review_band=0.0)


def test_manual_value_states_the_rate_that_the_images_support():
    scores = list(range(1, 100))
    threshold = manual_threshold(95.0, scores, 0.01)
    assert threshold.method == "manual"
    assert threshold.attainable_rate == pytest.approx(5 / 100)
    assert not is_attained(threshold)
    interval = realised_rate_interval(threshold)
    assert interval.low < 4 / 99 < interval.high
    with pytest.raises(ConfigError, match="not a finite number"):
        manual_threshold(math.nan, scores, 0.01)


def test_escapes_are_defects_at_or_below_the_value():
    rate, interval = escape_interval(1.0, [0.5, 1.0, 1.5, 2.0])
    assert rate == 0.5
    assert interval.low < 0.5 < interval.high


def _realised_rates(draw_scores, survival, n, rate, repeats, seed):
    """Exact false-reject rate of `repeats` thresholds, each from its own calibration set."""
    generator = np.random.default_rng(seed)
    thresholds = [conformal_threshold(draw_scores(generator, n), rate) for _ in range(repeats)]
    return thresholds, np.array([survival(t.value) for t in thresholds])


@pytest.mark.parametrize(("n", "rate"), [(20, 0.01), (50, 0.05), (99, 0.01), (150, 0.02)])
@pytest.mark.parametrize("name", ["uniform", "exponential", "tied"])
def test_mean_realised_false_reject_rate_does_not_exceed_the_promise(name, n, rate):
    draws = {
        "uniform": (lambda g, n: g.random(n), lambda v: 1 - v),
        "exponential": (lambda g, n: g.exponential(size=n), lambda v: math.exp(-v)),
        "tied": (lambda g, n: g.integers(1, 41, n), lambda v: 1 - v / 40),
    }
    thresholds, realised = _realised_rates(*draws[name], n, rate, repeats=3000, seed=7)
    promise = rate if is_attained(thresholds[0]) else thresholds[0].attainable_rate
    standard_error = realised.std(ddof=1) / math.sqrt(realised.size)
    assert realised.mean() <= promise + 4 * standard_error
    if name != "tied":  # continuous scores: the rate is exactly (n + 1 - k)/(n + 1)
        exact = (n + 1 - min(n, conformal_rank(n, rate))) / (n + 1)
        assert abs(realised.mean() - exact) <= 4 * standard_error


@pytest.mark.parametrize(("n", "rate"), [(20, 0.01), (99, 0.05)])
def test_the_stated_interval_covers_the_realised_rate(n, rate):
    thresholds, realised = _realised_rates(
        lambda g, n: g.random(n), lambda v: 1 - v, n, rate, repeats=3000, seed=11
    )
    interval = realised_rate_interval(thresholds[0], 0.95)
    covered = np.mean((realised >= interval.low) & (realised <= interval.high))
    assert abs(covered - 0.95) <= 4 * math.sqrt(0.95 * 0.05 / 3000)


@given(finite_scores, rates, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_the_images_does_not_matter(scores, rate, random):
    shuffled = list(scores)
    random.shuffle(shuffled)
    assert conformal_threshold(scores, rate) == conformal_threshold(shuffled, rate)


@settings(max_examples=60)
@given(st.lists(st.floats(0, 5), min_size=19, max_size=80), st.sampled_from([0.05, 0.1, 0.25]))
def test_the_escape_limit_lets_at_most_its_share_of_ranks_pass(defects, rate):
    limit = escape_limit(defects, rate)
    escaped = sum(score <= limit for score in defects)
    assert escaped <= math.floor(rate * (len(defects) + 1) + 1e-9) - 1
    # One step up, and the bound would no longer hold.
    higher = math.nextafter(limit, math.inf)
    assert sum(score <= higher for score in defects) >= math.floor(rate * (len(defects) + 1) + 1e-9)


def test_the_escape_rate_of_new_defects_keeps_its_bound_on_average():
    generator = np.random.default_rng(4)
    rates = []
    for _ in range(400):
        limit = escape_limit(generator.gamma(3.0, 1.0, 39), 0.1)
        rates.append(np.mean(generator.gamma(3.0, 1.0, 500) <= limit))
    # Without ties the mean is k/(m + 1) = 0.1 exactly; 400 draws of Beta(4, 36) give it to 0.0024.
    assert np.mean(rates) == pytest.approx(0.1, abs=0.008)


def test_too_few_defects_cannot_bound_an_escape_rate():
    with pytest.raises(CalibrationError, match="18 labelled defects cannot bound"):
        escape_limit([1.0] * 18, 0.05)
