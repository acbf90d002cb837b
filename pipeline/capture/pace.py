"""Delivering stored parts at the rate of a real line."""

from __future__ import annotations

from ..clock import SYSTEM_CLOCK, Clock


class Pace:
    """Due times on a fixed grid: a late part does not push the later ones back.

    `rate_hz` None means as fast as possible.
    """

    def __init__(self, rate_hz: float | None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._period_ns = 0 if rate_hz is None else round(1e9 / rate_hz)
        self._clock = clock
        self._due_ns = clock.mono_ns()

    def restart(self) -> None:
        self._due_ns = self._clock.mono_ns()

    def wait_s(self) -> float:
        """Seconds until the next part is due; 0 when it is."""
        return max(0, self._due_ns - self._clock.mono_ns()) / 1e9 if self._period_ns else 0.0

    def advance(self) -> None:
        # After a long stall there is no burst to catch up: a belt that stood still stays behind.
        behind_ns = self._clock.mono_ns() - self._due_ns
        steps = max(1, behind_ns // self._period_ns) if self._period_ns else 1
        self._due_ns += steps * self._period_ns
