"""One XPUB socket: bound, never blocking, and aware of who listens."""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable

import zmq

from .endpoints import bind_problem

log = logging.getLogger(__name__)

HEARTBEAT_OPTIONS: dict[int, int] = {
    zmq.HEARTBEAT_IVL: 500,
    zmq.HEARTBEAT_TIMEOUT: 2000,
    zmq.HEARTBEAT_TTL: 2000,
}
"""Without these a cut cable is invisible to both ends; with them it shows within three seconds."""

MAX_FROM_SUBSCRIBER_BYTES = 64 * 1024


class FanOut:
    """Binds `endpoint` (":0" for a free port); raises NetworkError when that is not possible.

    `kinds` are the topic prefixes whose subscriptions are counted; those of the first one, for
    example b"res/", are the subscribers.
    `protect` puts keys on the socket.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        kinds: tuple[bytes, ...],
        options: dict[int, int],
        protect: Callable[[zmq.Socket[bytes]], None] | None = None,
    ) -> None:
        self._counts = dict.fromkeys(kinds, 0)
        self._subscribers_of = kinds[0]
        self.foreign: deque[str] = deque(maxlen=100)
        """What clients sent that is no subscription, until somebody looks."""
        self._socket = context.socket(zmq.XPUB)
        # Every subscription is passed up, also repeated ones and those of peers that vanish:
        # this is how subscribers are counted.
        defaults: dict[int, int] = {
            zmq.LINGER: 0,
            zmq.XPUB_VERBOSER: 1,
            # What a client sends here is a topic. Longer messages are noted up to this size;
            # beyond it libzmq cuts the connection.
            zmq.MAXMSGSIZE: MAX_FROM_SUBSCRIBER_BYTES,
            zmq.IPV6: int("[" in endpoint),
        }
        for option, value in {**defaults, **HEARTBEAT_OPTIONS, **options}.items():
            self._socket.setsockopt(option, value)
        if protect is not None:
            protect(self._socket)
        try:
            self._socket.bind(re.sub(r":0$", ":*", endpoint))
        except zmq.ZMQError as error:
            self._socket.close(linger=0)
            raise bind_problem(endpoint, error.errno or 0, error.strerror) from None
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def send(self, parts: list[bytes]) -> None:
        """Hand a message to all subscribers that keep up; the others lose it."""
        # libzmq looks for what subscribers have read only once in about a millisecond, and takes
        # one for slow that has read everything meanwhile: a fifth map at once would be lost to it.
        # Asking for EVENTS makes it look now.
        self._socket.getsockopt(zmq.EVENTS)
        try:
            self._socket.send_multipart(parts, flags=zmq.NOBLOCK)
        except zmq.Again:
            # XPUB without NODROP never says this; should libzmq ever, the line must not wait.
            log.error("the socket refused message %s", parts[0].decode("ascii"))

    def subscribers(self, wait_ms: int = 0) -> int:
        """How many subscribe now; looks again when something changed within `wait_ms`."""
        if wait_ms:
            self._socket.poll(wait_ms)
        while True:
            try:
                message = self._socket.recv(flags=zmq.NOBLOCK)
            except zmq.Again:
                return self._counts[self._subscribers_of]
            prefix, came = message[1:], message[:1] == b"\x01"
            if message[:1] in (b"\x00", b"\x01"):
                for kind in self._counts:
                    if prefix.startswith(kind) or kind.startswith(prefix):
                        self._counts[kind] += 1 if came else -1
            else:
                self.foreign.append(f"{len(message)} bytes that are no subscription")

    def counted(self, kind: bytes) -> int:
        """How many subscribed to one of `kinds` when `subscribers` was last called; any thread."""
        return self._counts[kind]

    def close(self, linger_ms: int = 0) -> None:
        """Close; `linger_ms` is how long the last messages may take to leave."""
        self._socket.close(linger=linger_ms)
