"""Hostile peers on every socket: nothing ends, nothing grows, the line goes on.

A false box at our subscriber, mutated requests at replay and control, anything at all at the two
publishing sockets, mutated questions at the door (ZAP), and mutated greetings, as plain TCP, at all
four sockets with and without keys. The short form runs with the suite; `pytest -m soak` sends a
million messages over sockets.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import zmq
from skrd4ad.pipeline import wire
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.control_wire import (
    Audit,
    Drain,
    Feedback,
    Reload,
    Resync,
    SetThreshold,
    Trigger,
)
from skrd4ad.pipeline.control_wire import encode_request as encode_order
from skrd4ad.pipeline.journal import JournalSettings
from skrd4ad.pipeline.key_files import write_key_pair
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.replay import replay_client
from skrd4ad.pipeline.replay_wire import Request, encode_request
from skrd4ad.pipeline.security import ZAP_ENDPOINT, new_key_pair
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire_record import DecodeError

FREE = "tcp://127.0.0.1:0"
GOLDEN = Path(__file__).parent / "golden"
SEEDS = [[path.read_bytes() for path in sorted(folder.iterdir())] for folder in GOLDEN.iterdir()]
REQUESTS = [
    [encode_request(Request(id=1, op="snapshot"))],
    [encode_request(Request(id=2, op="get", first=1, last=50))],
    [encode_request(Request(id=3, op="part", part="A-1"))],
]
ORDERS = [
    [encode_order(order)]
    for order in (
        Trigger(id="same-id-1", part="A-1"),
        Feedback(id="same-id-2", seq=1, truth="ng", who="Anna"),
        SetThreshold(id="same-id-3", value=0.5),
        Reload(id="same-id-4", plan="a.plan"),
        Resync(id="same-id-5"),
        Drain(id="same-id-6"),
        Audit(id="same-id-7"),
    )
]
QUESTIONS = [
    [b"", b"1.0", b"1", domain, b"10.0.0.9", b"", b"CURVE", bytes(32)]
    for domain in (b"events", b"maps", b"replay", b"control", b"elsewhere")
]
"""What libzmq asks the door (rfc.zeromq.org/spec/27), behind the empty part of a request."""
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"
GREETINGS = [
    [
        _GREETING + mechanism.ljust(20, b"\0") + bytes(32),
        b"\x04" + bytes([len(command)]) + command + b"\x00\x05\x01res/",
    ]
    for mechanism, command in (
        (b"NULL", b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"),
        (b"CURVE", b"\x05HELLO\x01\x00" + bytes(192)),
        (b"PLAIN", b"\x05HELLO\x05admin\x05admin"),
    )
]
"""A connection's first bytes (rfc.zeromq.org/spec/37): greeting, then the mechanism's command."""
PATIENCE_S = 60.0


def mutate(rng: random.Random, seed: list[bytes]) -> list[bytes]:
    """One message with one to four changes: bytes, lengths, parts, numbers out of range."""
    parts = [bytearray(part) for part in seed]
    for _ in range(rng.randint(1, 4)):
        if not parts:
            break
        part = parts[rng.randrange(len(parts))]
        at = rng.randrange(len(part) + 1)
        choice = rng.randrange(8)
        if choice == 0 and part:
            part[at % len(part)] = rng.randrange(256)
        elif choice == 1:
            part[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif choice == 2:
            del part[at : at + rng.randrange(1, 30)]
        elif choice == 3:
            part[at:at] = b"9" * rng.randrange(1, 40)
        elif choice == 4:
            part[at:at] = rng.choice(
                [b"[", b"{", b'"', b"\\ud800", b"null", b"-1", b"1e999", b"\x00"]
            )
        elif choice == 5:
            parts.append(bytearray(rng.randbytes(rng.randrange(100))))
        elif choice == 6:
            parts.remove(part)
        else:
            part[:] = part * 2
    return [bytes(part) for part in parts] or [b""]


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    journal = JournalSettings(path=str(tmp_path / "journal.sqlite3"), min_free_mb=0.0)
    settings = PublishSettings(
        events=FREE, maps=FREE, map_policy="all", replay=FREE, control=FREE, journal=journal
    )
    with Publisher(settings, "edge07") as opened:
        yield opened


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Publisher]:
    """The same with keys."""
    write_key_pair(tmp_path / "keys", "server", "server", *new_key_pair())
    journal = JournalSettings(path=str(tmp_path / "locked.sqlite3"), min_free_mb=0.0)
    settings = PublishSettings(
        events=FREE, maps=FREE, replay=FREE, control=FREE, journal=journal,
        keys=str(tmp_path / "keys"),
    )  # fmt: skip
    with Publisher(settings, "edge08") as opened:
        yield opened


def endpoints(box: Publisher) -> list[str]:
    found = [box.events_endpoint, box.maps_endpoint, box.replay_endpoint, box.control_endpoint]
    return [endpoint for endpoint in found if endpoint is not None]


class Attacker:
    """One hostile connection of each kind; every method sends one mutated message over a socket."""

    def __init__(self, publisher: Publisher, locked: Publisher, seed: int) -> None:
        self.publisher, self.locked = publisher, locked
        self.rng = random.Random(seed)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.liar = self.context.socket(zmq.PUB)
        self.liar.setsockopt(zmq.SNDHWM, 0)
        port = self.liar.bind_to_random_port("tcp://127.0.0.1")
        self.stream = Subscriber(f"tcp://127.0.0.1:{port}")
        self.stream.open()
        self.stream.receive(0.3)
        events, maps, replay, control = endpoints(publisher)
        self.replay = self._connected(zmq.DEALER, replay)
        self.control = self._connected(zmq.DEALER, control)
        self.raws = [self._connected(zmq.XSUB, endpoint) for endpoint in (events, maps)]
        assert locked._zmq is not None
        self.door = locked._zmq.socket(zmq.DEALER)
        self.door.connect(ZAP_ENDPOINT)
        self.doors = [
            (host, int(port))
            for box in (publisher, locked)
            for host, _, port in (e.removeprefix("tcp://").rpartition(":") for e in endpoints(box))
        ]

    def _connected(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        made = self.context.socket(kind)
        made.connect(endpoint)
        return made

    def lie(self) -> None:
        """A false box, which our subscriber was led to."""
        parts = mutate(self.rng, self.rng.choice(SEEDS))
        with contextlib.suppress(DecodeError):
            wire.decode(parts)
        self.liar.send_multipart(parts)
        self.stream.receive(0.0)

    def ask(self, target: zmq.Socket[bytes], seeds: list[list[bytes]]) -> None:
        target.poll(int(PATIENCE_S * 1000), zmq.POLLOUT)
        target.send_multipart(mutate(self.rng, self.rng.choice(seeds)), flags=zmq.NOBLOCK)
        while target.poll(0):
            target.recv_multipart()

    def subscribe(self) -> None:
        """What a client sends to an XPUB: subscriptions, or anything else."""
        parts = mutate(self.rng, self.rng.choice(SEEDS))
        with contextlib.suppress(zmq.Again):
            self.rng.choice(self.raws).send(b"".join(parts)[:2000], flags=zmq.NOBLOCK)

    def greet(self) -> None:
        """A TCP connection whose first bytes are nearly right."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(self.rng.choice(self.doors), timeout=PATIENCE_S) as plain,
        ):
            plain.sendall(b"".join(mutate(self.rng, self.rng.choice(GREETINGS))))

    def turn(self, number: int) -> None:
        target = number % 5
        if target == 0:
            self.lie()
        elif target == 1:
            self.ask(self.replay, REQUESTS)
        elif target == 2:
            self.ask(self.control, ORDERS)
        elif target == 3:
            self.subscribe()
        elif number % 50 == 4:
            self.greet()
        else:
            self.ask(self.door, QUESTIONS)
        if number % 40 == 4:
            assert self.publisher.subscribers <= 1
            for box in (self.publisher, self.locked):
                box.heartbeat_if_due(fields.HealthFields(ready=True, uptime_s=1.0))
                box.send_state("RUNNING")

    def close(self) -> None:
        while self.stream.receive(0.2) is not None:
            pass
        self.stream.close()
        self.door.close(linger=0)
        self.context.destroy(linger=0)


def attack(publisher: Publisher, locked: Publisher, messages: int, seed: int) -> None:
    attacker = Attacker(publisher, locked, seed)
    publisher.send_state("RUNNING")
    for number in range(messages):
        attacker.turn(number)
    attacker.close()
    # The box still answers and publishes.
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        seq = publisher.send_state("DRAINING")
        deadline = time.monotonic() + PATIENCE_S
        while stream.check.last_seq < seq:
            assert time.monotonic() < deadline
            stream.receive(0.1)
    assert publisher.control_endpoint is not None
    with ControlClient(publisher.control_endpoint, patience_s=PATIENCE_S) as control:
        assert control.audit(1)
    assert publisher._services.journal is not None
    reader = publisher._services.journal.reader()
    assert any(entry.op == "malformed" for entry in reader.audit(1_000_000))
    reader.close()
    assert publisher.replay_endpoint is not None
    with replay_client(publisher.replay_endpoint) as client:
        assert client.snapshot(PATIENCE_S)[0].state == "DRAINING"
    # The box with keys let nobody in, and its door still answers.
    assert locked._services._door is not None
    assert locked._services._door.admitted == 0
    assert locked._zmq is not None
    with locked._zmq.socket(zmq.DEALER) as door:
        door.connect(ZAP_ENDPOINT)
        door.send_multipart(QUESTIONS[0])
        assert door.poll(int(PATIENCE_S * 1000))
        assert door.recv_multipart()[3] == b"400"


def test_mutated_messages_at_every_socket_end_nothing(
    publisher: Publisher, locked: Publisher
) -> None:
    attack(publisher, locked, 4000, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_mutated_messages_end_nothing_and_grow_nothing(
    publisher: Publisher, locked: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps every log record of a test, and here each of a million messages is logged.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    process = psutil.Process(os.getpid())
    attack(publisher, locked, 100_000, seed=2)
    before_mb = process.memory_info().rss / 1e6
    for seed in range(3, 12):
        attack(publisher, locked, 100_000, seed=seed)
    grown_mb = process.memory_info().rss / 1e6 - before_mb
    print(f"\nfuzz: 1,000,000 mutated messages, memory grew by {grown_mb:.1f} MB")
    assert grown_mb < 50
