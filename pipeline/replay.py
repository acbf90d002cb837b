"""Replay over a ROUTER socket: how things are now, and any stored event again, in pages.

The server has its own thread, socket and journal connection: a client that asks for a million
events slows no verdict. The client side serves `Subscriber` and the verb `replay`.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import zmq

from ..errors import ConfigError, NetworkError
from . import wire_messages as fields
from .clock import SYSTEM_CLOCK, Clock
from .endpoints import bind_problem
from .journal import Journal
from .journal_store import JournalStore
from .link import LinkWatch, unanswered
from .refusals import Refusals
from .replay_wire import (
    CUT_OFF_BYTES,
    PAGE_EVENTS,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from .security import ClientKeys
from .wire import Message
from .wire_record import DecodeError

log = logging.getLogger(__name__)

_POLL_MS = 100
_MAX_REPLY_PART = 8 * 1024 * 1024
_PAGES_AHEAD = 4
"""Requests in flight: the box reads while the client decodes."""
HEARTBEAT_OPTIONS: dict[int, int] = {
    zmq.HEARTBEAT_IVL: 500,
    zmq.HEARTBEAT_TIMEOUT: 2000,
    zmq.HEARTBEAT_TTL: 2000,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The publisher's state at one moment."""

    box: str
    boot: str
    seq: int
    state: fields.State
    counts: fields.CountFields
    last_results: tuple[list[bytes], ...]
    """The newest result of each camera."""


class ReplayServer:
    """Answers on `endpoint` until `close`. `open` raises NetworkError when it cannot be bound."""

    def __init__(
        self,
        endpoint: str,
        journal: Journal,
        snapshot: Callable[[], Snapshot],
    ) -> None:
        self.endpoint = endpoint
        self.refusals = Refusals(journal, "replay")
        """Messages that were no requests."""
        self._journal = journal
        self._snapshot = snapshot
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        protect: Callable[[zmq.Socket[bytes]], None] | None = None,
    ) -> None:
        """Bind in `context`; `protect` puts keys on the socket."""
        socket = context.socket(zmq.ROUTER)
        for option, value in {
            **HEARTBEAT_OPTIONS,
            zmq.LINGER: 0,
            zmq.SNDHWM: 256,
            zmq.ROUTER_MANDATORY: 1,
            zmq.MAXMSGSIZE: CUT_OFF_BYTES,
        }.items():
            socket.setsockopt(option, value)
        if protect is not None:
            protect(socket)
        try:
            socket.bind(self.endpoint.removesuffix(":0") + ":*" * self.endpoint.endswith(":0"))
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise bind_problem(self.endpoint, error.errno or 0, error.strerror) from None
        self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(
            target=self._serve, args=(socket,), name="replay", daemon=True
        )
        self._thread.start()
        log.info("replay on %s", self.endpoint)

    def close(self) -> None:
        """Stop answering. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)
            self._thread = None

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        reader: JournalStore | None = None
        keyed = bool(socket.getsockopt(zmq.CURVE_SERVER)) if zmq.has("curve") else False
        while not self._stop.is_set():
            if not socket.poll(_POLL_MS):
                continue
            identity, *frames = socket.recv_multipart(copy=False)
            client, parts = identity.bytes, [frame.bytes for frame in frames]
            try:
                request = decode_request(parts)
            except DecodeError as error:
                who = str(frames[0].get("User-Id")) if keyed else "local"
                self.refusals.note(who, "client" if keyed else "engineer", str(error))
                continue
            try:
                reader = reader or self._journal.reader()
                answer = self._answer(request, reader)
            except sqlite3.Error as error:
                log.warning("the journal cannot be read now: %s", error)
                if reader is not None:
                    reader.close()
                reader = None
                answer = encode_reply(self._reply(request, error=f"journal: {error}"), [])
            try:
                socket.send_multipart([client, *answer], flags=zmq.NOBLOCK)
            except zmq.ZMQError as error:
                # The client has gone or does not read; it will ask again.
                log.info("a replay client did not take its answer: %s", error)
        if reader is not None:
            reader.close()
        socket.close(linger=0)

    def _answer(self, request: Request, reader: JournalStore) -> list[bytes]:
        oldest, newest = reader.span()
        if request.op == "snapshot":
            events = list(self._snapshot().last_results)
            return encode_reply(
                self._reply(request, oldest=oldest, newest=newest, n=len(events)), events
            )
        if request.op == "part":
            events = reader.of_part(request.part, PAGE_EVENTS)
        else:
            events = reader.page(request.first, request.last, PAGE_EVENTS)
        return encode_reply(
            self._reply(
                request,
                oldest=oldest,
                newest=newest,
                n=len(events),
                more=len(events) == PAGE_EVENTS,
            ),
            events,
        )

    def _reply(
        self,
        request: Request,
        *,
        oldest: int = 0,
        newest: int = 0,
        n: int = 0,
        more: bool = False,
        error: str = "",
    ) -> Reply:
        now = self._snapshot()
        return Reply(
            id=request.id,
            op=request.op,
            box=now.box,
            boot=now.boot,
            seq=now.seq,
            state=now.state,
            counts=now.counts,
            oldest=oldest,
            newest=newest,
            n=n,
            more=more,
            error=error[:200],
        )


@contextlib.contextmanager
def replay_client(connect: str, keys: ClientKeys | None = None) -> Iterator[ReplayClient]:
    """A client with a context of its own. Raises ConfigError for what is not an endpoint."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        client = ReplayClient(connect, context, keys=keys, watch=True)
        try:
            yield client
        finally:
            client.close()
    finally:
        context.destroy(linger=0)


class ReplayClient:
    """One DEALER. `ask` sends, `answer` waits; `call` does both. Not thread-safe."""

    def __init__(
        self,
        connect: str,
        context: zmq.Context[zmq.Socket[bytes]],
        clock: Clock = SYSTEM_CLOCK,
        keys: ClientKeys | None = None,
        *,
        watch: bool = False,
    ) -> None:
        """`watch` follows the connection, so that a missing answer can be explained."""
        self.connect = connect
        self._clock = clock
        self._id = 0
        self.socket = context.socket(zmq.DEALER)
        self._with_keys = keys is not None
        self._link = LinkWatch(self.socket) if watch else None
        for option, value in {
            **HEARTBEAT_OPTIONS,
            zmq.LINGER: 0,
            zmq.CONNECT_TIMEOUT: 1000,
            zmq.RECONNECT_IVL: 100,
            zmq.RECONNECT_IVL_MAX: 1000,
            zmq.MAXMSGSIZE: _MAX_REPLY_PART,
        }.items():
            self.socket.setsockopt(option, value)
        if keys is not None:
            keys.protect(self.socket)
        try:
            self.socket.connect(connect)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"{connect!r} cannot be connected to: {error.strerror}",
                "write it as tcp://HOST:PORT, for example tcp://127.0.0.1:5557",
            ) from None

    def close(self) -> None:
        """Before the context ends."""
        if self._link is not None:
            self._link.close()
        self.socket.close(linger=0)

    def ask(self, request: Request) -> None:
        """Send without waiting; an unreachable box is noticed by the missing answer."""
        try:
            self.socket.send(encode_request(request), flags=zmq.NOBLOCK)
        except zmq.Again:
            log.info("%s does not take requests now", self.connect)

    def answer(self, timeout_s: float) -> tuple[Reply, list[Message]] | None:
        """The next answer that can be decoded, None when none came in time."""
        deadline_ns = self._clock.mono_ns() + int(timeout_s * 1e9)
        while self.socket.poll(max((deadline_ns - self._clock.mono_ns()) // 1_000_000, 0)):
            try:
                return decode_reply(self.socket.recv_multipart())
            except DecodeError as error:
                log.warning("ignored a malformed answer: %s", error)
        return None

    def call(self, request: Request, patience_s: float) -> tuple[Reply, list[Message]]:
        """Ask until there is an answer. Raises NetworkError when none came in `patience_s`."""
        deadline_ns = self._clock.mono_ns() + int(patience_s * 1e9)
        while self._clock.mono_ns() < deadline_ns:
            self.ask(request)
            left_s = (deadline_ns - self._clock.mono_ns()) / 1e9
            found = self.answer(min(2.0, max(left_s, 0.0)))
            while found is not None and found[0].id != request.id:
                found = self.answer(0.5)
            if found is not None:
                return found
        link = "ready" if self._link is None else self._link.state()
        raise unanswered(self.connect, link, patience_s, self._with_keys)

    def snapshot(self, patience_s: float = 5.0) -> tuple[Reply, list[Message]]:
        """How things are, and the newest result of each camera."""
        return self.call(Request(id=self._next_id(), op="snapshot"), patience_s)

    def of_part(self, part: str, patience_s: float = 5.0) -> list[Message]:
        """The stored results of one part."""
        return self.call(Request(id=self._next_id(), op="part", part=part), patience_s)[1]

    def events(self, first: int, last: int, patience_s: float = 5.0) -> Iterator[Message]:
        """All stored events with first <= seq <= last, in order.

        While one page is decoded the box reads the next ones. Raises NetworkError when an answer
        is missing for `patience_s`, or says that the journal cannot be read.
        """
        now, _ = self.snapshot(patience_s)
        first, newest = max(first, now.oldest), now.newest
        ahead: deque[Request] = deque()
        while first <= min(last, newest) or ahead:
            while first <= min(last, newest) and len(ahead) < _PAGES_AHEAD:
                page_to = min(first + PAGE_EVENTS - 1, last)
                ahead.append(Request(id=self._next_id(), op="get", first=first, last=page_to))
                self.ask(ahead[-1])
                first = page_to + 1
            wanted = ahead.popleft()
            found = self.answer(patience_s)
            while found is not None and found[0].id < wanted.id:
                found = self.answer(patience_s)
            if found is None or found[0].id != wanted.id:
                # Something was lost on the way: this page again, the later ones after it.
                first = wanted.last + 1
                ahead.clear()
                found = self.call(msgspec.structs.replace(wanted, id=self._next_id()), patience_s)
            reply, messages = found
            if reply.error:
                raise NetworkError(f"{self.connect}: {reply.error}", "look at the box's log")
            newest = max(newest, reply.newest)
            yield from messages

    def _next_id(self) -> int:
        self._id += 1
        return self._id
