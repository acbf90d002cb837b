"""CURVE on the sockets, and the door: who is let in is decided here, for every new connection.

libzmq asks over ZAP (rfc.zeromq.org/spec/27) with the client's proved public key; the answer comes
from the allow-list as it is on the disk at that moment, and each refusal leaves an audit line.
"""

from __future__ import annotations

import argparse
import logging
import queue
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

from ..errors import ConfigError
from .key_files import (
    DOMAIN_ROLES,
    PublicKey,
    SecretKey,
    allowed_keys,
    read_public_key,
    read_secret_key,
)

log = logging.getLogger(__name__)

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_SAME_REFUSAL_S = 60.0
"""A client that is refused tries again and again; one audit line a minute is enough."""


def new_key_pair() -> tuple[str, str]:
    """(public, secret), 40 characters each."""
    public, secret = zmq.curve_keypair()
    return public.decode("ascii"), secret.decode("ascii")


def protect_server(socket: zmq.Socket[bytes], server: SecretKey, domain: str) -> None:
    """Before bind: only clients that the door lets into `domain` get through."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, server.secret.encode("ascii"))
    socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode("ascii"))
    # Without this, a missing door would be an open one.
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """What a client needs to connect to a protected box."""

    client: SecretKey
    server: PublicKey

    @classmethod
    def read(cls, secret: Path, server: Path) -> ClientKeys:
        """From a `.secret` file and the box's server.key. Raises NetworkError."""
        return cls(read_secret_key(secret), read_public_key(server))

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Before connect: prove who we are, and talk to nobody but that server."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server.public.encode("ascii"))
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.client.public.encode("ascii"))
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.client.secret.encode("ascii"))


def client_keys(secret: Path | None, server: Path | None) -> ClientKeys | None:
    """From the options --key and --server-key: both or neither. Raises ConfigError."""
    if secret is None and server is None:
        return None
    if secret is None or server is None:
        raise ConfigError(
            "--key and --server-key go together", "the client's .secret and the box's server.key"
        )
    return ClientKeys.read(secret, server)


def add_key_arguments(parser: argparse.ArgumentParser) -> None:
    """--key and --server-key, for every verb that connects to a box."""
    parser.add_argument("--key", type=Path, metavar="FILE", help="our .secret, where keys are used")
    parser.add_argument("--server-key", type=Path, metavar="FILE", help="the box's server.key")


def decide(folder: Path, domain: str, mechanism: str, public: str) -> tuple[PublicKey | None, str]:
    """(who, "") when the key may use the socket, else (who or None, the reason)."""
    if mechanism != "CURVE":
        return None, f"no key ({mechanism})"
    who = allowed_keys(folder).get(public)
    if who is None:
        return None, f"unknown key {public}"
    if who.role not in DOMAIN_ROLES.get(domain, frozenset()):
        return who, f"{who.name} has the role {who.role}, which may not use {domain}"
    return who, ""


class Door:
    """Answers libzmq's questions for one context, on its own thread.

    `folder` holds server.secret and allowed/. `open` before any socket of the context binds; raises
    NetworkError for a missing or badly kept server key.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = read_secret_key(folder / "server.secret")
        self.admitted = 0
        self._to_watch: queue.SimpleQueue[tuple[zmq.Socket[bytes], str]] = queue.SimpleQueue()
        self._refusals: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._told: dict[tuple[str, str], float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        socket = context.socket(zmq.REP)
        socket.setsockopt(zmq.LINGER, 0)
        socket.bind(ZAP_ENDPOINT)
        self._thread = threading.Thread(target=self._serve, args=(socket,), name="door")
        self._thread.daemon = True
        self._thread.start()

    def watch(self, socket: zmq.Socket[bytes], domain: str) -> None:
        """Note also clients that speak no CURVE at all: libzmq sends those away without asking."""
        address = f"inproc://door.{domain}.{id(socket)}"
        # Either side may notice first that they do not fit, so both events mean the same.
        events = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        socket.monitor(address, events)
        # Connected here and handed over: what happens before is not told again.
        monitor = socket.context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        monitor.connect(address)
        self._to_watch.put((monitor, domain))

    def close(self) -> None:
        """Stop answering; nobody is let in any more. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)
            self._thread = None

    def refusals(self) -> list[str]:
        """Audit lines since the last call."""
        found = []
        while not self._refusals.empty():
            found.append(self._refusals.get())
        return found

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        watched: dict[zmq.Socket[bytes], str] = {}
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        while not self._stop.is_set():
            while not self._to_watch.empty():
                monitor, domain = self._to_watch.get()
                poller.register(monitor, zmq.POLLIN)
                watched[monitor] = domain
            for ready, _ in poller.poll(100):
                if ready is socket:
                    socket.send_multipart(self._answer(socket.recv_multipart()))
                else:
                    # Two parts: the event's number and value, and our own endpoint.
                    ready.recv_multipart()
                    self._tell("a client", watched[ready], "no key (no CURVE handshake)")
        while not self._to_watch.empty():
            watched.update([self._to_watch.get()])
        for one in (socket, *watched):
            one.close(linger=0)

    def _answer(self, request: list[bytes]) -> list[bytes]:
        # version, request id, domain, address, routing id, mechanism, credentials...
        if len(request) < 6 or request[0] != b"1.0":
            return [
                b"1.0",
                request[1] if len(request) > 1 else b"",
                b"500",
                b"bad request",
                b"",
                b"",
            ]
        domain, address, mechanism = (request[at].decode("ascii", "replace") for at in (2, 3, 5))
        raw = request[6] if len(request) > 6 and len(request[6]) == 32 else bytes(32)
        public = z85.encode(raw).decode("ascii")
        who, reason = decide(self.folder, domain, mechanism, public)
        if reason:
            self._tell(address, domain, reason)
            return [b"1.0", request[1], b"400", b"not allowed", b"", b""]
        assert who is not None
        self.admitted += 1
        log.info("audit: %s (%s) from %s admitted to %s", who.name, who.role, address, domain)
        return [b"1.0", request[1], b"200", b"OK", who.name.encode("ascii"), b""]

    def _tell(self, address: str, domain: str, reason: str) -> None:
        now = time.monotonic()
        key = (address, f"{domain}: {reason}")
        if now - self._told.get(key, -_SAME_REFUSAL_S) < _SAME_REFUSAL_S:
            return
        if len(self._told) > 1000:
            self._told.clear()
        self._told[key] = now
        self._refusals.put(f"{address} at {domain}: {reason}")
        log.warning("audit: %s refused at %s: %s", address, domain, reason)
