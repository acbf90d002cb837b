"""What `listen` knows of a stream, kept up to date by every item; its findings at any moment."""

from __future__ import annotations

import json

from .clock import SYSTEM_CLOCK, Clock
from .diagnosis import Findings, diagnose
from .link import Prober, Reach, probe
from .listen_screen import doctor_json, doctor_lines
from .listen_view import Tally, note_heartbeat
from .subscriber import Gone, Item, Replayed, Subscriber
from .wire import AlarmMessage, HeartbeatMessage, ResultMessage
from .wire_map import MapMessage


class Doctor:
    """Call `note` with everything `stream` gives, None included."""

    def __init__(self, stream: Subscriber, clock: Clock = SYSTEM_CLOCK) -> None:
        self.tally = Tally()
        self._stream = stream
        self._clock = clock
        self._prober = Prober(stream.connect)

    def note(self, item: Item | None) -> None:
        message = item.message if isinstance(item, Replayed) else item
        if isinstance(message, ResultMessage):
            self.tally.add_result(message.header, self._clock.mono_ns())
        elif isinstance(message, AlarmMessage):
            self.tally.alarms.append(message.header)
        elif isinstance(message, HeartbeatMessage):
            note_heartbeat(self.tally, message, self._clock.wall_ns())
        elif isinstance(message, MapMessage):
            self.tally.maps += 1
        if isinstance(item, Replayed):
            self.tally.fetched += 1
        elif isinstance(item, Gone):
            self.tally.gone += item.gap.count

    def findings(self) -> Findings:
        """As of now. While the connection does not come about, somebody knocks at the port."""
        wanted = self._needs_probe()
        return self._findings(self._prober.look(wanted, self._clock.mono_ns()))

    def at_the_end(self) -> Findings:
        """As `findings`, but waits for the knock (a second at most)."""
        return self._findings(probe(self._stream.connect) if self._needs_probe() else None)

    def lines(self, found: Findings) -> list[str]:
        """The screen without results."""
        gaps, now_ns = self._stream.check.gaps, self._clock.mono_ns()
        return doctor_lines(found, diagnose(found), self.tally, gaps, now_ns)

    def json(self, found: Findings) -> str:
        """One line for programs."""
        gaps, now_ns = self._stream.check.gaps, self._clock.mono_ns()
        return json.dumps(doctor_json(found, diagnose(found), self.tally, gaps, now_ns))

    def _needs_probe(self) -> bool:
        return self._stream.link == "connecting" and not self._stream.status().alive

    def _findings(self, reach: Reach | None) -> Findings:
        stream, apart_ns = self._stream, self.tally.clock.quickest_ns
        return Findings(
            status=stream.status(),
            heartbeat=self.tally.heartbeat,
            link=stream.link,
            reach=reach,
            with_keys=stream.with_keys,
            malformed=stream.malformed,
            foreign_versions=stream.foreign_versions,
            fetched=self.tally.fetched,
            gone=self.tally.gone,
            clock_apart_ms=None if apart_ns is None else apart_ns / 1e6,
        )
