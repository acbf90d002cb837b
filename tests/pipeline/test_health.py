"""Histograms: any quantile within one bucket, in bounded memory."""

from __future__ import annotations

import math
import subprocess
import sys
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.pipeline.health import (
    STAGES,
    Balance,
    CameraLatencies,
    LatencyHistogram,
    StageLatencies,
    health_fields,
)
from skrd4ad.pipeline.records import Latency


@settings(max_examples=150)
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


def test_the_largest_and_the_smallest_value_have_a_bucket() -> None:
    histogram = LatencyHistogram()
    for value in (0, 2**40 - 1, 2**40, 2**63):
        histogram.add(value)
    smallest, largest = histogram.quantiles((0.25, 1.0))
    assert smallest == 0
    assert largest >= 2**40


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**41), max_size=60), st.lists(st.integers(0, 2**41), max_size=60))
def test_two_histograms_together_are_one_of_all_values(some: list[int], others: list[int]) -> None:
    one, other, both = LatencyHistogram(), LatencyHistogram(), LatencyHistogram()
    for histogram, values in ((one, some), (other, others), (both, some + others)):
        for value in values:
            histogram.add(value)
    one.merge(other)
    fractions = (0.1, 0.5, 0.99)
    assert one.quantiles(fractions) == both.quantiles(fractions)
    assert (one.count, one.sum_us, one.max_us) == (both.count, both.sum_us, both.max_us)


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


def test_quantiles_of_a_long_run_cost_the_publish_thread_microseconds() -> None:
    latencies = CameraLatencies()
    for number in range(5000):
        latencies.add("a", Latency(*[number * 17 % 90_000] * 7))
    began = time.thread_time()
    for _ in range(20):
        latencies.quantiles()
        latencies.fields()
    assert (time.thread_time() - began) / 20 < 0.005


def test_freed_memory_is_kept_for_the_next_picture() -> None:
    program = (
        "import resource, numpy as np; from skrd4ad.pipeline.interpreter import keep_freed_memory;"
        "kept = keep_freed_memory(); use = lambda: np.empty(8 << 20, np.uint8).fill(1);"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt;"
        "[use() for _ in range(3)]; before = faults(); [use() for _ in range(20)];"
        "print(int(kept), faults() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    kept, faults = map(int, done.stdout.split())
    # 20 times 8 MB are 40,960 pages.
    assert faults < 2000 or not kept
