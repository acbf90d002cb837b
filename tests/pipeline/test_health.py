"""Histograms: any quantile within one bucket, in bounded memory."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.pipeline.health import STAGES, Balance, LatencyHistogram, StageLatencies, health_fields
from skrd4ad.pipeline.records import Latency


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 2**41), min_size=1, max_size=300))
def test_quantiles_are_within_a_64th_of_the_exact_rank(values: list[int]) -> None:
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    fractions = (0.5, 0.9, 0.99, 1.0)
    ordered = sorted(values)
    for fraction, edge in zip(fractions, histogram.quantiles(fractions), strict=True):
        exact = ordered[max(1, math.ceil(fraction * len(values))) - 1]
        if exact < 2**40:
            assert exact <= edge <= exact * (1 + 1 / 64)
    assert histogram.max_us == max(values)
    assert histogram.quantiles((1.0,)) == [max(values)] or max(values) >= 2**40


def test_an_empty_histogram_answers_zero() -> None:
    assert LatencyHistogram().quantiles((0.5, 0.99)) == [0, 0]


def test_memory_is_bounded_by_the_buckets() -> None:
    histogram = LatencyHistogram()
    for value in range(0, 3_000_000, 7):
        histogram.add(value)
    assert len(histogram.buckets) < 1200


def test_every_stage_has_its_histogram_and_reaches_the_heartbeat() -> None:
    latencies = StageLatencies()
    latencies.add(Latency(capture_us=1, queue_us=2, infer_us=100, total_us=120))
    quantiles = latencies.quantiles()
    assert tuple(quantiles) == STAGES
    assert quantiles["infer"].p99_us == 100
    fields = health_fields(
        ready=True,
        uptime_s=1.0,
        cameras={},
        latency=quantiles,
        balance=Balance(admitted=5, results=2, dropped={"admission:superseded": 2}, in_flight=1),
        backend="x",
    )
    assert fields.lat_us["total"].max == 120
    assert fields.balance.holds
    assert fields.drops == {"admission:superseded": 2}


def test_a_lost_part_shows_in_the_balance() -> None:
    assert not Balance(admitted=5, results=4).balanced
