"""Every socket against everybody who does not belong: nothing out, an audit line, the line runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
from skrd4ad.errors import NetworkError
from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.control_wire import AuditEntry, SetThreshold, Trigger, encode_request
from skrd4ad.pipeline.journal import JournalSettings
from skrd4ad.pipeline.key_files import read_public_key, write_key_pair, write_public_key
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.replay import replay_client
from skrd4ad.pipeline.replay_wire import Request
from skrd4ad.pipeline.replay_wire import encode_request as encode_replay
from skrd4ad.pipeline.security import ClientKeys, new_key_pair
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import ResultMessage
from skrd4ad.pipeline.wire_map import MapMessage
from skrd4ad.pipeline.wire_messages import HealthFields
from zmq.utils.monitor import recv_monitor_message

FREE = "tcp://127.0.0.1:0"
PATIENCE_S = 60.0
READY = HealthFields(ready=True, uptime_s=1.0)
SOCKETS = ("events", "maps", "replay", "control")


def result(number: int) -> Result:
    return Result(
        camera="cam0",
        camera_seq=number,
        frame_id=number,
        captured_ns=time.time_ns(),
        captured_mono_ns=time.monotonic_ns(),
        captured_source="file",
        captured_error_ns=0,
        part=Part("A-1"),
        name=None,
        verdict=Verdict.NG,
        reasons=("score",),
        evaluated=True,
        score=0.9,
        threshold=0.5,
        defects=(),
        latency=Latency(),
        anomaly_map=np.ones((8, 8), dtype=np.float32),
    )


class Box:
    """A publisher with keys on all four sockets, and its clients' keys."""

    def __init__(self, folder: Path) -> None:
        self.keys = folder / "keys"
        self.clients = folder / "clients"
        write_key_pair(self.keys, "server", "server", *new_key_pair())
        for name, role in (("page", "viewer"), ("gate3", "gate"), ("anna", "engineer")):
            write_key_pair(self.clients, name, role, *new_key_pair())
            key = read_public_key(self.clients / f"{name}.key")
            write_public_key(self.keys / "allowed" / f"{name}.key", key)
        write_key_pair(self.clients, "stranger", "engineer", *new_key_pair())
        journal = JournalSettings(path=str(folder / "journal.sqlite3"), min_free_mb=0.0)
        settings = PublishSettings(
            events=FREE,
            maps=FREE,
            map_policy="all",
            replay=FREE,
            control=FREE,
            keys=str(self.keys),
            journal=journal,
        )
        self.publisher = Publisher(settings, "edge07")

    def keys_of(self, name: str) -> ClientKeys:
        return ClientKeys.read(self.clients / f"{name}.secret", self.keys / "server.key")

    def endpoint(self, socket: str) -> str:
        return str(getattr(self.publisher, f"{socket}_endpoint"))

    def audit_until(
        self, wanted: set[str], meanwhile: Callable[[], None] = lambda: None
    ) -> list[AuditEntry]:
        """The audit list once every wanted text is in it (as a part of an outcome)."""
        deadline = time.monotonic() + PATIENCE_S
        endpoint = self.endpoint("control")
        with ControlClient(endpoint, self.keys_of("anna"), patience_s=PATIENCE_S) as anna:
            while True:
                meanwhile()
                self.publisher.heartbeat_if_due(READY)
                entries = list(anna.audit(200))
                found = " | ".join(f"{entry.arguments} {entry.outcome}" for entry in entries)
                if all(text in found for text in wanted):
                    return entries
                assert time.monotonic() < deadline, (wanted, found)
                time.sleep(0.05)

    def check_that_the_line_runs(self) -> None:
        with Subscriber(
            self.endpoint("events"), self.endpoint("maps"), keys=self.keys_of("anna")
        ) as stream:
            assert self.publisher.wait_for_subscribers(1, PATIENCE_S)
            kinds: list[type] = []
            deadline = time.monotonic() + PATIENCE_S
            while not {ResultMessage, MapMessage} <= set(kinds):
                assert time.monotonic() < deadline
                self.publisher.send_result(result(1))
                item = stream.receive(0.2)
                while item is not None:
                    kinds.append(type(item))
                    item = stream.receive(0.0)
        with replay_client(self.endpoint("replay"), self.keys_of("page")) as client:
            assert client.snapshot(PATIENCE_S)[0].box == "edge07"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    opened = Box(tmp_path)
    with opened.publisher:
        opened.publisher.send_state("RUNNING")
        yield opened


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def connect(
    context: zmq.Context[zmq.Socket[bytes]],
    box: Box,
    name: str,
    keys: ClientKeys | None,
) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.XSUB if name in ("events", "maps") else zmq.DEALER)
    if keys is not None:
        keys.protect(socket)
    socket.connect(box.endpoint(name))
    return socket


ASK = {
    "events": b"\x01",
    "maps": b"\x01",
    "replay": encode_replay(Request(id=1, op="snapshot")),
    "control": encode_request(Trigger(id="knocking-1")),
}


def test_without_a_key_or_with_a_wrong_one_no_socket_gives_anything(
    box: Box, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    knocking = [
        connect(context, box, name, keys)
        for name in SOCKETS
        for keys in (None, box.keys_of("stranger"))
    ]
    for socket, name in zip(knocking, (name for name in SOCKETS for _ in range(2)), strict=True):
        socket.send(ASK[name])
    box.audit_until({f"at {name}: {why}" for name in SOCKETS for why in ("no key", "unknown key")})
    for number in range(20):
        box.publisher.send_result(result(number))
    time.sleep(0.3)
    assert [socket.poll(0) for socket in knocking] == [0] * len(knocking)
    box.check_that_the_line_runs()


def test_a_gates_key_opens_events_alone_and_control_only_for_triggers(
    box: Box, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    keys = box.keys_of("gate3")
    shut = [connect(context, box, name, keys) for name in ("maps", "replay")]
    for socket, name in zip(shut, ("maps", "replay"), strict=True):
        socket.send(ASK[name])
    control = connect(context, box, "control", keys)
    control.send(encode_request(SetThreshold(id="knocking-2", value=9.0)))
    assert control.poll(int(PATIENCE_S * 1000))
    assert b'"ok":false' in control.recv()
    box.audit_until(
        {
            "gate3 has the role gate, which may not use maps",
            "gate3 has the role gate, which may not use replay",
            "the role gate may not ask for threshold",
        }
    )
    box.publisher.send_result(result(1))
    time.sleep(0.3)
    assert [socket.poll(0) for socket in shut] == [0, 0]
    box.check_that_the_line_runs()


@pytest.mark.parametrize(
    ("kind", "message"), [("malformed", b"\xff{[" * 20), ("oversized", b"\xff" * 65_000)]
)
def test_what_is_no_message_leaves_an_audit_line_at_every_socket(
    box: Box, context: zmq.Context[zmq.Socket[bytes]], kind: str, message: bytes
) -> None:
    more = {"replay": b"x" * 1000, "control": b"x" * 1000} if kind == "oversized" else {}
    sockets = {name: connect(context, box, name, box.keys_of("anna")) for name in SOCKETS}

    def send() -> None:
        for name, socket in sockets.items():
            # What an XSUB sends before it is let in goes nowhere, so it is sent again.
            socket.send(message + more.get(name, b""))

    wanted = {f'{{"socket":"{name}"}} refused' for name in SOCKETS}
    entries = box.audit_until(wanted, meanwhile=send)
    who = {entry.who for entry in entries if entry.op == "malformed"}
    assert who == {"anna", "a subscriber"}
    box.check_that_the_line_runs()


def test_a_message_of_megabytes_costs_its_sender_the_connection(
    box: Box, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    for name in SOCKETS:
        socket = context.socket(zmq.XSUB if name in ("events", "maps") else zmq.DEALER)
        box.keys_of("anna").protect(socket)
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        socket.connect(box.endpoint(name))
        assert monitor.poll(int(PATIENCE_S * 1000)), name
        assert recv_monitor_message(monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        socket.send(b"\xff" * 4_000_000)
        assert monitor.poll(int(PATIENCE_S * 1000)), name
        assert recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED
        socket.disable_monitor()
    box.check_that_the_line_runs()


def test_the_same_sender_fills_neither_log_nor_journal(
    box: Box, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    socket = connect(context, box, "control", box.keys_of("anna"))
    # In batches that fit the box's bound of unread answers, beyond which it drops them on purpose.
    for _batch in range(5):
        for _ in range(40):
            socket.send(b"{")
        for _ in range(40):
            assert socket.poll(int(PATIENCE_S * 1000))
            socket.recv()
    entries = box.audit_until({'{"socket":"control"} refused'})
    assert len([entry for entry in entries if entry.op == "malformed"]) == 1


def test_who_is_refused_is_told_that_it_is_the_key(box: Box) -> None:
    for keys, words in ((box.keys_of("gate3"), "refuses our key"), (None, "asks for a key")):
        with (
            pytest.raises(NetworkError, match=words),
            replay_client(box.endpoint("replay"), keys) as client,
        ):
            client.snapshot(4.0)
    with (
        pytest.raises(NetworkError, match="refuses our key"),
        ControlClient(box.endpoint("control"), box.keys_of("stranger"), patience_s=4.0) as stranger,
    ):
        stranger.audit(1)
