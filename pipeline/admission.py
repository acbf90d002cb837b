"""The one place where parts wait, and the two promises that can be made about them.

`every`  (triggered cameras, files): a bounded queue; a full one makes the camera wait. Every
         admitted part gets exactly one result. A triggered part is admitted when it is triggered
         (`announce`) and its frame follows (`deliver`): it is accounted for from then on.
`latest` (free-running cameras): one slot per camera, the newest frame wins; what it displaces is
         counted by stage and cause.

In both, admitted = results + dropped + waiting + in_flight, readable at any instant.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Literal, Protocol

from .clock import SYSTEM_CLOCK, Clock
from .health import Balance
from .records import Announced, Frame, frame_without_image
from .waiting import Seat, SeatOf, WaitingParts
from .waiting import Ticket as Ticket

Mode = Literal["every", "latest"]
SUPERSEDED = "admission:superseded"


class Entrance(Protocol):
    """What a camera sees: an admission, or a door before it (trigger_door.py)."""

    @property
    def closed(self) -> bool:
        """True when nothing that is still grabbed could enter."""

    def admit(self, frame: Frame, timeout_s: float | None = 0.0) -> bool:
        """Hand in a frame; False: not taken, try again."""


class Admission:
    """Capture threads `admit`, the infer thread `take`s, the publish thread `settle`s.

    `depth` bounds what waits of each camera in `every` mode; `in_flight_limit` bounds what was
    taken and has no result yet, so that memory is bounded however slow the publisher is. After
    `part_limit` parts it closes by itself. `on_admitted` is called for every admitted part, in the
    thread that admits it and before anybody can take it; it returns in microseconds and does not
    call back.
    `seat_of` says which parts may be taken together; a part waits at most `batch_wait_ns` for more.
    """

    def __init__(
        self,
        mode: Mode,
        depth: int = 2,
        in_flight_limit: int = 64,
        part_limit: int | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_admitted: Callable[[Announced], None] = lambda part: None,
        seat_of: SeatOf = lambda camera: Seat(),
        batch_wait_ns: int = 0,
    ) -> None:
        if depth < 1 or in_flight_limit < 1:
            raise ValueError("depth and in_flight_limit are at least 1")
        self.mode: Mode = mode
        self._depth = depth
        self._in_flight_limit = in_flight_limit
        self._part_limit = part_limit
        self._clock = clock
        self._on_admitted = on_admitted
        self._seat_of, self._batch_wait_ns = seat_of, batch_wait_ns
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._work = threading.Condition(self._lock)
        self._waiting = WaitingParts()
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
            if self.mode == "every" and not self._has_room(frame.camera):
                self._room.wait_for(lambda: self._has_room(frame.camera), timeout_s)
            if self._closed or not self._has_room(frame.camera):
                return False
            ticket = Ticket(frame, self._clock.mono_ns())
            if self.mode == "every":
                self._waiting.append(ticket)
            elif self._waiting.replace(ticket):
                self._under_way[frame.camera] -= 1
                self._count_drop(SUPERSEDED)
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
            self._waiting.append(Ticket(frame, self._clock.mono_ns()))
            self._work.notify()

    def take(self, limit: int = 1, timeout_s: float | None = 0.0) -> list[Ticket] | None:
        """Up to `limit` waiting parts of one plan; [] when none came; None when closed and empty.

        The camera that was served longest ago is among them, or a batch of another plan is full.
        """
        with self._lock:
            self._takers_waiting += 1
            first = self._first_of_batch(limit, timeout_s)
            self._takers_waiting -= 1
            if first is None:
                over = self._closed and not (self._waiting.count or self._announced)
                return None if over else []
            tickets = self._waiting.take(first, self._seat_of, min(limit, self._flight_room))
            self._in_flight.update((id(ticket), ticket) for ticket in tickets)
            self._room.notify_all()
            return tickets

    def _first_of_batch(self, limit: int, timeout_s: float | None) -> str | None:
        """The camera whose part begins the next batch; None when the time is up or all is over."""
        until_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not (self._closed and not self._waiting.count and not self._announced):
            wait_s = until_s - time.monotonic()
            room = min(limit, self._flight_room)
            if room > 0:
                # What is left at the end does not wait for parts that cannot come.
                patience_ns = 0 if self._closed else self._batch_wait_ns
                due = self._waiting.due(self._seat_of, room, patience_ns, self._clock.mono_ns())
                if isinstance(due, str):
                    return due
                if due is not None:
                    wait_s = min(wait_s, due / 1e9)
            if until_s <= time.monotonic():
                return None
            self._work.wait(None if wait_s == math.inf else wait_s)
        return None

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
            waiting = [*self._waiting.clear(), *(Ticket(frame, now_ns) for frame in without)]
            self._announced.clear()
            self._in_flight.update((id(ticket), ticket) for ticket in waiting)
            return list(self._in_flight.values())

    def balance(self) -> Balance:
        with self._lock:
            return Balance(
                admitted=self._admitted,
                results=self._results,
                dropped=dict(self._dropped),
                waiting=self._waiting.count + len(self._announced),
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
        if self._takers_waiting:
            return False
        return self.mode == "every" or not self._waiting.waiting(camera)

    def _has_room(self, camera: str) -> bool:
        if self._closed or self.mode == "latest":
            return True
        return self._waiting.waiting(camera) < self._depth

    @property
    def _flight_room(self) -> int:
        return self._in_flight_limit - len(self._in_flight)

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
