"""Exact binomial and beta intervals for rates, by bisection on the binomial tail.

The edge runtime has no scipy, and with whole-number parameters none is needed: for integers a, b
the beta distribution function is a binomial tail, I_x(a, b) = P(Binomial(a + b - 1, x) >= a).
"""

from __future__ import annotations

import math
from typing import NamedTuple

_BISECTIONS = 100
"""Halvings of [0, 1]: far below the resolution of a double, and still microseconds."""


class Interval(NamedTuple):
    """A two-sided interval of a rate, both ends in [0, 1]."""

    low: float
    high: float


def binomial_tail(successes: int, trials: int, rate: float) -> float:
    """P(Binomial(trials, rate) >= successes), summed exactly in logarithms.

    Sums the shorter side, so that the error stays near 1e-12 for thousands of trials.
    """
    if successes <= 0:
        return 1.0
    if successes > trials or rate <= 0.0:
        return 0.0
    if rate >= 1.0:
        return 1.0
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    log_total = math.lgamma(trials + 1)

    def mass(count: int) -> float:
        log_ways = log_total - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
        return math.exp(log_ways + count * log_rate + (trials - count) * log_rest)

    if successes > trials * rate:
        return min(1.0, math.fsum(mass(count) for count in range(successes, trials + 1)))
    return max(0.0, 1.0 - math.fsum(mass(count) for count in range(successes)))


def beta_quantile(probability: float, a: int, b: int) -> float:
    """x with P(Beta(a, b) <= x) = probability, for integers a, b >= 0.

    a = 0 is the point mass at 0 and b = 0 the point mass at 1 (the limits of the family).
    """
    assert 0.0 <= probability <= 1.0
    assert min(a, b) >= 0 < a + b
    if a == 0:
        return 0.0
    if b == 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if binomial_tail(a, a + b - 1, middle) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The exact interval of a rate observed as `successes` of `trials` (Clopper and Pearson 1934).

    Covers the true rate with at least `confidence`. No trials say nothing: (0, 1).
    """
    assert 0 <= successes <= trials
    if trials == 0:
        return Interval(0.0, 1.0)
    tail = (1.0 - confidence) / 2
    low = beta_quantile(tail, successes, trials - successes + 1) if successes else 0.0
    high = (
        beta_quantile(1.0 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    )
    return Interval(low, high)
