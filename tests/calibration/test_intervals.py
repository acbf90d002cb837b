"""The exact intervals agree with an independent implementation and with known values."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.calibration.intervals import beta_quantile, binomial_tail, clopper_pearson

scipy_stats = pytest.importorskip("scipy.stats")


@given(st.integers(1, 400), st.data(), st.floats(0.001, 0.999))
@settings(max_examples=60)
def test_binomial_tail_matches_scipy(trials, data, rate):
    successes = data.draw(st.integers(0, trials + 1))
    expected = scipy_stats.binom.sf(successes - 1, trials, rate)
    assert binomial_tail(successes, trials, rate) == pytest.approx(expected, rel=1e-8, abs=1e-11)


@given(st.floats(0.005, 0.995), st.integers(1, 200), st.integers(1, 200))
@settings(max_examples=60)
def test_beta_quantile_matches_scipy(probability, a, b):
    expected = scipy_stats.beta.ppf(probability, a, b)
    assert beta_quantile(probability, a, b) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_point_masses_at_the_ends():
    assert beta_quantile(0.5, 0, 3) == 0.0
    assert beta_quantile(0.5, 3, 0) == 1.0


def test_clopper_pearson_known_values():
    assert clopper_pearson(0, 10).low == 0.0
    assert clopper_pearson(0, 10).high == pytest.approx(0.30850, abs=1e-5)
    assert clopper_pearson(10, 10).low == pytest.approx(0.69150, abs=1e-5)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    expected = scipy_stats.binomtest(7, 60).proportion_ci(0.95, method="exact")
    assert clopper_pearson(7, 60) == pytest.approx((expected.low, expected.high), abs=1e-9)
