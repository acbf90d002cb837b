"""What a line is told, and what it says when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .admission import Mode
from .decide import OnLate
from .health import Balance, Quantiles


@dataclass(frozen=True, slots=True)
class LineSettings:
    """What the operator chose. Times in seconds; `deadline_ms` from capture to the socket."""

    mode: Mode = "every"
    depth: int = 2
    """How many parts of each camera may wait in mode `every`."""
    batch_wait_ms: float = 0.0
    """How long a part may wait for others that are judged together with it."""
    part_limit: int | None = None
    deadline_ms: float | None = None
    on_late: OnLate = "err"
    wait_subscribers: int = 0
    wait_timeout_s: float = 30.0
    engine_limit_s: float = 30.0
    """An inference that takes longer hangs: the line ends, for its supervisor to start it anew."""


@dataclass(frozen=True, slots=True)
class LineSummary:
    """What happened, once it is over."""

    verdicts: dict[str, int]
    balance: Balance
    latency: dict[str, Quantiles]
    seconds: float
    """From the first capture being allowed to the last result."""
    ended_by: Literal["end of stream", "part limit", "stop"]

    @property
    def parts(self) -> int:
        return self.balance.results
