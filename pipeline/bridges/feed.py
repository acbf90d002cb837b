"""What a bridge knows of its box: a bounded queue of events, and whether the stream may be trusted.

One thread reads the stream, whatever the bridge's far side does. When that side is slow or dead the
oldest events leave the queue and are counted; the box notices nothing.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..clock import SYSTEM_CLOCK, Clock
from ..stream_check import StreamStatus
from ..subscriber import Item, Replayed, Subscriber
from ..wire import AlarmMessage, HeartbeatMessage, ResultMessage
from ..wire_messages import HeartbeatHeader

log = logging.getLogger(__name__)
_TURN_S = 0.05
STUCK_NS = 500_000_000
"""A view that is older than this is not trusted: the thread that makes it hangs."""

Event = ResultMessage | AlarmMessage
Entry = Event | Replayed


@dataclass(frozen=True, slots=True)
class View:
    """The stream at one instant of the monotonic clock."""

    status: StreamStatus
    box: str
    """ "" until the first message."""
    boot: str
    heartbeat: HeartbeatHeader | None
    taken_ns: int

    def trusted(self, now_ns: int) -> bool:
        """Whether verdicts may be acted on: alive, fresh, contiguous, valid, and this view new."""
        return self.status.ok and now_ns - self.taken_ns < STUCK_NS

    def heard(self, now_ns: int) -> bool:
        """Whether the box is there, in whatever state."""
        return self.status.alive and now_ns - self.taken_ns < STUCK_NS


class Feed:
    """Reads `stream` in a thread between `start` and `stop`; everything else from any thread.

    Of results and alarms the newest `limit` are kept until they are taken.
    """

    def __init__(
        self, stream: Subscriber, limit: int = 10_000, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.dropped = 0
        """Events that left the queue because nobody took them in time."""
        self._stream = stream
        self._limit = limit
        self._clock = clock
        self._queue: deque[Entry] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._acknowledged = False
        self._heartbeat: HeartbeatHeader | None = None
        self._view = self._look()
        self._thread = threading.Thread(target=self._loop, name="feed", daemon=True)

    def start(self) -> None:
        """Connect. Raises ConfigError for an endpoint that is not one."""
        self._stream.open()
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the stream."""
        self._stopping = True
        if self._thread.ident is not None:
            self._thread.join()

    def take(self, timeout_s: float) -> Entry | None:
        """The oldest event; None when none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue, timeout_s)
            return self._queue.popleft() if self._queue else None

    def put_back(self, entries: Sequence[Entry]) -> None:
        """Events that could not be delivered, oldest first: they are the next to be taken."""
        with self._changed:
            self._queue.extendleft(reversed(entries))
            self._cut()

    def view(self) -> View:
        """How the stream is, at most a twentieth of a second ago."""
        return self._view

    def acknowledge_losses(self) -> None:
        """A person has looked at the lost events: contiguous begins anew."""
        self._acknowledged = True

    @property
    def waiting(self) -> int:
        """Events in the queue."""
        return len(self._queue)

    def _loop(self) -> None:
        try:
            while not self._stopping:
                item = self._stream.receive(_TURN_S)
                if self._acknowledged:
                    self._acknowledged = False
                    self._stream.check.forget_gaps()
                if item is not None:
                    self._take_in(item)
                self._view = self._look()
        finally:
            self._stream.close()

    def _take_in(self, item: Item) -> None:
        if isinstance(item, HeartbeatMessage):
            self._heartbeat = item.header
        elif isinstance(item, ResultMessage | AlarmMessage) or (
            isinstance(item, Replayed) and isinstance(item.message, ResultMessage | AlarmMessage)
        ):
            with self._changed:
                self._queue.append(item)
                self._cut()
                self._changed.notify()

    def _cut(self) -> None:
        while len(self._queue) > self._limit:
            self._queue.popleft()
            self.dropped += 1
            if self.dropped == 1 or self.dropped % 1000 == 0:
                log.warning("%d events were dropped: the far side does not take them", self.dropped)

    def _look(self) -> View:
        check, now_ns = self._stream.check, self._clock.mono_ns()
        return View(check.status(now_ns), check.box, check.boot, self._heartbeat, now_ns)
