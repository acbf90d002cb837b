"""Which frame belongs to which trigger: values in, outcomes out, time is an argument.

    exact   the frame's trigger counter is the trigger's
    time    the frame was taken within a window after its trigger, and no other trigger's
    fifo    the next frame is the oldest trigger's

A trigger leaves with exactly one outcome, in the order of the triggers: its frame, or the reason
why there is none. What does not agree is never guessed at: exact and fifo then give every part
away without its frame until somebody has looked and orders a `resync`, because a pairing that is
off by one passes each bad part with the verdict of a good one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from .records import Frame

PartMatch = Literal["exact", "time", "fifo", "none"]
NO_FRAME, MISMATCH, UNANNOUNCED = "no_frame", "trigger_mismatch", "unannounced"
_REMEMBERED = 4096
_LIMIT_MS = 1000.0
"""Slow cameras take 100 ms from trigger to frame; after a second nothing comes any more."""


class TriggerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`trigger:` of a camera. `none` pairs nothing: a frame is a part, a trigger is only fired."""

    fire: Literal["software", "external"] = "software"
    """Who fires the camera at an order: the line, or a sensor (the order only names the part)."""
    match: PartMatch = "exact"
    limit_ms: Annotated[float, Meta(gt=0)] = _LIMIT_MS
    """A trigger without a frame for so long has none: its part is `err`, reason `no_frame`."""
    window_ms: Annotated[float, Meta(gt=0)] | None = None
    """A frame is taken within so long of its trigger; needed for `time`, `fifo` and `external`."""
    under_way: Annotated[int, Meta(ge=1, le=64)] = 8
    """Parts between trigger and result; a trigger beyond is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The end of trigger `number` (None: of a frame that nobody announced).

    Without a `frame`, `reason` and `detail` say why.
    """

    number: int | None
    frame: Frame | None
    reason: str = ""
    detail: str = ""


@dataclass(slots=True, eq=False)
class _Trigger:
    number: int
    at_ns: int
    count: int | None = None
    """The camera's counter for it; None while the order to the camera is on its way."""
    failure: tuple[str, str] | None = None
    """It gets no frame; it still waits for those before it."""


class Pairing:
    """The triggers and frames of one camera. Not thread-safe.

    Numbers are given in ascending order. Each method returns what it has settled.
    """

    def __init__(self, settings: TriggerSettings) -> None:
        self.mismatch = ""
        """Why nothing is paired until `resync`; empty while all is well."""
        self.unclaimed = 0
        """Frames that were nobody's: late, repeated, or taken while nothing was paired."""
        self._match, self._external = settings.match, settings.fire == "external"
        self._limit_ns = round(settings.limit_ms * 1e6)
        window_ms = settings.window_ms
        self._window_ns = None if window_ms is None else round(window_ms * 1e6)
        self._waiting: deque[_Trigger] = deque()
        self._held: deque[tuple[Frame, int]] = deque()
        self._unconfirmed: set[int] = set()
        """Triggers the camera was given and has not answered yet; `fired` or `fail` follows."""
        self._gone: deque[int] = deque(maxlen=_REMEMBERED)
        """Counters whose trigger has left: a frame that still comes for it is nobody's."""
        self._offset: int | None = None
        """External triggers: the camera's counter minus our number, learnt from the first pair."""
        self._not_before_ns: int | None = None
        self._newest_ns: int | None = None
        """When the newest frame so far was taken."""

    def announce(self, number: int, now_ns: int) -> list[Outcome]:
        """A trigger is given (software), or a part was said to be at the camera (external)."""
        if self.mismatch:
            return [Outcome(number, None, MISMATCH, self.mismatch)]
        self._waiting.append(_Trigger(number, now_ns))
        if not self._external:
            self._unconfirmed.add(number)
        return self._look(now_ns)

    def fired(self, number: int, count: int, now_ns: int) -> list[Outcome]:
        """The camera took the trigger and counts it as `count`."""
        self._unconfirmed.discard(number)
        trigger = self._find(number)
        if trigger is None:
            self._gone.append(count)
        else:
            trigger.count = count
        return self._look(now_ns)

    def fail(self, number: int, reason: str, detail: str) -> list[Outcome]:
        """The camera did not take the trigger, or was not asked to."""
        self._unconfirmed.discard(number)
        trigger = self._find(number)
        if trigger is not None:
            trigger.failure = (reason, detail)
        return self._failed_first()

    def frame(self, frame: Frame, now_ns: int) -> list[Outcome]:
        """A frame came; `frame.part.trigger_seq` is the camera's counter where it has one."""
        if self.mismatch or self._seen_before(frame):
            self.unclaimed += 1
            return []
        self._held.append((frame, now_ns))
        return self._look(now_ns)

    def expire(self, now_ns: int) -> list[Outcome]:
        """Give up what has waited for too long."""
        outcomes = self._look(now_ns)
        while self._waiting and now_ns - self._waiting[0].at_ns > self._limit_ns:
            text = f"no frame within {self._limit_ns / 1e6:g} ms of its trigger"
            if self._match == "fifo":
                # Whether that frame is lost or late, the next one could be anybody's.
                outcomes.append(self._lost(self._waiting.popleft(), NO_FRAME, text))
                return outcomes + self._break(f"trigger {outcomes[-1].number} got {text}")
            outcomes.append(self._lost(self._waiting.popleft(), NO_FRAME, text))
            outcomes += self._failed_first() + self._look(now_ns)
        return outcomes

    def give_up(self, reason: str, detail: str, now_ns: int) -> list[Outcome]:
        """No frame taken so far will be used (the camera is lost, or the line ends)."""
        self._not_before_ns = now_ns
        return self._drop_all(reason, detail)

    def resync(self, now_ns: int) -> list[Outcome]:
        """Begin anew: the next trigger and the next frame taken from now on belong together."""
        self.mismatch = ""
        text = "triggers and frames were paired anew before its frame came"
        return self.give_up(MISMATCH, text, now_ns)

    def _seen_before(self, frame: Frame) -> bool:
        """Whether it was taken before the last beginning, or repeats a frame that was there."""
        taken_ns = frame.captured_mono_ns
        if self._not_before_ns is not None and taken_ns < self._not_before_ns:
            return True
        if self._match == "exact" or frame.pixels is None:
            return False  # its counter tells
        repeated = self._newest_ns is not None and taken_ns <= self._newest_ns
        self._newest_ns = taken_ns if self._newest_ns is None else max(taken_ns, self._newest_ns)
        return repeated

    # ---- whose frame ----------------------------------------------------------------------

    def _look(self, now_ns: int) -> list[Outcome]:
        """Settle held frames, oldest first, as far as it can be said whose they are."""
        outcomes: list[Outcome] = []
        while self._held:
            frame, since_ns = self._held[0]
            owner = self._owner(frame)
            if owner == "later":
                if now_ns - since_ns <= self._patience_ns():
                    break
                self._held.popleft()
                outcomes += self._ownerless(frame)
                continue
            self._held.popleft()
            if isinstance(owner, _Trigger):
                outcomes += self._pair(owner, frame)
            elif owner == "nobody":
                self.unclaimed += 1
                outcomes += self._failed_first()
            else:
                self.unclaimed += 1
                outcomes += self._break(owner)
        return outcomes

    def _owner(self, frame: Frame) -> _Trigger | str:
        """The trigger, "later" (it may still be announced), "nobody", or what is wrong."""
        if self._match == "time":
            return self._owner_by_time(frame)
        owner = self._owner_by_count(frame) if self._match == "exact" else self._owner_by_order()
        if (
            isinstance(owner, _Trigger)
            and frame.pixels is not None
            and not self._fits(owner, frame)
        ):
            away_ms = (frame.captured_mono_ns - owner.at_ns) / 1e6
            return f"the frame for trigger {owner.number} was taken {away_ms:.1f} ms after it"
        return owner

    def _owner_by_time(self, frame: Frame) -> _Trigger | str:
        fitting = [one for one in self._waiting if not one.failure and self._fits(one, frame)]
        if len(fitting) == 1:
            return fitting[0]
        if not fitting:
            return "later" if self._external else "nobody"
        # None of them may have it. Time heals this by itself: the next triggers are unaffected.
        for trigger in fitting:
            numbers = ", ".join(str(one.number) for one in fitting)
            trigger.failure = (MISMATCH, f"a frame fits the triggers {numbers}")
        return "nobody"

    def _owner_by_order(self) -> _Trigger | str:
        for trigger in self._waiting:
            if not trigger.failure:
                return trigger
        return "later" if self._external else "a frame came that no trigger has asked for"

    def _owner_by_count(self, frame: Frame) -> _Trigger | str:
        count = frame.part.trigger_seq
        if count is None:
            return "the camera's frames carry no trigger counter; match: time or fifo needs none"
        if self._external:
            return self._owner_by_offset(count)
        for trigger in self._waiting:
            if trigger.count == count:
                return trigger
        if self._unconfirmed:
            return "later"
        if count in self._gone:
            return "nobody"
        return f"a frame came with the counter {count}, which is no trigger's"

    def _owner_by_offset(self, count: int) -> _Trigger | str:
        if not self._waiting:
            known = self._offset is not None and count - self._offset in self._gone
            return "nobody" if known else "later"
        if self._offset is None:
            return self._waiting[0]
        number = count - self._offset
        for trigger in self._waiting:
            if trigger.number == number:
                return trigger
        return "later" if number > self._waiting[-1].number else "nobody"

    def _fits(self, trigger: _Trigger, frame: Frame) -> bool:
        """Whether the frame was taken in the trigger's window; an order may also come after."""
        if self._window_ns is None:
            return True
        after_ns, error_ns = frame.captured_mono_ns - trigger.at_ns, frame.captured_error_ns
        earliest_ns = -self._window_ns if self._external else 0
        return earliest_ns - error_ns <= after_ns <= self._window_ns + error_ns

    def _patience_ns(self) -> int:
        """How long a frame may wait to learn whose it is."""
        if self._external and self._window_ns is not None:
            return self._window_ns
        return self._limit_ns

    # ---- outcomes -------------------------------------------------------------------------

    def _pair(self, owner: _Trigger, frame: Frame) -> list[Outcome]:
        if self._external and self._match == "exact" and frame.part.trigger_seq is not None:
            self._offset = frame.part.trigger_seq - owner.number
        outcomes = []
        while self._waiting[0] is not owner:
            text = "the frame of a later trigger came first"
            outcomes.append(self._lost(self._waiting.popleft(), NO_FRAME, text))
        self._waiting.popleft()
        self._forget(owner)
        outcomes.append(Outcome(owner.number, frame))
        return outcomes + self._failed_first()

    def _ownerless(self, frame: Frame) -> list[Outcome]:
        """A frame was held in vain: a part passed the camera that nobody had announced."""
        if not self._external:
            self.unclaimed += 1
            if frame.part.trigger_seq in self._gone:
                return []
            return self._break("a frame came whose trigger the camera has not confirmed")
        text = f"nobody announced the part of frame {frame.frame_id}"
        broken = [] if self._match == "time" else self._break(text)
        return [*broken, Outcome(None, frame, UNANNOUNCED, text)]

    def _failed_first(self) -> list[Outcome]:
        outcomes = []
        while self._waiting and self._waiting[0].failure is not None:
            trigger = self._waiting.popleft()
            assert trigger.failure is not None
            outcomes.append(self._lost(trigger, *trigger.failure))
        return outcomes

    def _lost(self, trigger: _Trigger, reason: str, detail: str) -> Outcome:
        self._forget(trigger)
        return Outcome(trigger.number, None, *(trigger.failure or (reason, detail)))

    def _forget(self, trigger: _Trigger) -> None:
        count = trigger.number if self._external else trigger.count
        if count is not None:
            self._gone.append(count)

    def _drop_all(self, reason: str, detail: str) -> list[Outcome]:
        self.unclaimed += len(self._held)
        self._held.clear()
        outcomes = [self._lost(trigger, reason, detail) for trigger in self._waiting]
        self._waiting.clear()
        self._offset = None
        return outcomes

    def _break(self, why: str) -> list[Outcome]:
        """Pair nothing more until `resync`."""
        self.mismatch = why
        return self._drop_all(MISMATCH, why)

    def _find(self, number: int) -> _Trigger | None:
        return next((one for one in self._waiting if one.number == number), None)
