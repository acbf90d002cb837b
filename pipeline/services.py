"""What a publisher keeps beside its two sockets: the door, the journal, replay and control.

Each has a thread of its own; all of them are optional and opened from the settings.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path

import zmq

from .clock import Clock
from .control import ControlServer
from .control_port import LineControl
from .journal import Journal, JournalAlarm
from .publish_settings import PublishSettings
from .refusals import Refusals
from .replay import ReplayServer, Snapshot
from .security import Door, protect_server

log = logging.getLogger(__name__)


class Services:
    """`open_door` before any socket binds, `open_others` after, `close` before the context ends."""

    def __init__(self, settings: PublishSettings, box: str, boot: str, clock: Clock) -> None:
        self._settings, self._box, self._boot, self._clock = settings, box, boot, clock
        self.line: LineControl | None = None
        """What control acts on; None until the line is ready."""
        self.journal: Journal | None = None
        self.replay_endpoint = settings.replay
        self.control_endpoint = settings.control
        self._foreign: dict[str, Refusals] = {}
        self._door: Door | None = None
        self._replay: ReplayServer | None = None
        self._control: ControlServer | None = None

    def open_door(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Raises NetworkError for a missing or badly kept server key."""
        if self._settings.keys is not None:
            self._door = Door(Path(self._settings.keys))
            self._door.open(context)

    def lock(self, domain: str) -> Callable[[zmq.Socket[bytes]], None] | None:
        """What puts the box's key on a socket, None where no keys are used."""
        if self._door is None:
            return None
        door = self._door

        def lock(socket: zmq.Socket[bytes]) -> None:
            protect_server(socket, door.server, domain)
            door.watch(socket, domain)

        return lock

    def open_others(
        self, context: zmq.Context[zmq.Socket[bytes]], snapshot: Callable[[], Snapshot]
    ) -> int:
        """Journal, replay and control; returns the first seq to use (1 without a journal).

        Raises NetworkError for an endpoint that cannot be bound, ConfigError for a journal that
        cannot be used.
        """
        settings, first_seq = self._settings, 1
        if settings.journal is not None:
            journal = Journal(settings.journal, self._clock)
            first_seq = journal.open().next_seq
            self.journal = journal
            if settings.replay is not None:
                self._replay = ReplayServer(settings.replay, journal, snapshot)
                self._replay.open(context, self.lock("replay"))
                self.replay_endpoint = self._replay.endpoint
        if settings.control is not None:
            self._control = ControlServer(
                settings.control,
                lambda: self.line,
                self.journal,
                box=self._box,
                boot=self._boot,
                keys=None if settings.keys is None else Path(settings.keys),
                clock=self._clock,
            )
            self._control.open(context, self.lock("control"))
            self.control_endpoint = self._control.endpoint
        return first_seq

    def refusals(self) -> list[str]:
        """Who was not let in since the last call. Each is in the audit list too."""
        refusals = self._door.refusals() if self._door is not None else []
        if self.journal is not None:
            for text in refusals:
                self.journal.note_audit("unknown", "none", "connect", "", f"refused: {text}")
        return refusals

    def note_foreign(self, socket: str, texts: deque[str]) -> None:
        """Leave an audit line for what clients sent to a socket that only publishes."""
        while texts:
            refusals = self._foreign.setdefault(socket, Refusals(self.journal, socket, self._clock))
            refusals.note("a subscriber", "none", texts.popleft())

    def journal_alarms(self) -> list[JournalAlarm]:
        return self.journal.alarms() if self.journal is not None else []

    def close(self) -> None:
        """Safe to call twice."""
        for service in (self._control, self._replay, self.journal, self._door):
            if service is not None:
                service.close()
        self._control = self._replay = self.journal = self._door = None
