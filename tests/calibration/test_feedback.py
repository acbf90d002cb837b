"""A proposal from operators' marks: its counts, its guarantee, and when there is none."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.calibration.feedback import (
    MARKED_NG,
    MARKED_OK,
    UNMARKED,
    InspectedParts,
    propose_threshold,
)
from skrd4ad.calibration.intervals import clopper_pearson
from skrd4ad.errors import CalibrationError, ConfigError


def parts(rows):
    score, rejected, mark = zip(*rows, strict=True)
    return InspectedParts(np.array(score), np.array(rejected), np.array(mark, np.uint8))


PASSED = [(0.01 * n, False, UNMARKED) for n in range(1, 51)]


def test_every_kind_of_part_is_counted_where_it_belongs():
    seen = [
        *PASSED,
        (0.60, True, MARKED_OK),  # a false reject that an operator found
        (0.70, True, UNMARKED),  # nobody looked: neither good nor defective
        (0.90, True, MARKED_NG),
        (0.30, False, MARKED_NG),  # an escape that an operator found
    ]
    proposal = propose_threshold(parts(seen), 0.55, 0.05)
    assert (proposal.n_good, proposal.n_good_marked) == (51, 1)
    assert (proposal.n_bad, proposal.n_unseen_rejects) == (2, 1)
    now, proposed, no_escape = proposal.outcomes
    assert (now.false_rejects, now.escapes, now.unseen_rejects) == (1, 1, 1)
    # 51 good parts: rank ceil(52 * 0.95) = 50, the score 0.50.
    assert proposed.threshold == pytest.approx(0.50)
    assert proposed.false_reject_interval == clopper_pearson(1, 51)
    assert no_escape.threshold == math.nextafter(0.30, 0)
    assert no_escape.escapes == 0
    assert no_escape.false_rejects == 22  # 0.30 ... 0.50 of the passed ones, and the marked 0.60
    assert proposal.attained


@settings(max_examples=60)
@given(
    st.lists(st.floats(0, 10), min_size=30, max_size=80),
    st.lists(st.floats(0, 10), max_size=20),
    st.sampled_from([0.01, 0.05, 0.2]),
)
def test_a_higher_threshold_never_rejects_more_or_lets_less_escape(good, bad, rate):
    rows = [(s, False, MARKED_OK) for s in good] + [(s, True, MARKED_NG) for s in bad]
    proposal = propose_threshold(parts(rows), 5.0, rate)
    ordered = sorted(proposal.outcomes, key=lambda row: row.threshold)
    for lower, higher in itertools.pairwise(ordered):
        assert higher.false_rejects <= lower.false_rejects
        assert higher.escapes >= lower.escapes
    assert proposal.proposed.false_rejects <= rate * (len(good) + 1)
    assert proposal.attained == (len(good) >= 1 / rate - 1)


def test_without_marks_or_parts_there_is_no_proposal():
    with pytest.raises(CalibrationError, match="no operator has said anything"):
        propose_threshold(parts(PASSED), 0.5, 0.05)
    few = [*PASSED[:10], (0.9, True, MARKED_NG)]
    with pytest.raises(CalibrationError, match="10 good parts are too few"):
        propose_threshold(parts(few), 0.5, 0.05)
    with pytest.raises(ConfigError, match="false-reject rate"):
        propose_threshold(parts([*PASSED, (0.9, True, MARKED_NG)]), 0.5, 1.5)
    broken = [*PASSED, (math.inf, True, MARKED_OK)]
    with pytest.raises(CalibrationError, match="not finite"):
        propose_threshold(parts(broken), 0.5, 0.05)
