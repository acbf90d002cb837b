"""Hostile peers on every socket: nothing ends, nothing grows, the line goes on.

The short form runs with the suite; `pytest -m soak` sends a million mutated messages.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
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
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.replay import replay_client
from skrd4ad.pipeline.replay_wire import Request, encode_request
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
TOKENS = [b"[", b"{", b'"', b"\\ud800", b"null", b"-1", b"1e999", b"\x00"]
PATIENCE_S = 20.0


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


def attack(publisher: Publisher, messages: int, seed: int) -> None:
    """Mutated messages at the decoder, at a subscriber, and at all four sockets of the box."""
    rng = random.Random(seed)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    liar = context.socket(zmq.PUB)  # a false box that our subscriber is led to
    liar.setsockopt(zmq.SNDHWM, 0)
    port = liar.bind_to_random_port("tcp://127.0.0.1")
    dealer = context.socket(zmq.DEALER)
    assert publisher.replay_endpoint is not None
    dealer.connect(publisher.replay_endpoint)
    orders = context.socket(zmq.DEALER)
    assert publisher.control_endpoint is not None
    orders.connect(publisher.control_endpoint)
    raws = [context.socket(zmq.XSUB) for _ in range(2)]
    for raw, endpoint in zip(
        raws, (publisher.events_endpoint, publisher.maps_endpoint), strict=True
    ):
        raw.connect(endpoint)
    publisher.send_state("RUNNING")
    with Subscriber(f"tcp://127.0.0.1:{port}") as stream:
        stream.receive(0.3)
        for number in range(messages):
            parts = mutate(rng, rng.choice(SEEDS))
            target = number % 5
            if target == 0:
                with contextlib.suppress(DecodeError):
                    wire.decode(parts)
            elif target == 1:
                liar.send_multipart(parts)
                stream.receive(0.0)
            elif target == 2:
                request = mutate(rng, rng.choice(REQUESTS))
                dealer.poll(int(PATIENCE_S * 1000), zmq.POLLOUT)
                dealer.send_multipart(request, flags=zmq.NOBLOCK)
                while dealer.poll(0):
                    dealer.recv_multipart()
            elif target == 3:
                orders.poll(int(PATIENCE_S * 1000), zmq.POLLOUT)
                orders.send_multipart(mutate(rng, rng.choice(ORDERS)), flags=zmq.NOBLOCK)
                while orders.poll(0):
                    orders.recv_multipart()
            else:
                # What a client sends to an XPUB: subscriptions, or anything else.
                with contextlib.suppress(zmq.Again):
                    rng.choice(raws).send(b"".join(parts)[:2000], flags=zmq.NOBLOCK)
                if number % 40 == 4:
                    assert publisher.subscribers <= 1
                    publisher.heartbeat_if_due(fields.HealthFields(ready=True, uptime_s=1.0))
                    publisher.send_state("RUNNING")
        while stream.receive(0.2) is not None:
            pass
    context.destroy(linger=0)
    # The box still answers and publishes.
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        seq = publisher.send_state("DRAINING")
        deadline = time.monotonic() + PATIENCE_S
        while stream.check.last_seq < seq:
            assert time.monotonic() < deadline
            stream.receive(0.1)
    with ControlClient(publisher.control_endpoint, patience_s=PATIENCE_S) as control:
        assert control.audit(1)
    assert publisher._services.journal is not None
    reader = publisher._services.journal.reader()
    assert any(entry.op == "malformed" for entry in reader.audit(1_000_000))
    reader.close()
    with replay_client(publisher.replay_endpoint) as client:
        assert client.snapshot(PATIENCE_S)[0].state == "DRAINING"


def test_mutated_messages_at_every_socket_end_nothing(publisher: Publisher) -> None:
    attack(publisher, 4000, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_mutated_messages_end_nothing_and_grow_nothing(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest keeps every log record of a test, and here each of a million messages is logged.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    process = psutil.Process(os.getpid())
    attack(publisher, 100_000, seed=2)
    before_mb = process.memory_info().rss / 1e6
    for seed in range(3, 12):
        attack(publisher, 100_000, seed=seed)
    grown_mb = process.memory_info().rss / 1e6 - before_mb
    print(f"\nfuzz: 1,000,000 mutated messages, memory grew by {grown_mb:.1f} MB")
    assert grown_mb < 50
