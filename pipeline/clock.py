"""The two clocks of the line, injected so that tests turn them by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time names an instant for other hosts; monotonic time measures on this one.

    Wall time may step, so no duration or deadline is ever computed from it.
    """

    wall_ns: Callable[[], int] = time.time_ns
    mono_ns: Callable[[], int] = time.monotonic_ns


SYSTEM_CLOCK = Clock()
