"""The one place where parts wait, and the two promises that can be made about them.

`every`  (triggered cameras, files): a bounded queue; a full one makes the camera wait. Every
         admitted part gets exactly one result. A triggered part is admitted when it is triggered
         (`announce`) and its frame follows (`deliver`): it is accounted for from then on.
`latest` (free-running cameras): one slot per camera, the newest frame wins; what it displaces is
         counted by stage and cause.

In both, admitted = results + dropped + waiting + in_flight, readable at any instant.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from .clock import SYSTEM_CLOCK, Clock
from .health import Balance
from .records import Announced, Frame, frame_without_image

Mode = Literal["every", "latest"]
SUPERSEDED = "admission:superseded"


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A frame that was admitted, and when (monotonic ns)."""

    frame: Frame
    admitted_mono_ns: int


class Entrance(Protocol):
    """What a camera sees: an admission, or a door before it (trigger_door.py)."""

    @property
    def closed(self) -> bool:
        """True when nothing that is still grabbed could enter."""

    def admit(self, frame: Frame, timeout_s: float | None = 0.0) -> bool:
        """Hand in a frame; False: not taken, try again."""


class Admission:
    """Capture threads `admit`, the infer thread `take`s, the publish thread `settle`s.

    `depth` bounds what waits in `every` mode; `in_flight_limit` bounds what was taken and has no
    result yet, so that memory is bounded however slow the publisher is. After `part_limit` parts
    it closes by itself. `on_admitted` is called for every admitted part, in the thread that admits
    it and before anybody can take it; it must return in microseconds and not call back.
    """

    def __init__(
        self,
        mode: Mode,
        depth: int = 2,
        in_flight_limit: int = 64,
        part_limit: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_admitted: Callable[[Announced], None] = lambda part: None,
    ) -> None:
        if depth < 1 or in_flight_limit < 1:
            raise ValueError("depth and in_flight_limit are at least 1")
        self.mode: Mode = mode
        self._depth = depth
        self._in_flight_limit = in_flight_limit
        self._part_limit = part_limit
        self._clock = clock
        self._on_admitted = on_admitted
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._work = threading.Condition(self._lock)
        self._queue: deque[Ticket] = deque()
        self._slots: dict[str, Ticket] = {}
        self._announced: dict[tuple[str, int], Announced] = {}
        self._under_way: dict[str, int] = {}
        self._closed = False
        self._takers_waiting = 0
        self._admitted = 0
        self._results = 0
        self._in_flight: dict[int, Ticket] = {}
        self._dropped: dict[str, int] = {}
        self._dropped_total = 0

    def admit(self, frame: Frame, timeout_s: float | None = 0.0) -> bool:
        """Take responsibility for one part. False: not admitted (full until timeout, or closed).

        A part that is refused was never admitted and is not in the balance; in `every` mode the
        caller keeps it and tries again. `timeout_s` None waits until there is room or `close`.
        """
        with self._lock:
            if self.mode == "every":
                if not self._room.wait_for(self._has_room, timeout_s) or self._closed:
                    return False
                self._queue.append(Ticket(frame, self._clock.mono_ns()))
            else:
                if self._closed:
                    return False
                if frame.camera in self._slots:
                    self._under_way[frame.camera] -= 1
                    self._count_drop(SUPERSEDED)
                # Assigning keeps a waiting camera's place in the order, so none is starved.
                self._slots[frame.camera] = Ticket(frame, self._clock.mono_ns())
            # Under the lock, so that nobody can take the part before it was announced.
            self._count_admitted(frame.announced())
            self._work.notify()
            return True

    def announce(self, part: Announced, limit: int) -> bool:
        """Take responsibility for a part whose frame is still to come; `deliver` must follow.

        False: not admitted, because `limit` parts of this camera have no result yet, or closed.
        Never waits. `every` mode only.
        """
        if self.mode != "every":
            raise ValueError("only in `every` mode can a part be admitted before its frame")
        with self._lock:
            if self._closed or self._under_way.get(part.camera, 0) >= limit:
                return False
            self._announced[part.camera, part.camera_seq] = part
            self._count_admitted(part)
            return True

    def deliver(self, frame: Frame) -> None:
        """The frame of an announced part, or a frame without an image that says why there is none.

        Never waits: its place was kept. Parts of one camera are taken in the order of delivery.
        """
        with self._lock:
            if self._announced.pop((frame.camera, frame.camera_seq), None) is None:
                raise RuntimeError("a part was delivered twice, or was never announced")
            self._queue.append(Ticket(frame, self._clock.mono_ns()))
            self._work.notify()

    def take(self, limit: int = 1, timeout_s: float | None = 0.0) -> list[Ticket] | None:
        """Up to `limit` waiting parts, oldest first; [] when none came; None when closed and empty.

        Never waits for a batch to fill: what is there is taken.
        """
        with self._lock:
            self._takers_waiting += 1
            self._work.wait_for(self._may_take, timeout_s)
            self._takers_waiting -= 1
            if self._closed and not (self._queue or self._slots or self._announced):
                return None
            room = self._in_flight_limit - len(self._in_flight)
            tickets: list[Ticket] = []
            while len(tickets) < min(limit, room):
                if self._queue:
                    tickets.append(self._queue.popleft())
                elif self._slots:
                    tickets.append(self._slots.pop(next(iter(self._slots))))
                else:
                    break
            self._in_flight.update((id(ticket), ticket) for ticket in tickets)
            if tickets:
                self._room.notify(len(tickets))
            return tickets

    def settle(self, ticket: Ticket) -> None:
        """One taken part has its result."""
        with self._lock:
            self._end_flight(ticket)
            self._results += 1

    def drop_taken(self, ticket: Ticket, cause: str) -> None:
        """One taken part is given up without a result. `latest` only: `every` never drops."""
        if self.mode == "every":
            raise ValueError("in `every` mode each admitted part gets a result")
        with self._lock:
            self._end_flight(ticket)
            self._count_drop(cause)

    def close(self) -> None:
        """Admit nothing more and wake everybody; what waits can still be taken."""
        with self._lock:
            self._close()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def ended(self) -> bool:
        """Closed, and no announced part still waits for its frame."""
        return self._closed and not self._announced

    def unsettled(self) -> list[Ticket]:
        """Every admitted part without a result, oldest first; all count as in flight from now on.

        For the end of a line whose infer thread hangs: each of these still gets its `err`.
        """
        with self._lock:
            self._close()
            now_ns = self._clock.mono_ns()
            without = [frame_without_image(part, "stopped") for part in self._announced.values()]
            waiting = [*self._queue, *self._slots.values()]
            waiting += [Ticket(frame, now_ns) for frame in without]
            self._queue.clear()
            self._slots.clear()
            self._announced.clear()
            self._in_flight.update((id(ticket), ticket) for ticket in waiting)
            return list(self._in_flight.values())

    def balance(self) -> Balance:
        with self._lock:
            return Balance(
                admitted=self._admitted,
                results=self._results,
                dropped=dict(self._dropped),
                waiting=len(self._queue) + len(self._slots) + len(self._announced),
                in_flight=len(self._in_flight),
            )

    @property
    def dropped_total(self) -> int:
        """How many parts were dropped so far; read without the lock, an int is never torn."""
        return self._dropped_total

    def may_prepare(self, camera: str) -> bool:
        """Whether a frame of `camera` is better prepared before it is admitted: the infer thread
        is busy, and the frame will not just replace one that waits. A hint, read without the lock.
        """
        return not self._takers_waiting and (self.mode == "every" or camera not in self._slots)

    def _has_room(self) -> bool:
        return self._closed or len(self._queue) < self._depth

    def _may_take(self) -> bool:
        if not self._queue and not self._slots:
            return self._closed and not self._announced
        return len(self._in_flight) < self._in_flight_limit

    def _end_flight(self, ticket: Ticket) -> None:
        if self._in_flight.pop(id(ticket), None) is None:
            raise RuntimeError("a part was settled twice, or was never taken")
        self._under_way[ticket.frame.camera] -= 1
        if len(self._in_flight) == self._in_flight_limit - 1:
            self._work.notify()

    def _count_admitted(self, part: Announced) -> None:
        self._admitted += 1
        self._under_way[part.camera] = self._under_way.get(part.camera, 0) + 1
        self._on_admitted(part)
        if self._admitted == self._part_limit:
            self._close()

    def _close(self) -> None:
        self._closed = True
        self._room.notify_all()
        self._work.notify_all()

    def _count_drop(self, cause: str) -> None:
        self._dropped[cause] = self._dropped.get(cause, 0) + 1
        self._dropped_total += 1
