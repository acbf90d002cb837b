"""Is this stream good enough to act on? Four answers, kept up to date by every message.

alive       something arrived within three heartbeat periods
fresh       and it was not held up on the way: the age of the newest message is in bounds
contiguous  no number of `seq` is missing
valid       the line itself says RUNNING and ready

Pure: messages and the receiver's monotonic time in, answers out. A consumer acts on a verdict only
while all four hold; otherwise it stops the feeder or rejects everything.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .wire import AlarmMessage, HeartbeatMessage, Message, ResultMessage, StateMessage
from .wire_map import MapMessage
from .wire_picture import PictureMessage

DEFAULT_PERIOD_MS = 500
MISSED_HEARTBEATS = 3
MAX_GAPS = 10_000
"""Of more separate losses than this the oldest are only counted: memory must not grow with them."""
_OFFSET_WINDOW_NS = 30 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Gap:
    """Events `first` to `last` (both included) were published and have not arrived."""

    box: str
    boot: str
    first: int
    last: int

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Restart:
    """The publisher is a new process; counters begin anew."""

    box: str
    old_boot: str
    new_boot: str


Notice = Gap | Restart


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The four answers and what they were made from."""

    alive: bool
    fresh: bool
    contiguous: bool
    valid: bool
    state: str
    """The line's last stated condition; "" before the first state or heartbeat."""
    last_seq: int
    missing: int
    """How many events have not arrived (and were not filled in later)."""
    age_ms: float | None
    """How much longer the newest message travelled than the quickest recent one."""
    silent_ms: float | None
    """Since the last message; None before the first."""
    restarts: int

    @property
    def ok(self) -> bool:
        """Whether a verdict may be acted on."""
        return self.alive and self.fresh and self.contiguous and self.valid


class StreamCheck:
    """Follows one box. Feed every decoded message of the events socket to `receive`."""

    def __init__(self, max_age_ms: float = 1000.0) -> None:
        self.max_age_ms = max_age_ms
        self.last_seq = 0
        self.boot = ""
        self.box = ""
        self.state = ""
        self.ready = False
        self.restarts = 0
        self.duplicates = 0
        self.ended = False
        """The publisher said BYE and nothing came after it."""
        self._gaps: deque[Gap] = deque(maxlen=MAX_GAPS)
        self._missing = 0
        self._period_ms = DEFAULT_PERIOD_MS
        self._last_arrival_ns: int | None = None
        self._delay_ns = 0
        self._offset = QuickestDelay()

    def receive(self, message: Message, now_ns: int) -> tuple[Notice, ...] | None:
        """Take one message that arrived at `now_ns` (receiver's monotonic clock).

        Returns what it revealed, in order; None when it is a duplicate that must be ignored. The
        first message of all sets the beginning: what came before it is not missed.
        """
        header = message.header
        if isinstance(message, MapMessage | PictureMessage):
            return ()
        notices: list[Notice] = []
        if self.boot and header.boot != self.boot:
            notices += self._restart(message)
        elif not self.boot:
            self._begin(message)
        takes_seq = not isinstance(message, HeartbeatMessage)
        if takes_seq and header.seq <= self.last_seq:
            self.duplicates += 1
            return None
        first_missing, last_missing = self.last_seq + 1, header.seq - takes_seq
        if first_missing <= last_missing:
            gap = Gap(header.box, header.boot, first_missing, last_missing)
            self._gaps.append(gap)
            notices.append(gap)
            self._missing += gap.count
        self.last_seq = max(self.last_seq, header.seq)
        self._last_arrival_ns = now_ns
        self._delay_ns = self._offset.delay_ns(_sent_mono_ns(message), now_ns)
        self._note_state(message)
        return tuple(notices)

    def fill(self, seq: int) -> bool:
        """An event that was missing has been fetched. False when it was not missing."""
        for index, gap in enumerate(self._gaps):
            if gap.first <= seq <= gap.last:
                rest = (
                    Gap(gap.box, gap.boot, gap.first, seq - 1),
                    Gap(gap.box, gap.boot, seq + 1, gap.last),
                )
                del self._gaps[index]
                for part in reversed(rest):
                    if part.count > 0 and len(self._gaps) < MAX_GAPS:
                        self._gaps.insert(index, part)
                self._missing -= 1
                return True
        return False

    def forget_gaps(self) -> None:
        """What is missing is known and accepted; `contiguous` begins anew."""
        self._gaps.clear()
        self._missing = 0

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What is missing now, oldest first."""
        return tuple(self._gaps)

    def status(self, now_ns: int) -> StreamStatus:
        """The four answers at `now_ns` (receiver's monotonic clock)."""
        if self._last_arrival_ns is None:
            return StreamStatus(False, False, False, False, "", 0, 0, None, None, 0)
        silent_ms = (now_ns - self._last_arrival_ns) / 1e6
        age_ms = self._delay_ns / 1e6
        alive = not self.ended and silent_ms <= MISSED_HEARTBEATS * self._period_ms
        return StreamStatus(
            alive=alive,
            fresh=alive and age_ms <= self.max_age_ms,
            contiguous=self._missing == 0,
            valid=self.state == "RUNNING" and self.ready,
            state=self.state,
            last_seq=self.last_seq,
            missing=self._missing,
            age_ms=age_ms,
            silent_ms=silent_ms,
            restarts=self.restarts,
        )

    def _begin(self, message: Message) -> None:
        header = message.header
        self.box, self.boot = header.box, header.boot
        self.last_seq = header.seq - (not isinstance(message, HeartbeatMessage))

    def _restart(self, message: Message) -> list[Notice]:
        header = message.header
        notice = Restart(header.box, self.boot, header.boot)
        self.restarts += 1
        self.boot = header.boot
        self.ready, self.ended = False, False
        self._offset = QuickestDelay()
        if header.seq <= self.last_seq:
            # No journal on the box: the numbers begin at 1 again.
            self.last_seq = 0
        return [notice]

    def _note_state(self, message: Message) -> None:
        if isinstance(message, HeartbeatMessage):
            self.state, self.ready = message.header.state, message.header.health.ready
            self._period_ms = max(message.header.period_ms, 1)
        elif isinstance(message, StateMessage):
            self.state = message.header.state
            self.ended = message.header.state == "BYE"


class QuickestDelay:
    """The one-way delay beyond the quickest of the last 30 to 60 s, from two unrelated clocks.

    Sender and receiver clocks differ by an unknown constant, so only differences of delays can be
    measured; the window forgets, so that clocks that drift apart do not look like a delay.
    """

    def __init__(self) -> None:
        self._window_ns = 0
        self._current: int | None = None
        self._previous: int | None = None

    def delay_ns(self, sent_ns: int, arrived_ns: int) -> int:
        difference = arrived_ns - sent_ns
        if self._current is None or arrived_ns - self._window_ns > _OFFSET_WINDOW_NS:
            self._previous, self._current = self._current, difference
            self._window_ns = arrived_ns
        self._current = min(self._current, difference)
        quickest = self.quickest_ns
        assert quickest is not None
        return difference - quickest

    @property
    def quickest_ns(self) -> int | None:
        """Receiver's clock minus sender's, the quickest delay included; None before a message."""
        if self._current is None:
            return None
        return min(self._current, self._current if self._previous is None else self._previous)


def _sent_mono_ns(message: Message) -> int:
    if isinstance(message, ResultMessage):
        return message.header.mono_pub
    if isinstance(message, StateMessage | AlarmMessage | HeartbeatMessage):
        return message.header.mono
    raise TypeError(f"{type(message).__name__} does not come from the events socket")
