"""The publishing edge: results, state, alarms and heartbeats out of two XPUB sockets.

Everything here is called from one thread and never blocks: XPUB drops for a subscriber that does
not keep up, and nobody else notices. Option values are the measured ones of docs/wire.md.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

import msgspec
import zmq

from . import wire
from . import wire_messages as fields
from .alarms import ALARM_BY_NAME
from .choice import chosen
from .clock import SYSTEM_CLOCK, Clock
from .control_port import LineControl
from .fan_out import FanOut
from .publish_settings import PublishSettings as PublishSettings
from .publish_settings import check_settings
from .records import Result, Verdict
from .replay import Snapshot
from .services import Services
from .wire_picture import Picture

log = logging.getLogger(__name__)

EVENTS_SNDHWM = 1000
MAPS_SNDHWM, MAPS_SNDBUF = 4, 256 * 1024
POSTED_PICTURES = 8
_PICTURES = b"pic/"
MAP_SUBSCRIBER_GRACE_S = 1.5
"""How long wait_for_subscribers goes on waiting for as many map subscribers."""


class Publisher:
    """Owns the events and maps sockets of one box.

    `open` binds or raises NetworkError; `send_result`, `send_state`, `send_alarm` and
    `heartbeat_if_due` publish; `close` says BYE. `first_seq` continues the numbers of an earlier
    process. Usable as a context manager.
    """

    def __init__(
        self,
        settings: PublishSettings,
        box: str,
        boot: str | None = None,
        *,
        model: fields.ModelFields | None = None,
        regions: tuple[str, ...] = ("image",),
        first_seq: int = 1,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        check_settings(settings, box)
        self.settings = settings
        self.box = box
        self.boot = boot or new_boot()
        self.events_endpoint = settings.events
        self.maps_endpoint = settings.maps
        self.state: fields.State = "STARTING"
        self.last_seq = first_seq - 1
        self.counts = fields.CountFields()
        self._context = wire.WireContext(
            box=box,
            boot=self.boot,
            model=wire.bounded_model(model or fields.ModelFields()),
            regions=regions,
        )
        self._clock = clock
        self._zmq: zmq.Context[zmq.Socket[bytes]] | None = None
        self._events: FanOut | None = None
        self._maps: FanOut | None = None
        self._services = Services(settings, box, self.boot, clock)
        self._last_results: dict[str, list[bytes]] = {}
        self._posted: deque[Picture] = deque(maxlen=POSTED_PICTURES)
        self._toggle = False
        self._dropped_sent = 0
        self._alarms: dict[tuple[int, str], int] = {}
        self._next_heartbeat_ns = 0

    def open(self) -> None:
        """Open the journal and bind the sockets.

        Raises NetworkError for a port in use or an address that is not allowed, ConfigError for a
        journal that cannot be used; nothing is left open then.
        """
        settings, services = self.settings, self._services
        self._zmq = zmq.Context()
        try:
            services.open_door(self._zmq)
            events_options: dict[int, int] = {zmq.SNDHWM: EVENTS_SNDHWM}
            maps_options: dict[int, int] = {zmq.SNDHWM: MAPS_SNDHWM, zmq.SNDBUF: MAPS_SNDBUF}
            self._events = FanOut(
                self._zmq, settings.events, (b"res/",), events_options, services.lock("events")
            )
            self._maps = FanOut(
                self._zmq, settings.maps, (b"map/", _PICTURES), maps_options, services.lock("maps")
            )
            self.last_seq = max(self.last_seq, services.open_others(self._zmq, self.snapshot) - 1)
        except BaseException:
            self._release(linger_ms=0)
            raise
        self.events_endpoint, self.maps_endpoint = self._events.endpoint, self._maps.endpoint
        log.info("events on %s, maps on %s", self.events_endpoint, self.maps_endpoint)

    def wait_for_subscribers(
        self,
        count: int,
        timeout_s: float,
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait until `count` clients have subscribed to results; False when time ran out first.

        When maps are published, another 1.5 s at most are given to as many map subscriptions:
        they arrive on their own connection, a little before or after.
        """
        events, maps = self._open_sockets()
        deadline = time.monotonic() + timeout_s
        while not stop() and events.subscribers(wait_ms=20) < count:
            if time.monotonic() >= deadline:
                return False
        if self.settings.map_policy != "none":
            grace = min(deadline, time.monotonic() + MAP_SUBSCRIBER_GRACE_S)
            while not stop() and time.monotonic() < grace:
                if maps.subscribers(wait_ms=20) >= count:
                    break
        return events.subscribers() >= count

    def snapshot(self) -> Snapshot:
        """The state of the line now; may be called from another thread."""
        return Snapshot(
            box=self._context.box,
            boot=self.boot,
            seq=self.last_seq,
            state=self.state,
            counts=self.counts,
            last_results=tuple(self._last_results.values()),
        )

    def last_result(self, camera: str) -> list[bytes]:
        """The parts of the `res` sent last for this camera. Publish thread only."""
        return self._last_results[camera]

    def send_result(self, result: Result, dropped_since_boot: int = 0) -> int:
        """Publish one result, then its map if the policy asks for it. Returns its seq.

        `dropped_since_boot` is how many frames were dropped so far, over all causes.
        """
        self._number_regions(result)
        seq = self.last_seq + 1
        counts = count_verdict(self.counts, result.verdict)
        toggle = not self._toggle
        map_follows = self._wants_map(result, counts)
        parts = wire.encode_result(
            result,
            self._context,
            wire.Stamp(
                seq=seq,
                published_ns=self._clock.wall_ns(),
                published_mono_ns=self._clock.mono_ns(),
                counts=counts,
                dropped_since_boot=dropped_since_boot,
                dropped_since_last=max(dropped_since_boot - self._dropped_sent, 0),
                alarm=bool(self._alarms),
                toggle=toggle,
                map_follows=map_follows,
            ),
        )
        # Only a message that could be encoded uses up its number: seq has no gaps.
        self.last_seq, self.counts, self._toggle = seq, counts, toggle
        self._dropped_sent = dropped_since_boot
        self._last_results[result.camera] = parts
        self._publish(seq, parts)
        if map_follows:
            self._open_sockets()[1].send(wire.encode_map(result, self._context, seq))
        return seq

    def send_state(self, state: fields.State, text: str = "") -> int:
        """Publish a change of state (also the first one). Returns its seq."""
        self.last_seq += 1
        header = fields.StateHeader(
            v=fields.PROTOCOL,
            box=self._context.box,
            boot=self.boot,
            seq=self.last_seq,
            t=self._clock.wall_ns(),
            mono=self._clock.mono_ns(),
            state=state,
            previous=self.state,
            text=text[:500],
        )
        self.state = state
        self._publish(header.seq, wire.encode_state(header))
        # The next heartbeat carries the new state at once.
        self._next_heartbeat_ns = 0
        return header.seq

    def send_alarm(self, name: str, active: bool, text: str = "", camera: str = "") -> int:
        """Publish the start or end of an alarm of the table in alarms.py. Returns its seq.

        Starting one that is active, or ending one that is not, publishes nothing and returns 0.
        """
        alarm = ALARM_BY_NAME[name]
        key = (alarm.code, camera)
        if active == (key in self._alarms):
            return 0
        now = self._clock.wall_ns()
        self.last_seq += 1
        header = fields.AlarmHeader(
            v=fields.PROTOCOL,
            box=self._context.box,
            boot=self.boot,
            seq=self.last_seq,
            t=now,
            mono=self._clock.mono_ns(),
            code=alarm.code,
            name=alarm.name,
            severity=alarm.severity,
            active=active,
            since=now if active else self._alarms[key],
            cam=camera or msgspec.UNSET,
            text=text[:500],
        )
        if active:
            self._alarms[key] = now
        else:
            del self._alarms[key]
        self._publish(header.seq, wire.encode_alarm(header))
        return header.seq

    def post_picture(self, picture: Picture) -> None:
        """Send a picture at the publish thread's next turn; may be called from any thread.

        Of pictures that pile up the oldest are dropped.
        """
        self._posted.append(picture)

    @property
    def picture_watchers(self) -> int:
        """How many clients subscribe to pictures, as of the last heartbeat; any thread."""
        maps = self._maps
        return 0 if maps is None else maps.counted(_PICTURES)

    def heartbeat_if_due(
        self, snapshot: fields.HealthFields | Callable[[], fields.HealthFields]
    ) -> bool:
        """Publish a heartbeat when 500 ms have passed since the last. True when one was sent.

        A callable is asked for the snapshot only when it is needed. Sends posted pictures first.
        """
        self._send_posted()
        now = self._clock.mono_ns()
        if now < self._next_heartbeat_ns:
            return False
        self._next_heartbeat_ns = now + self.settings.heartbeat_ms * 1_000_000
        refusals = self._services.refusals()
        if refusals:
            # An alarm that ends at once: refusals are events, the state of the line is unchanged.
            self.send_alarm("peer_refused", True, refusals[-1])
            self.send_alarm("peer_refused", False, f"{len(refusals)} refused")
        for alarm in self._services.journal_alarms():
            self.send_alarm(alarm.name, alarm.active, alarm.text)
        health = snapshot() if callable(snapshot) else snapshot
        header = fields.HeartbeatHeader(
            v=fields.PROTOCOL,
            box=self._context.box,
            boot=self.boot,
            seq=self.last_seq,
            t=self._clock.wall_ns(),
            mono=now,
            period_ms=self.settings.heartbeat_ms,
            state=self.state,
            health=health,
            counts=self.counts,
            alarms=tuple(sorted({code for code, _ in self._alarms})),
        )
        events, maps = self._open_sockets()
        events.send(wire.encode_heartbeat(header))
        for name, socket in (("events", events), ("maps", maps)):
            socket.subscribers()
            self._services.note_foreign(name, socket.foreign)
        return True

    def close(self, text: str = "") -> None:
        """Say BYE, let the last events leave (at most `linger_ms`) and finish the journal.

        Safe to call twice.
        """
        if self._events is not None:
            self.send_state("BYE", text)
            self._release(self.settings.linger_ms)

    def _release(self, linger_ms: int) -> None:
        for socket in (self._events, self._maps):
            if socket is not None:
                socket.close(linger_ms)
        self._services.close()
        if self._zmq is not None:
            self._zmq.term()
        self._events = self._maps = self._zmq = None

    def __enter__(self) -> Publisher:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close("" if error is None else f"{type(error).__name__}")

    @property
    def active_alarms(self) -> tuple[tuple[int, str], ...]:
        """Code and camera ("" for none) of the alarms that are active; any thread."""
        return tuple(sorted(self._alarms))

    @property
    def replay_endpoint(self) -> str | None:
        return self._services.replay_endpoint

    @property
    def control_endpoint(self) -> str | None:
        return self._services.control_endpoint

    def control(self, line: LineControl) -> None:
        """Let the control socket act on `line` from now on."""
        self._services.line = line

    @property
    def subscribers(self) -> int:
        """How many clients subscribe to results now."""
        return self._open_sockets()[0].subscribers()

    def _open_sockets(self) -> tuple[FanOut, FanOut]:
        assert self._events is not None, "Publisher.open() comes first"
        assert self._maps is not None, "Publisher.open() comes first"
        return self._events, self._maps

    def _publish(self, seq: int, parts: list[bytes]) -> None:
        """First to the journal: what a subscriber has seen can always be fetched again."""
        if self._services.journal is not None:
            self._services.journal.append(seq, parts)
        self._open_sockets()[0].send(parts)

    def _number_regions(self, result: Result) -> None:
        """A plan that came later may have regions of its own: their numbers follow."""
        known = self._context.regions
        new = [defect.region for defect in result.defects if defect.region not in known]
        if new:
            regions = (*known, *dict.fromkeys(new))
            self._context = dataclasses.replace(self._context, regions=regions)

    def _send_posted(self) -> None:
        while self._posted:
            picture = self._posted.popleft()
            self._open_sockets()[1].send(wire.encode_picture(picture, self._context))

    def _wants_map(self, result: Result, counts: fields.CountFields) -> bool:
        if result.anomaly_map is None:
            return False
        total = counts.ok + counts.ng + counts.review + counts.err
        return chosen(self.settings.map_policy, result.verdict, total)


def new_boot() -> str:
    """A fresh 64-bit identity of this process, 16 hexadecimal digits."""
    return secrets.token_hex(8)


def count_verdict(counts: fields.CountFields, verdict: Verdict) -> fields.CountFields:
    """The counters after one more result."""
    return msgspec.structs.replace(counts, **{verdict.value: getattr(counts, verdict.value) + 1})
