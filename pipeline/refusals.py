"""Who sent what no socket takes: counted always, written down once a minute for the same sender.

A hostile peer sends a million such messages an hour: neither log nor journal may grow by them.
"""

from __future__ import annotations

import logging

from .clock import SYSTEM_CLOCK, Clock
from .journal import Journal

log = logging.getLogger(__name__)

_SAME_SENDER_NS = 60 * 1_000_000_000
_SENDERS = 1000


class Refusals:
    """The refused messages of one socket. One thread calls `note`."""

    def __init__(self, journal: Journal | None, socket: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self.count = 0
        self._journal, self._socket, self._clock = journal, socket, clock
        self._noted: dict[str, int] = {}

    def note(self, who: str, role: str, text: str) -> None:
        """Count a message; leave an audit line unless this sender had one a moment ago."""
        self.count += 1
        now, last = self._clock.mono_ns(), self._noted.get(who)
        if last is not None and now - last < _SAME_SENDER_NS:
            return
        if len(self._noted) >= _SENDERS:
            self._noted.clear()
        self._noted[who] = now
        log.warning("audit: %s (%s) at %s: refused: %s", who, role, self._socket, text[:300])
        if self._journal is not None:
            outcome = f"refused: {text[:300]}; {self.count} so far"
            self._journal.note_audit(
                who, role, "malformed", f'{{"socket":"{self._socket}"}}', outcome
            )
