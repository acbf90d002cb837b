"""Axes carry round numbers that a reader can name, and no mark is lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.trainer.charts import Axis, score_histogram, score_strips


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e4))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    ticks = Axis("x", low, low + span).ticks()
    slack = 1e-6 * max(1.0, abs(low), span)
    assert 3 <= len(ticks) <= 7
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    step = ticks[1] - ticks[0]
    leading = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(leading - factor) for factor in (1, 2, 2.5, 5, 10)) < 1e-3


@pytest.mark.parametrize("high", [1, 2, 7, 9, 60, 999])
def test_counts_have_whole_ticks(high: int) -> None:
    ticks = Axis("images", 0, high, whole=True).ticks()
    assert ticks[0] == 0
    assert all(tick == int(tick) for tick in ticks)
    assert len(ticks) == len(set(ticks)) >= 2


@pytest.mark.parametrize(("low", "high"), [(0.1, 5.0), (0.24, 1.6), (1e-4, 10.0), (0.3, 0.9)])
def test_a_logarithmic_axis_has_at_least_three_ticks(low: float, high: float) -> None:
    ticks = Axis("loss", low, high, log=True).ticks()
    assert len(ticks) >= 3
    assert all(low <= tick <= high for tick in ticks)


def test_every_finite_score_is_a_dot_and_the_threshold_a_line() -> None:
    rows = [("good", np.array([0.1, 0.1, 0.2])), ("<bent>", np.array([0.5, np.inf]))]
    chart = score_strips("Scores", rows, 0.3)
    assert chart.count("<circle") == 4
    assert chart.count('class="threshold"') == 1
    assert "&lt;bent&gt; (1)" in chart
    assert 'class="threshold"' not in score_strips("Scores", rows, None)
    assert score_histogram("Scores", rows[0][1], rows[1][1], 0.3).count('class="threshold"') == 1


def test_no_scores_at_all_make_an_empty_chart() -> None:
    assert "<circle" not in score_strips("Scores", [("good", np.array([]))], None)
