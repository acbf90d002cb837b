"""Parts that wait, by camera, and which of them are judged together.

A batch holds parts of one plan. The camera that was served longest ago begins it, then one part of
each camera in turn: a camera that is faster than the others makes only itself wait. Parts of one
camera keep their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .records import Frame

_MANY = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A frame that was admitted, and when (monotonic ns)."""

    frame: Frame
    admitted_mono_ns: int


@dataclass(frozen=True, slots=True)
class Seat:
    """Where the parts of one camera are judged."""

    plan: str = ""
    batch: int = _MANY
    """How many of them at once at most."""
    full: int = 1
    """With how many it is useless to wait for more."""


SeatOf = Callable[[str], Seat]


class WaitingParts:
    """Without a lock: the admission has one."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[tuple[int, Ticket]]] = {}
        """By camera, in turn: the one served longest ago first. Each part with the instant since
        when its place is taken (monotonic ns)."""
        self.count = 0

    def waiting(self, camera: str) -> int:
        line = self._lines.get(camera)
        return 0 if line is None else len(line)

    def append(self, ticket: Ticket) -> None:
        """Behind the parts of its camera."""
        line = self._lines.setdefault(ticket.frame.camera, deque())
        line.append((ticket.admitted_mono_ns, ticket))
        self.count += 1

    def replace(self, ticket: Ticket) -> bool:
        """In place of the newest part of its camera; True when there was one."""
        line = self._lines.get(ticket.frame.camera)
        if not line:
            self.append(ticket)
            return False
        # The place is kept since the first frame came, so that a fast camera starves none.
        line[-1] = (line[-1][0], ticket)
        return True

    def due(self, seat_of: SeatOf, room: int, wait_ns: int, now_ns: int) -> str | int | None:
        """The camera that begins a batch now; or in how many ns there will be one; None: never.

        A batch is due when it is full (`room` counts as full), or its first part has waited
        `wait_ns`.
        """
        plans: set[str] = set()
        oldest_ns: int | None = None
        for camera, line in self._lines.items():
            if not line:
                continue
            if wait_ns <= 0:
                return camera
            seat = seat_of(camera)
            if seat.plan in plans:
                continue
            plans.add(seat.plan)
            lines = [one for name, one in self._lines.items() if seat_of(name).plan == seat.plan]
            since_ns = min(one[0][0] for one in lines if one)
            full = sum(map(len, lines)) >= min(seat.full, seat.batch, room)
            if full or now_ns - since_ns >= wait_ns:
                return camera
            oldest_ns = since_ns if oldest_ns is None else min(oldest_ns, since_ns)
        return None if oldest_ns is None else oldest_ns + wait_ns - now_ns

    def take(self, first: str, seat_of: SeatOf, room: int) -> list[Ticket]:
        """Up to `room` parts that are judged with the first one of camera `first`."""
        seat = seat_of(first)
        most, taken = min(seat.batch, room), [self._serve(first)]
        while len(taken) < most and self.count:
            names = [n for n, line in self._lines.items() if line and seat_of(n).plan == seat.plan]
            if not names:
                break
            # One of each in turn, in the order in which they were served.
            taken += [self._serve(name) for name in names[: most - len(taken)]]
        return taken

    def _serve(self, camera: str) -> Ticket:
        """Its first part; its next turn comes after everybody else's."""
        line = self._lines[camera] = self._lines.pop(camera)
        self.count -= 1
        return line.popleft()[1]

    def clear(self) -> list[Ticket]:
        """Take all, oldest first."""
        tickets = [ticket for line in self._lines.values() for _, ticket in line]
        for line in self._lines.values():
            line.clear()
        self.count = 0
        return sorted(tickets, key=lambda ticket: ticket.admitted_mono_ns)
