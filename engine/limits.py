"""What this machine can do at most, measured: matrix products and memory copies.

A latency means little alone; against these two limits it says how much is left to gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SGEMM_SIDE = 2048
COPY_BYTES = 1 << 27
MIN_REPEATS = 5
SETTLE_S = 0.2
"""OpenBLAS keeps its threads awake for some tens of milliseconds after a product."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine reached at most; the better of two measurements where there are two."""

    sgemm_gflops: float
    copy_gbytes_per_s: float

    def or_better(self, other: Limits) -> Limits:
        """The larger value of each: a busy moment makes a limit look lower than it is."""
        return Limits(
            max(self.sgemm_gflops, other.sgemm_gflops),
            max(self.copy_gbytes_per_s, other.copy_gbytes_per_s),
        )


def measure_limits() -> Limits:
    """Both limits, about 2.5 s, and a pause until the BLAS threads have stopped spinning."""
    found = Limits(sgemm_gflops(), copy_gbytes_per_s())
    time.sleep(SETTLE_S)
    return found


def sgemm_gflops(seconds: float = 1.5) -> float:
    """Median rate of float32 SGEMM, 2048 x 2048 x 2048, in GFLOP/s (numpy's BLAS, its threads)."""
    random = np.random.default_rng(0)
    a = random.random((SGEMM_SIDE, SGEMM_SIDE), np.float32)
    b = random.random((SGEMM_SIDE, SGEMM_SIDE), np.float32)
    out = np.empty_like(a)
    return 2.0 * SGEMM_SIDE**3 / _median_s(lambda: np.matmul(a, b, out=out), seconds) / 1e9


def copy_gbytes_per_s(seconds: float = 1.0) -> float:
    """Median rate of copying 128 MiB, counting bytes read and written, in GB/s (one thread)."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    return 2.0 * COPY_BYTES / _median_s(lambda: np.copyto(target, source), seconds) / 1e9


def _median_s(work: Callable[[], object], seconds: float) -> float:
    work()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < MIN_REPEATS or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return float(np.median(samples))
