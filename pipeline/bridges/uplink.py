"""How every bridge runs: events out of the feed, into the uplink, behind a circuit breaker."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from ..capture.backoff import Backoff
from ..clock import SYSTEM_CLOCK, Clock
from .feed import Entry, Feed, View

log = logging.getLogger(__name__)
_TURN_S = 0.05
_RESTING_TURN_S = 0.1


class UplinkLost(Exception):
    """The far side cannot be reached, refuses, or does not answer; the text says which."""


class Uplink(Protocol):
    """The far side. All calls come from one thread; each returns within a few seconds.

    After UplinkLost, `close` is called, and `open` again when the breaker lets it.
    """

    name: str
    needs_box: bool
    """Whether `open` must wait until the box has been heard."""

    def open(self, view: View) -> None:
        """Raises UplinkLost."""

    def send(self, entry: Entry) -> None:
        """Deliver one event, or take it over. Raises UplinkLost."""

    def tick(self, view: View, dropped: int) -> None:
        """Called after every event and at least ten times a second. Raises UplinkLost."""

    def undelivered(self) -> list[Entry]:
        """Events taken over and not delivered, oldest first; asked for before `close`."""

    def close(self) -> None:
        """Never raises."""


class CircuitBreaker:
    """Closed: all goes through. A failure opens it for a while; then one attempt is allowed.

    The pause grows from `first_s` to `limit_s` while attempts fail, and begins anew after the far
    side was well for `healthy_s`.
    """

    def __init__(
        self,
        first_s: float = 0.5,
        limit_s: float = 15.0,
        healthy_s: float = 10.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._backoff = Backoff(first_s, limit_s, healthy_s)
        self._clock = clock
        self._closed_at_ns: int | None = None
        self._open_until_ns = 0
        self.failures = 0

    def allows(self) -> bool:
        """Whether an attempt may be made now."""
        return self._clock.mono_ns() >= self._open_until_ns

    def succeeded(self) -> None:
        """The far side answered."""
        if self._closed_at_ns is None:
            self._closed_at_ns = self._clock.mono_ns()

    def failed(self) -> float:
        """The far side failed; returns for how many seconds no attempt will be made."""
        self.failures += 1
        now_ns, since_ns = self._clock.mono_ns(), self._closed_at_ns
        ran_s = 0.0 if since_ns is None else (now_ns - since_ns) / 1e9
        pause_s = self._backoff.wait_s(ran_s)
        self._closed_at_ns = None
        self._open_until_ns = now_ns + int(pause_s * 1e9)
        return pause_s


def run_bridge(feed: Feed, uplink: Uplink, breaker: CircuitBreaker, stop: threading.Event) -> None:
    """Until `stop`. Whatever the far side does, the feed goes on reading."""
    is_open = False
    while not stop.is_set():
        if not is_open and (not breaker.allows() or (uplink.needs_box and not feed.view().box)):
            stop.wait(_RESTING_TURN_S)
            continue
        entry: Entry | None = None
        try:
            if not is_open:
                uplink.open(feed.view())
                is_open = True
                breaker.succeeded()
                log.info("%s: connected", uplink.name)
            entry = feed.take(_TURN_S)
            if entry is not None:
                uplink.send(entry)
                entry = None
            uplink.tick(feed.view(), feed.dropped)
        except UplinkLost as lost:
            feed.put_back([*uplink.undelivered(), *([entry] if entry is not None else [])])
            uplink.close()
            is_open = False
            pause_s = breaker.failed()
            log.warning("%s: %s; next attempt in %.1f s", uplink.name, lost, pause_s)
    uplink.close()
