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
        """By camera; each with the instant since when its place is taken (monotonic ns)."""
        self._served: dict[str, int] = {}
        """Camera -> when it last had a part taken, in parts taken before."""
        self._taken = 0
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
        for camera in self._in_turn():
            seat = seat_of(camera)
            if seat.plan in plans:
                continue
            plans.add(seat.plan)
            lines = [line for name, line in self._lines.items() if seat_of(name).plan == seat.plan]
            since_ns = min(line[0][0] for line in lines if line)
            full = sum(map(len, lines)) >= min(seat.full, seat.batch, room)
            if full or now_ns - since_ns >= wait_ns:
                return camera
            oldest_ns = since_ns if oldest_ns is None else min(oldest_ns, since_ns)
        return None if oldest_ns is None else oldest_ns + wait_ns - now_ns

    def take(self, first: str, seat_of: SeatOf, room: int) -> list[Ticket]:
        """Up to `room` parts that are judged with the first one of camera `first`."""
        seat = seat_of(first)
        others = [
            name for name in self._in_turn() if name != first and seat_of(name).plan == seat.plan
        ]
        turn, taken = deque([first, *others]), list[Ticket]()
        while turn and len(taken) < min(seat.batch, room):
            line = self._lines[name := turn.popleft()]
            taken.append(line.popleft()[1])
            self._taken += 1
            self._served[name] = self._taken
            if line:
                turn.append(name)
        self.count -= len(taken)
        return taken

    def clear(self) -> list[Ticket]:
        """Take all, oldest first."""
        tickets = [ticket for line in self._lines.values() for _, ticket in line]
        self._lines.clear()
        self.count = 0
        return sorted(tickets, key=lambda ticket: ticket.admitted_mono_ns)

    def _in_turn(self) -> list[str]:
        """The cameras that wait, the one served longest ago first."""
        waiting = (name for name, line in self._lines.items() if line)
        return sorted(
            waiting, key=lambda name: (self._served.get(name, 0), self._lines[name][0][0])
        )
