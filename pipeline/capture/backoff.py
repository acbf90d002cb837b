"""How long to wait before a camera is opened again."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Exponential from `first_s` to `limit_s`, each wait shortened at random by up to half.

    The jitter keeps several cameras on one switch from coming back in step. A camera that ran for
    `healthy_s` starts again at `first_s`; one that fails at once keeps its place, so a camera that
    opens and dies in a loop never makes a busy one. The limit is what keeps the promise that good
    results are back ten seconds after a camera is.
    """

    def __init__(
        self,
        first_s: float = 0.25,
        limit_s: float = 5.0,
        healthy_s: float = 30.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first_s, self._limit_s, self._healthy_s = first_s, limit_s, healthy_s
        self._jitter = jitter
        self._next_s = first_s

    def wait_s(self, ran_s: float) -> float:
        """Seconds to wait now, after the camera had run for `ran_s`."""
        if ran_s >= self._healthy_s:
            self._next_s = self._first_s
        wait_s = self._next_s * (1 - 0.5 * self._jitter())
        self._next_s = min(2 * self._next_s, self._limit_s)
        return wait_s
