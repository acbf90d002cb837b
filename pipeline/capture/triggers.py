"""Which picture belongs to which trigger, and which triggers got none. Pure but for its clock.

A camera may lose a picture (packets), ignore a trigger (still exposing), or vanish. Order alone
would then give every later part its neighbour's verdict, so three things must agree: the order,
the gaps in the camera's frame counter, and that a picture was taken after its trigger and before
the next one had its turn. What cannot be told apart becomes a failure, never a guess.

One trigger that the camera ignored in silence can leave every later picture between two triggers,
when they come faster than their times are exact. After a few such pictures no trigger is sent
until all pictures under way must have come; then the count begins anew.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from ..clock import SYSTEM_CLOCK, Clock

_UNCLEAR_LIMIT = 3
"""So many pictures in a row that lie between two triggers: trigger and picture are out of step."""
ANSWER_LIMIT_S = 1.0
"""A picture that has not come this long after its trigger will not come."""


@dataclass(slots=True, eq=False)
class Trigger:
    """One order to take a picture. `failure` is set when none will come, `detail` says why."""

    number: int
    part_id: str | None
    fired_wall_ns: int
    fired_mono_ns: int
    place: int = 0
    """Its place among those that were sent to the camera: 1, 2, 3 ..."""
    failure: str | None = None
    detail: str = ""


def frame_gap(last_id: int, frame_id: int) -> int:
    """How many frames the camera has counted since `last_id`; 1 when none is missing.

    GigE Vision's 16-bit counter goes from 65535 to 1; a counter that starts anew counts as 1.
    """
    gap = frame_id - last_id
    if gap > 0:
        return gap
    wrapped = frame_id + 65535 - last_id
    return wrapped if last_id <= 65535 and 0 < wrapped < 1000 else 1


class TriggerLedger:
    """Every trigger leaves it exactly once: matched with a picture, or failed. Thread-safe.

    `spacing_s` is how far apart the camera can take pictures; a trigger that comes sooner is one
    it would silently ignore, so it fails at once. 0 when that is not known.
    """

    def __init__(
        self,
        clock: Clock = SYSTEM_CLOCK,
        answer_limit_s: float = ANSWER_LIMIT_S,
        spacing_s: float = 0.0,
    ) -> None:
        self.spacing_s = spacing_s
        self.strays = 0
        """Pictures that belong to no trigger, since the process started."""
        self.timed_out = 0
        """Triggers in a row, up to now, whose picture did not come in time."""
        self._clock = clock
        self._limit_ns = round(answer_limit_s * 1e9)
        self._lock = threading.Lock()
        self._waiting: deque[Trigger] = deque()
        self._number = 0
        self._sent = 0
        self._last_id: int | None = None
        self._last_place = 0
        """The last picture belongs to this place or to a later one."""
        self._last_sent_ns: int | None = None
        self._unclear = 0
        """Pictures in a row, up to now, that could be one trigger's or the next one's."""
        self._silent_until_ns = 0
        """No trigger is sent before; on the monotonic clock."""

    def note(self, part_id: str | None) -> Trigger:
        """A trigger is about to be sent. Already failed when it comes too soon after the last."""
        with self._lock:
            self._number += 1
            now_ns = self._clock.mono_ns()
            trigger = Trigger(self._number, part_id, self._clock.wall_ns(), now_ns)
            last_ns = self._last_sent_ns
            if now_ns < self._silent_until_ns:
                trigger.failure = "missed_trigger"
                trigger.detail = (
                    "not sent: pictures and triggers were out of step, and the pictures that are "
                    "under way must come first"
                )
                self._waiting.append(trigger)
                return trigger
            # A tenth less: two orders at the camera's own rate may arrive a little closer.
            if last_ns is not None and now_ns - last_ns < 0.9e9 * self.spacing_s:
                trigger.failure = "missed_trigger"
                trigger.detail = (
                    f"triggered {(now_ns - last_ns) / 1e6:.1f} ms after the one before; the camera "
                    f"needs {self.spacing_s * 1e3:.1f} ms"
                )
            else:
                self._last_sent_ns = now_ns
                self._sent += 1
                trigger.place = self._sent
            self._waiting.append(trigger)
            return trigger

    def fail(self, trigger: Trigger, reason: str, detail: str) -> None:
        """This one gets no picture."""
        with self._lock:
            if trigger.failure is None:
                trigger.failure, trigger.detail = reason, detail

    def fail_all(self, reason: str, detail: str) -> None:
        """The camera was lost: nothing that waits gets a picture; its counter starts anew."""
        with self._lock:
            self._give_up(reason, detail)
            self._last_id = self._last_sent_ns = None
            self.timed_out = self._unclear = self._silent_until_ns = 0
            self._last_place = self._sent

    def match(
        self, frame_id: int, captured_mono_ns: int, error_ns: int
    ) -> tuple[list[Trigger], Trigger | None]:
        """(failed triggers that come before, the picture's own) - None when it has none.

        The picture was taken at `captured_mono_ns`, give or take `error_ns`.
        """
        with self._lock:
            self.timed_out = 0
            gap = 1 if self._last_id is None else frame_gap(self._last_id, frame_id)
            self._last_id = frame_id
            # Every frame had a trigger of its own, so it belongs to no earlier place than this.
            self._last_place = min(self._last_place + gap, self._sent)
            open_ones = [one for one in self._waiting if one.failure is None]
            # A picture of before the oldest order that waits: its own was given up already.
            if not open_ones or captured_mono_ns + error_ns < open_ones[0].fired_mono_ns:
                self.strays += 1
                return [], None
            index = 0
            while index + 1 < len(open_ones) and open_ones[index].place < self._last_place:
                one, index = open_ones[index], index + 1
                one.failure, one.detail = "no_frame", "its picture was lost on the way here"
            window_ns = 1e9 * self.spacing_s
            while window_ns and index + 1 < len(open_ones):
                one, later = open_ones[index], open_ones[index + 1]
                in_time = captured_mono_ns - error_ns <= one.fired_mono_ns + window_ns
                if in_time or captured_mono_ns + error_ns < later.fired_mono_ns:
                    break
                one.failure, one.detail = "no_frame", "the camera did not take its picture in time"
                if captured_mono_ns - error_ns < later.fired_mono_ns:
                    # Late for the one, perhaps too early for the other: it is nobody's.
                    self.strays += 1
                    self._unclear += 1
                    if self._unclear == _UNCLEAR_LIMIT:
                        self._begin_anew()
                    return [], None
                index += 1
            own = open_ones[index]
            self._unclear = 0
            self._last_place = max(self._last_place, own.place)
            before: list[Trigger] = []
            while (one := self._waiting.popleft()) is not own:
                before.append(one)
            return before, own

    def _begin_anew(self) -> None:
        """Nothing that waits gets a picture; nothing is sent until the last one sent has had its
        time. Whatever comes meanwhile is nobody's."""
        self._give_up("no_frame", "pictures and triggers were out of step")
        assert self._last_sent_ns is not None, "pictures were matched with triggers that were sent"
        self._silent_until_ns = self._last_sent_ns + self._limit_ns
        self._unclear = 0

    def _give_up(self, reason: str, detail: str) -> None:
        """Nothing that waits gets a picture."""
        for one in self._waiting:
            if one.failure is None:
                one.failure, one.detail = reason, detail

    def overdue(self) -> list[Trigger]:
        """Failed triggers whose turn it is, in order; waiting for too long is a failure too."""
        with self._lock:
            now_ns, done = self._clock.mono_ns(), []
            while self._waiting:
                one = self._waiting[0]
                if one.failure is None:
                    if now_ns - one.fired_mono_ns < self._limit_ns:
                        break
                    self.timed_out += 1
                    one.failure = "no_frame"
                    one.detail = f"no picture came within {self._limit_ns / 1e9:g} s"
                done.append(self._waiting.popleft())
            return done

    @property
    def pending(self) -> int:
        """How many triggers have no shot yet."""
        return len(self._waiting)
