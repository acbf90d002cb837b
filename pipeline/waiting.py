"""Parts that wait, by camera, and which of them are judged together.

A batch holds parts of one plan. The camera whose part has waited longest begins it, then one part
of each camera in turn: a camera that is faster than the others makes only itself wait. Parts of one
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
        heads = self._heads()
        if not heads:
            return None
        plans: set[str] = set()
        for since_ns, camera in heads:
            seat = seat_of(camera)
            if seat.plan not in plans:
                plans.add(seat.plan)
                enough = min(seat.full, seat.batch, room)
                if now_ns - since_ns >= wait_ns or self._of_plan(seat, seat_of) >= enough:
                    return camera
        return heads[0][0] + wait_ns - now_ns

    def take(self, first: str, seat_of: SeatOf, room: int) -> list[Ticket]:
        """Up to `room` parts that are judged with the oldest one of camera `first`."""
        seat = seat_of(first)
        others = [
            name for _, name in self._heads() if name != first and seat_of(name).plan == seat.plan
        ]
        turn, taken = deque([first, *others]), list[Ticket]()
        while turn and len(taken) < min(seat.batch, room):
            line = self._lines[name := turn.popleft()]
            taken.append(line.popleft()[1])
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

    def _heads(self) -> list[tuple[int, str]]:
        """(waiting since, camera) of the first part of each camera, oldest first."""
        return sorted((line[0][0], name) for name, line in self._lines.items() if line)

    def _of_plan(self, seat: Seat, seat_of: SeatOf) -> int:
        return sum(
            len(line) for name, line in self._lines.items() if seat_of(name).plan == seat.plan
        )
