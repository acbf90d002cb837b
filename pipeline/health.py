"""How the line is doing: latency histograms per stage and where every part is.

Averages hide the one late part in a hundred, which is the one that passes the gate. So latencies
are kept in logarithmic buckets: constant memory, any quantile, less than 1.6 % error.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from . import wire_messages as wire
from .records import Latency

_LINEAR = 128
"""Values below this have a bucket each."""
_SUB_BITS = 6
"""Above, every power of two is split into 2**6 buckets: a relative width of 1/64."""
_MAX_VALUE = 2**40
_BUCKETS = ((_MAX_VALUE.bit_length() - (_SUB_BITS + 1)) << _SUB_BITS) + (2 << _SUB_BITS)
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


class LatencyHistogram:
    """Counts of non-negative integer microseconds; exact count, sum and maximum.

    Adding is one step in a flat array of 18 KB; quantiles are found by numpy, because they are
    asked for in the publish thread, between two parts.
    """

    def __init__(self) -> None:
        self._counts = array("q", bytes(8 * _BUCKETS))
        self.count = 0
        self.sum_us = 0
        self.max_us = 0

    def add(self, value_us: int) -> None:
        self._counts[_bucket(value_us)] += 1
        self.count += 1
        self.sum_us += value_us
        if value_us > self.max_us:
            self.max_us = value_us

    def merge(self, other: LatencyHistogram) -> None:
        """Count what `other` has counted, too."""
        mine = np.frombuffer(self._counts, np.int64)
        mine += np.frombuffer(other._counts, np.int64)
        self.count += other.count
        self.sum_us += other.sum_us
        self.max_us = max(self.max_us, other.max_us)

    def quantiles(self, fractions: Sequence[float]) -> list[int]:
        """For each fraction the edge of the bucket that holds the value of that rank.

        The edge is at or up to 1/64 above the value, and never above the maximum. 0 when empty.
        """
        if not self.count:
            return [0] * len(fractions)
        up_to = np.frombuffer(self._counts, np.int64).cumsum()
        buckets = np.searchsorted(up_to, [fraction * self.count for fraction in fractions])
        return [min(_upper_edge(int(bucket)), self.max_us) for bucket in buckets]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """One stage's latency in microseconds."""

    count: int
    p50_us: int
    p90_us: int
    p99_us: int
    max_us: int
    sum_us: int = 0


class StageLatencies:
    """One histogram for every field of `Latency`. Used by one thread."""

    def __init__(self) -> None:
        self._histograms = {stage: LatencyHistogram() for stage in STAGES}
        self._pairs = tuple(
            (f"{stage}_us", histogram) for stage, histogram in self._histograms.items()
        )

    def add(self, latency: Latency) -> None:
        for name, histogram in self._pairs:
            histogram.add(getattr(latency, name))

    def merge(self, other: StageLatencies) -> None:
        for stage, histogram in self._histograms.items():
            histogram.merge(other._histograms[stage])

    def quantiles(self) -> dict[str, Quantiles]:
        return {stage: _quantiles(histogram) for stage, histogram in self._histograms.items()}


def _quantiles(histogram: LatencyHistogram) -> Quantiles:
    p50, p90, p99 = histogram.quantiles((0.50, 0.90, 0.99))
    return Quantiles(histogram.count, p50, p90, p99, histogram.max_us, histogram.sum_us)


class CameraLatencies:
    """Latencies per stage, of each camera and of all together."""

    def __init__(self) -> None:
        self._cameras: dict[str, StageLatencies] = {}

    def add(self, camera: str, latency: Latency) -> None:
        stages = self._cameras.get(camera)
        if stages is None:
            # A new dictionary: another thread may be walking over the old one.
            stages = StageLatencies()
            self._cameras = {**self._cameras, camera: stages}
        stages.add(latency)

    def quantiles(self) -> dict[str, Quantiles]:
        """Of all cameras together."""
        together = StageLatencies()
        for stages in self._cameras.values():
            together.merge(stages)
        return together.quantiles()

    def fields(self) -> dict[str, dict[str, wire.QuantileFields]]:
        """Of each camera, as the heartbeat carries it."""
        return {
            camera: {stage: quantile_fields(value) for stage, value in stages.quantiles().items()}
            for camera, stages in self._cameras.items()
        }


def quantile_fields(value: Quantiles) -> wire.QuantileFields:
    """As the heartbeat carries it."""
    return wire.QuantileFields(
        n=value.count,
        p50=value.p50_us,
        p90=value.p90_us,
        p99=value.p99_us,
        max=value.max_us,
        sum=value.sum_us,
    )


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


def health_fields(
    *,
    ready: bool,
    uptime_s: float,
    cameras: Mapping[str, wire.CameraFields],
    latency: Mapping[str, Quantiles],
    balance: Balance,
    backend: str,
    stalled: Sequence[str] = (),
) -> wire.HealthFields:
    """What the heartbeat says about the line."""
    return wire.HealthFields(
        ready=ready,
        uptime_s=uptime_s,
        cams=dict(cameras),
        lat_us={stage: quantile_fields(value) for stage, value in latency.items()},
        drops=balance.dropped,
        balance=wire.BalanceFields(
            admitted=balance.admitted,
            results=balance.results,
            dropped=balance.dropped_total,
            pending=balance.pending,
        ),
        backend=backend,
        stalled=tuple(stalled),
    )
