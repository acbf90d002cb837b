"""How the line is doing: latency histograms per stage and the snapshot every heartbeat carries.

Averages hide the one late part in a hundred, which is the one that passes the gate. So latencies
are kept in logarithmic buckets: constant memory, any quantile, less than 1.6 % error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from .records import Latency

_LINEAR = 128
"""Values below this have a bucket each."""
_SUB_BITS = 6
"""Above, every power of two is split into 2**6 buckets: a relative width of 1/64."""
_MAX_VALUE = 2**40
STAGES = tuple(spec.name.removesuffix("_us") for spec in fields(Latency))
"""capture, queue, preprocess, infer, decide, publish, total."""


def _bucket(value: int) -> int:
    if value < _LINEAR:
        return max(value, 0)
    shift = min(value, _MAX_VALUE).bit_length() - (_SUB_BITS + 1)
    return (shift << _SUB_BITS) + (min(value, _MAX_VALUE) >> shift)


def _upper_edge(bucket: int) -> int:
    """The largest value that falls into `bucket`."""
    if bucket < _LINEAR:
        return bucket
    shift = (bucket >> _SUB_BITS) - 1
    mantissa = bucket - (shift << _SUB_BITS)
    return ((mantissa + 1) << shift) - 1


_BUCKETS = _bucket(_MAX_VALUE) + 1


class LatencyHistogram:
    """Counts of non-negative integer microseconds; exact count, sum and maximum."""

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.count = 0
        self.total_us = 0
        self.max_us = 0

    def add(self, value_us: int) -> None:
        self.counts[_bucket(value_us)] += 1
        self.count += 1
        self.total_us += value_us
        if value_us > self.max_us:
            self.max_us = value_us

    def quantile(self, fraction: float) -> int:
        """The smallest bucket edge with at least `fraction` of the values at or below it.

        0 when nothing was added; never above the recorded maximum.
        """
        if not self.count:
            return 0
        wanted = max(1, int(-(-fraction * self.count // 1)))
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if seen >= wanted:
                return min(_upper_edge(bucket), self.max_us)
        return self.max_us


@dataclass(frozen=True, slots=True)
class Quantiles:
    """One stage's latency in microseconds."""

    count: int
    p50_us: int
    p90_us: int
    p99_us: int
    max_us: int


class StageLatencies:
    """One histogram for every field of `Latency`."""

    def __init__(self) -> None:
        self._histograms = {stage: LatencyHistogram() for stage in STAGES}
        self._pairs = tuple(
            (f"{stage}_us", histogram) for stage, histogram in self._histograms.items()
        )

    def add(self, latency: Latency) -> None:
        for name, histogram in self._pairs:
            histogram.add(getattr(latency, name))

    def quantiles(self, stages: Iterable[str] = STAGES) -> dict[str, Quantiles]:
        return {
            stage: Quantiles(
                count=(h := self._histograms[stage]).count,
                p50_us=h.quantile(0.50),
                p90_us=h.quantile(0.90),
                p99_us=h.quantile(0.99),
                max_us=h.max_us,
            )
            for stage in stages
        }


@dataclass(frozen=True, slots=True)
class Balance:
    """Where every admitted part is. `balanced` must hold at any instant it is read.

    `waiting` and `in_flight` are counted where the parts lie, not computed from the others, so
    that a lost part shows.
    """

    admitted: int = 0
    results: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """"stage:cause" -> count, for example "admission:superseded"."""
    waiting: int = 0
    in_flight: int = 0

    @property
    def pending(self) -> int:
        return self.waiting + self.in_flight

    @property
    def dropped_total(self) -> int:
        return sum(self.dropped.values())

    @property
    def balanced(self) -> bool:
        return self.admitted == self.results + self.dropped_total + self.pending


@dataclass(frozen=True, slots=True)
class CameraHealth:
    """One camera as the heartbeat shows it."""

    state: str
    """"starting", "running", "idle", "reopening", "ended", "failed" or "stopped"."""
    admitted: int
    reconnects: int
    last_age_ms: int | None
    """Milliseconds since the last frame; None before the first one."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """What a heartbeat says about the line (the publisher adds box, boot, seq and time)."""

    state: str
    """"starting", "running", "draining" or "stopped"."""
    ready: bool
    uptime_s: float
    cameras: dict[str, CameraHealth]
    balance: Balance
    latency: dict[str, Quantiles]
    verdicts: dict[str, int]
    backend: str
    plan: str
    """Digest of the plan in use."""
