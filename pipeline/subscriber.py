"""The receiving edge: a stream of messages and notices, and whether it may be acted on.

    with Subscriber("tcp://edge07:5555") as stream:
        for item in stream.items():
            match item:
                case ResultMessage() if stream.status().ok: ...
                case Gap(): ...

Or with callbacks: `stream.run(on_item, on_status)`, in the caller's thread. A subscriber may start
before its publisher and survives its restarts.
With `replay`, events that were lost on the way are fetched from the box's journal by themselves.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType

import zmq

from ..errors import ConfigError, NetworkError
from .clock import SYSTEM_CLOCK, Clock
from .link import Link, LinkWatch
from .replay import ReplayClient
from .replay_wire import GapFiller
from .security import ClientKeys
from .stream_check import Gap, Notice, StreamCheck, StreamStatus
from .topics import KINDS
from .wire import Message, VersionError, decode
from .wire_map import MapMessage
from .wire_picture import PictureMessage
from .wire_record import DecodeError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replayed:
    """An event that had been lost and was fetched later. A reject gate must ignore it: its part
    has passed. An archive must not."""

    message: Message


@dataclass(frozen=True, slots=True)
class Gone:
    """Events that were lost and that the box does not have (any more)."""

    gap: Gap


Item = Message | Notice | Replayed | Gone
CLIENT_OPTIONS: dict[int, int] = {
    zmq.LINGER: 0,
    zmq.CONNECT_TIMEOUT: 1000,
    zmq.RECONNECT_IVL: 100,
    zmq.RECONNECT_IVL_MAX: 1000,
    zmq.HEARTBEAT_IVL: 500,
    zmq.HEARTBEAT_TIMEOUT: 2000,
    zmq.HEARTBEAT_TTL: 2000,
    zmq.MAXMSGSIZE: 8 * 1024 * 1024,
}
"""A healed cable is used again within a second or so; the defaults need seven."""
EVENTS_RCVHWM = 10_000
MAPS_RCVHWM, MAPS_RCVBUF = 2, 256 * 1024
MAPS_OPTIONS: dict[int, int] = {
    zmq.RCVHWM: MAPS_RCVHWM,
    zmq.RCVBUF: MAPS_RCVBUF,
    # No heartbeats of our own: libzmq 4.3.5 ends the whole process (an assertion in its
    # stream_engine_base.cpp) when one falls due on a connection that the peer has closed while a
    # full queue kept it from being read. The kernel finds a cut cable here; the box's heartbeats
    # go on.
    zmq.HEARTBEAT_IVL: 0,
    zmq.TCP_KEEPALIVE: 1,
    zmq.TCP_KEEPALIVE_IDLE: 2,
    zmq.TCP_KEEPALIVE_INTVL: 1,
    zmq.TCP_KEEPALIVE_CNT: 2,
}
REDIAL_NS = 10_000_000_000
"""Silence after which the box is called anew. libzmq gives an endpoint up for good when it meets
something else there once (a box with keys, another kind of socket), also when the right one comes.
"""
_FILL_STEP_MS = 50
_LAST_REPLAY_S = 1.0
"""After BYE, how long to wait for lost events: the box is closing its journal."""


class Subscriber:
    """Subscribes to all events of one box, and to its maps when `maps` names their endpoint.

    `pictures` also subscribes to the small pictures on the maps endpoint: the box compresses them
    only while somebody does.
    `replay` names the endpoint that lost events are fetched from; they come as `Replayed`.
    `keys` are needed where the box uses keys.
    `max_age_ms` bounds `fresh`. Usable as a context manager; raises ConfigError for an endpoint
    that is not one. Not thread-safe.
    """

    def __init__(
        self,
        connect: str,
        maps: str | None = None,
        *,
        pictures: bool = False,
        replay: str | None = None,
        keys: ClientKeys | None = None,
        max_age_ms: float = 1000.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.connect = connect
        self.maps = maps
        self.pictures = pictures
        self.replay = replay
        self.check = StreamCheck(max_age_ms)
        self.malformed = 0
        """Messages that were not SKRD/1; they are counted, logged and ignored."""
        self.foreign_versions = 0
        self._keys = keys
        self._clock = clock
        self._waiting: deque[Item] = deque()
        self._zmq: zmq.Context[zmq.Socket[bytes]] | None = None
        self._poller = zmq.Poller()
        self._filler = GapFiller()
        self._replay: ReplayClient | None = None
        self._events: zmq.Socket[bytes] | None = None
        self._link: LinkWatch | None = None
        self._heard_ns = 0
        """When an event last came, or the box was last called (monotonic)."""
        self._maps: zmq.Socket[bytes] | None = None

    def open(self) -> None:
        """Connect. Returns at once: whether anybody answers shows in `status`."""
        self._zmq = zmq.Context()
        self._heard_ns = self._clock.mono_ns()
        try:
            if self.maps is not None:
                # First the maps, so that they are subscribed when the publisher sees the events.
                self._maps = self._subscribe(self.maps, "maps", MAPS_OPTIONS)
            self._events = self._subscribe(self.connect, "events", {zmq.RCVHWM: EVENTS_RCVHWM})
            if self.replay is not None:
                self._replay = ReplayClient(self.replay, self._zmq, self._clock, self._keys)
                self._poller.register(self._replay.socket, zmq.POLLIN)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the sockets. Safe to call twice."""
        if self._link is not None:
            self._link.close()
            self._link = None
        for socket in (self._events, self._maps):
            if socket is not None:
                socket.close(linger=0)
        if self._replay is not None:
            self._replay.close()
        self._events = self._maps = self._replay = None
        self._poller = zmq.Poller()
        if self._zmq is not None:
            self._zmq.term()
            self._zmq = None

    def receive(self, timeout_s: float) -> Item | None:
        """The next message or notice; None when `timeout_s` passed without one.

        A notice comes before the message that revealed it. Events come before maps.
        """
        deadline_ns = self._clock.mono_ns() + int(timeout_s * 1e9)
        while not self._waiting:
            self._ask_for_gaps()
            self._redial_if_silent()
            left_ns = deadline_ns - self._clock.mono_ns()
            step_ms = max(left_ns // 1_000_000, 0)
            if self._filler.busy:
                step_ms = min(step_ms, _FILL_STEP_MS)
            ready = dict(self._poller.poll(step_ms))
            if self._link is not None and self._link.monitor in ready:
                self._link.state()
            if self._events is not None and self._events in ready:
                self._heard_ns = self._clock.mono_ns()
                self._take(self._events.recv_multipart())
            elif self._maps is not None and self._maps in ready:
                self._take(self._maps.recv_multipart())
            if self._replay is not None and self._replay.socket in ready:
                self._take_replay(self._replay)
            if left_ns <= 0 and not self._waiting:
                return None
        return self._waiting.popleft()

    def items(self, first_s: float = 30.0, silent_s: float = 5.0) -> Iterator[Item]:
        """Messages and notices until BYE, and the maps that came before it.

        Raises NetworkError when nothing at all came for `first_s`, or nothing (not even a
        heartbeat) for `silent_s` later on.
        """
        for item in self.ticks(first_s, silent_s, tick_s=max(first_s, silent_s)):
            if item is not None:
                yield item

    def ticks(self, first_s: float, silent_s: float, tick_s: float) -> Iterator[Item | None]:
        """As `items`, with None whenever `tick_s` passed without anything."""
        last_ns = self._clock.mono_ns()
        while True:
            limit_s = silent_s if self.check.boot else first_s
            if self.check.ended:
                limit_s = _LAST_REPLAY_S
            quiet_s = (self._clock.mono_ns() - last_ns) / 1e9
            item = self.receive(min(tick_s, max(limit_s - quiet_s, 0.0)))
            if item is not None:
                last_ns = self._clock.mono_ns()
            elif (self._clock.mono_ns() - last_ns) / 1e9 >= limit_s:
                if self.check.ended:
                    return
                raise self._silence(limit_s)
            yield item
            if self.check.ended and not self._waiting and not self._filler.busy:
                yield from self._last_maps()
                return

    def run(
        self,
        on_item: Callable[[Item, StreamStatus], None],
        on_status: Callable[[StreamStatus], None] = lambda status: None,
        stop: threading.Event | None = None,
        *,
        first_s: float = 30.0,
        silent_s: float = 5.0,
        tick_s: float = 0.05,
    ) -> None:
        """Call `on_item` with each message or notice and the status at that moment.

        `on_status` is told whenever verdicts may be acted on, or no longer: also when nothing
        arrives, within `tick_s`. Returns at BYE or when `stop` is set. Raises NetworkError as
        `items` does; `on_status` has been told before.
        """
        acting = False
        for item in self.ticks(first_s, silent_s, tick_s):
            status = self.status()
            if status.ok != acting:
                acting = status.ok
                on_status(status)
            if item is not None:
                on_item(item, status)
            if stop is not None and stop.is_set():
                return
        if acting and not self.status().ok:
            on_status(self.status())

    def status(self) -> StreamStatus:
        """alive, fresh, contiguous and valid, now."""
        return self.check.status(self._clock.mono_ns())

    @property
    def link(self) -> Link:
        """How far the connection to the events got."""
        return "connecting" if self._link is None else self._link.state()

    @property
    def with_keys(self) -> bool:
        """Whether we prove who we are."""
        return self._keys is not None

    def __enter__(self) -> Subscriber:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _subscribe(self, endpoint: str, name: str, options: dict[int, int]) -> zmq.Socket[bytes]:
        assert self._zmq is not None
        socket = self._zmq.socket(zmq.SUB)
        for option, value in {**CLIENT_OPTIONS, **options}.items():
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.IPV6, 1 if "[" in endpoint else 0)
        for kind, info in KINDS.items():
            # All kinds that take a seq must be subscribed, or losses could not be told.
            if info.socket == name and (kind != "pic" or self.pictures):
                socket.setsockopt(zmq.SUBSCRIBE, f"{kind}/".encode("ascii"))
        if self._keys is not None:
            self._keys.protect(socket)
        if name == "events":
            self._link = LinkWatch(socket)
            self._poller.register(self._link.monitor, zmq.POLLIN)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            if self._link is not None:
                self._link.close()
                self._link = None
            socket.close(linger=0)
            raise ConfigError(
                f"{endpoint!r} cannot be connected to: {error.strerror}",
                "write it as tcp://HOST:PORT, for example tcp://127.0.0.1:5555",
            ) from None
        self._poller.register(socket, zmq.POLLIN)
        return socket

    def _redial_if_silent(self) -> None:
        now_ns = self._clock.mono_ns()
        if now_ns - self._heard_ns < REDIAL_NS:
            return
        self._heard_ns = now_ns
        for socket, endpoint in ((self._maps, self.maps), (self._events, self.connect)):
            if socket is None or endpoint is None:
                continue
            try:
                socket.disconnect(endpoint)
            except zmq.ZMQError as error:
                if error.errno != errno.ENOENT:  # given up already
                    raise
            socket.connect(endpoint)

    def _take(self, parts: list[bytes]) -> None:
        try:
            message = decode(parts)
        except VersionError as error:
            if not self.foreign_versions:
                log.error("%s (said once; such messages are counted and ignored)", error)
            self.foreign_versions += 1
            return
        except DecodeError as error:
            self.malformed += 1
            log.warning("ignored a malformed message: %s", error)
            return
        if isinstance(message, MapMessage | PictureMessage):
            self._waiting.append(message)
            return
        if self.check.box and message.header.box != self.check.box:
            self.malformed += 1
            log.warning("ignored an event of %s: following %s", message.header.box, self.check.box)
            return
        notices = self.check.receive(message, self._clock.mono_ns())
        if notices is not None:
            self._waiting.extend((*notices, message))
            for notice in notices:
                if isinstance(notice, Gap) and self._replay is not None:
                    self._filler.add(notice)

    def _ask_for_gaps(self) -> None:
        if self._replay is not None:
            request = self._filler.request(self._clock.mono_ns())
            if request is not None:
                self._replay.ask(request)

    def _take_replay(self, client: ReplayClient) -> None:
        answer = client.answer(0.0)
        if answer is None:
            return
        filled = self._filler.receive(*answer, self._clock.mono_ns())
        for message in filled.messages:
            if self.check.fill(message.header.seq):
                self._waiting.append(Replayed(message))
        self._waiting.extend(Gone(gap) for gap in filled.gone)

    def _silence(self, limit_s: float) -> NetworkError:
        if self.check.boot:
            return NetworkError(
                f"the stream of {self.check.box} at {self.connect} fell silent: nothing for "
                f"{limit_s:g} s after event {self.check.last_seq}",
                "is the box running, and the network between? the line must be stopped",
            )
        return NetworkError(
            f"nothing was heard from {self.connect} for {limit_s:g} s",
            "is `skrd4ad stream` running there, and is the port the one of its events?",
        )

    def _last_maps(self) -> Iterator[Item]:
        """Maps travel beside the events: BYE may overtake the last of them by a moment."""
        while self._maps is not None and self._maps.poll(200):
            self._take(self._maps.recv_multipart())
            yield from self._waiting
            self._waiting.clear()
