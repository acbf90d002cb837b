"""`test:trigger=true` - rendered parts that are taken when somebody triggers, as a camera does it.

With it a whole station can be tried without a camera: orders, pairing, the reject gate, and what
happens to a part whose picture is lost.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from ..clock import SYSTEM_CLOCK, Clock
from ..records import Part
from .base import EndOfStream, Shot, Source
from .pattern import PatternSource


@dataclass(frozen=True, slots=True)
class _Order:
    number: int
    part_id: str | None
    taken_ns: int
    taken_mono_ns: int
    due_mono_ns: int


class TriggeredPattern:
    """A `Triggered` source: `lose` is the share of pictures that are lost between camera and box,
    `delay_ms` how long a picture takes from its trigger to the box; after `count` it ends.
    """

    live = False

    def __init__(
        self,
        pattern: PatternSource,
        clock: Clock = SYSTEM_CLOCK,
        seed: int = 1,
        lose: float = 0.0,
        delay_ms: float = 5.0,
        count: int | None = None,
    ) -> None:
        self._pattern, self._clock = pattern, clock
        self._lose, self._delay_ns = lose, round(delay_ms * 1e6)
        self._count = count
        self._random = np.random.default_rng([seed, 7])
        self._arrived = threading.Condition()
        self._orders: deque[_Order] = deque()
        self._number = 0
        self._delivered = 0

    def open(self) -> None:
        self._pattern.open()

    def configure(self) -> None:
        self._pattern.configure()

    def trigger(self, part_id: str | None) -> int:
        with self._arrived:
            self._number += 1
            now_ns = self._clock.mono_ns()
            self._orders.append(
                _Order(
                    self._number, part_id, self._clock.wall_ns(), now_ns, now_ns + self._delay_ns
                )
            )
            self._arrived.notify()
            return self._number

    def grab(self, timeout_s: float) -> Shot | None:
        if self._count is not None and self._delivered >= self._count:
            raise EndOfStream
        deadline_ns = self._clock.mono_ns() + round(timeout_s * 1e9)
        with self._arrived:
            while True:
                now_ns = self._clock.mono_ns()
                due_ns = self._orders[0].due_mono_ns if self._orders else deadline_ns
                if self._orders and due_ns <= now_ns:
                    order = self._orders.popleft()
                    break
                if now_ns >= deadline_ns:
                    return None
                self._arrived.wait((min(due_ns, deadline_ns) - now_ns) / 1e9)
        self._delivered += 1
        shot = self._pattern.grab(0.0)
        assert shot is not None, "a pattern without a rate is never waited for"
        if self._random.random() < self._lose:
            shot = replace(
                shot, pixels=None, failure="no_frame", detail="the picture was lost (lose=)"
            )
        return self._shown(order, shot)

    def unanswered(self) -> list[Shot]:
        with self._arrived:
            orders, self._orders = list(self._orders), deque()
        missing = Shot(
            pixels=None,
            captured_ns=0,
            captured_mono_ns=0,
            captured_source="device",
            failure="no_frame",
            detail="the source was given up before the picture came",
            simulated=True,
        )
        return [self._shown(order, missing) for order in orders]

    def inherit(self, old: Source) -> None:
        assert isinstance(old, TriggeredPattern)
        with old._arrived, self._arrived:
            self._number, self._delivered = old._number, old._delivered
            self._orders, old._orders = old._orders, deque()

    def close(self) -> None:
        self._pattern.close()

    def _shown(self, order: _Order, shot: Shot) -> Shot:
        """The picture of this order."""
        return replace(
            shot,
            captured_ns=order.taken_ns,
            captured_mono_ns=order.taken_mono_ns,
            frame_id=order.number,
            part=Part(order.part_id, order.number, source="camera", match="exact"),
        )
