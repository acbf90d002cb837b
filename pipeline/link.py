"""How far the connection got: is it the cable, the computer, the port, or the keys?

`LinkWatch` asks libzmq about a socket's own connection; `probe` knocks at the port with plain TCP,
only when that connection does not come about, because a box with keys notes each knock.
"""

from __future__ import annotations

import errno
import socket
import threading
from typing import Literal

import zmq
from zmq.utils.monitor import parse_monitor_message

from ..errors import NetworkError

Link = Literal["connecting", "connected", "ready", "refused"]
"""No TCP connection; TCP only; ZeroMQ's handshake done; the handshake failed (keys)."""
Reach = Literal["open", "refused", "silent", "unknown name", "local"]
"""Somebody accepts; the computer says that nobody does; no answer; no such name; not TCP at all."""
PROBE_S = 1.0
_AGAIN_NS = 3_000_000_000
_LINK_OF: dict[int, Link] = {
    zmq.EVENT_CONNECTED: "connected",
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "ready",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "refused",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "refused",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "refused",
    zmq.EVENT_DISCONNECTED: "connecting",
    zmq.EVENT_CONNECT_RETRIED: "connecting",
}


class LinkWatch:
    """Follows one socket; call `state` whenever `monitor` can be read, and `close` before its
    context ends."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        events = 0
        for event in _LINK_OF:
            events |= event
        address = f"inproc://link.{id(socket)}"
        socket.monitor(address, events)
        self.monitor = socket.context.socket(zmq.PAIR)
        self.monitor.setsockopt(zmq.LINGER, 0)
        # Without room for the next event libzmq would wait, and the connection with it. Nobody who
        # rarely looks pays much: an event is some bytes, and there are a few each second at most.
        self.monitor.setsockopt(zmq.RCVHWM, 0)
        self.monitor.connect(address)
        self._owner = socket
        self._state: Link = "connecting"
        self._tries_since_refusal = 0

    def state(self) -> Link:
        """As of now. A refusal stays while libzmq tries again, until a handshake succeeds."""
        while self.monitor.poll(0):
            event = parse_monitor_message(self.monitor.recv_multipart())["event"]
            found = _LINK_OF[event]
            if event == zmq.EVENT_CONNECT_RETRIED:
                self._tries_since_refusal += 1
            if found == "refused":
                self._tries_since_refusal = 0
            # Refused, closed, tried again: the keys are still wrong. But a connection that does not
            # come about any more has another reason.
            again = self._state == "refused" and found in ("connected", "connecting")
            if not again or self._tries_since_refusal >= 3:
                self._state = found
        return self._state

    def close(self) -> None:
        """Stop following."""
        if not self._owner.closed:
            self._owner.disable_monitor()
        self.monitor.close(linger=0)


def unanswered(endpoint: str, link: Link, waited_s: float, with_keys: bool) -> NetworkError:
    """What to tell who asked `endpoint` and got no answer. Knocks at the port where that helps."""
    text = f"no answer from {endpoint} within {waited_s:g} s"
    if link == "refused" and with_keys:
        return NetworkError(
            f"{text}: it refuses our key, or that key's role may not use this socket",
            "on the box: skrd4ad keys list KEYS, and the audit lines of its log",
        )
    if link == "refused":
        return NetworkError(f"{text}: it asks for a key", "give --key and --server-key")
    if link == "connecting":
        reach = probe(endpoint)
        if reach == "refused":
            return NetworkError(
                f"{text}: its computer answers, but nothing listens at this port",
                "is the stream running with this socket (--replay, --control), and is it the port?",
            )
        if reach in ("silent", "unknown name"):
            reason = "its computer does not answer" if reach == "silent" else "no such name"
            return NetworkError(f"{text}: {reason}", "check address, cable and firewall")
    return NetworkError(
        f"{text}, though the connection stands", "is the port the one of this socket?"
    )


def probe(endpoint: str, limit_s: float = PROBE_S) -> Reach:
    """Knock at a tcp:// endpoint once."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not endpoint.startswith("tcp://"):
        return "local"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=limit_s).close()
    except socket.gaierror:
        return "unknown name"
    except OSError as error:
        return "refused" if error.errno == errno.ECONNREFUSED else "silent"
    return "open"


class Prober:
    """Knocks again and again, in a thread, while that is wanted."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._found: Reach | None = None
        self._thread: threading.Thread | None = None
        self._next_ns = 0

    def look(self, wanted: bool, now_ns: int) -> Reach | None:
        """The newest answer; None when it is not wanted or not there yet."""
        if not wanted:
            self._found = None
            return None
        idle = self._thread is None or not self._thread.is_alive()
        if idle and now_ns >= self._next_ns:
            self._next_ns = now_ns + _AGAIN_NS
            self._thread = threading.Thread(target=self._knock, name="prober", daemon=True)
            self._thread.start()
        return self._found

    def _knock(self) -> None:
        self._found = probe(self._endpoint)
