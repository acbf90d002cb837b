"""Control over real sockets: roles, one execution per id, an audit line for everything asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.cli import main
from skrd4ad.errors import CameraError, ConfigError, NetworkError
from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.control_port import ControlRefused
from skrd4ad.pipeline.control_wire import (
    Audit,
    Drain,
    Feedback,
    Reload,
    Resync,
    Rollback,
    SetThreshold,
    Trigger,
    decode_request,
    encode_request,
    may,
)
from skrd4ad.pipeline.journal import JournalSettings
from skrd4ad.pipeline.key_files import read_public_key, write_key_pair, write_public_key
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.security import ClientKeys, new_key_pair
from skrd4ad.pipeline.wire_messages import HealthFields
from skrd4ad.pipeline.wire_record import DecodeError

FREE = "tcp://127.0.0.1:0"
PATIENCE_S = 60.0


class Line:
    """A line that writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.may_load = threading.Event()
        self.may_load.set()

    def trigger(self, camera: str, part_id: str | None) -> int:
        if camera == "gone":
            raise CameraError("camera gone is not there", "plug it in")
        self.asked.append(("trigger", camera, part_id))
        return len(self.asked)

    def set_threshold(self, camera: str, region: str, value: float, who: str) -> int:
        self.asked.append(("threshold", camera, region, value, who))
        return 7

    def rollback_plan(self, camera: str) -> str:
        self.asked.append(("rollback", camera))
        return "sha256:00"

    def reload_plan(self, camera: str, path: str) -> str:
        assert self.may_load.wait(PATIENCE_S)
        if path == "bad.plan":
            raise ControlRefused("bad.plan is damaged", "compile it again")
        self.asked.append(("reload", camera, path))
        return "sha256:ab"

    def resync(self, camera: str) -> None:
        self.asked.append(("resync", camera))

    def drain(self) -> None:
        raise RuntimeError("a fault of ours")


def settings_of(tmp_path: Path, **more: object) -> PublishSettings:
    journal = JournalSettings(path=str(tmp_path / "journal.sqlite3"), min_free_mb=0.0)
    return PublishSettings(events=FREE, maps=FREE, control=FREE, journal=journal, **more)


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def publisher(tmp_path: Path, line: Line) -> Iterator[Publisher]:
    with Publisher(settings_of(tmp_path), "edge07") as opened:
        opened.control(line)
        yield opened


@pytest.fixture
def client(publisher: Publisher) -> Iterator[ControlClient]:
    with ControlClient(publisher.control_endpoint or "", patience_s=PATIENCE_S) as connected:
        yield connected


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_every_order_reaches_the_line_with_its_values(client: ControlClient, line: Line) -> None:
    assert client.trigger("A-1", "cam0") == 1
    assert client.set_threshold(0.4, region="lead", who="Anna") == 7
    assert client.reload_plan("new.plan") == "sha256:ab"
    assert client.rollback_plan("cam0") == "sha256:00"
    client.resync("cam0")
    assert line.asked == [
        ("trigger", "cam0", "A-1"),
        ("threshold", "", "lead", 0.4, "Anna"),
        ("reload", "", "new.plan"),
        ("rollback", "cam0"),
        ("resync", "cam0"),
    ]


def test_refusals_and_faults_come_back_as_sentences(client: ControlClient, line: Line) -> None:
    with pytest.raises(ControlRefused, match=r"bad\.plan is damaged \(compile it again\)"):
        client.reload_plan("bad.plan")
    with pytest.raises(ControlRefused, match="camera gone is not there"):
        client.trigger(camera="gone")
    with pytest.raises(ControlRefused, match="a fault of ours"):
        client.drain()
    assert client.trigger() == 1  # control has survived all three
    assert line.asked == [("trigger", "", None)]


def test_everything_asked_is_in_the_audit_list_newest_first(client: ControlClient) -> None:
    client.set_threshold(0.4, who="Anna")
    with pytest.raises(ControlRefused):
        client.reload_plan("bad.plan")
    assert eventually(lambda: len(client.audit()) >= 2)
    newest, older = client.audit()[:2]
    assert (newest.op, newest.who, newest.role) == ("reload", "local", "engineer")
    assert newest.outcome.startswith("bad.plan is damaged")
    assert (older.op, older.outcome) == ("threshold", "done")
    assert json.loads(older.arguments)["who"] == "Anna"


def test_a_repeated_request_is_answered_again_and_done_once(
    publisher: Publisher, line: Line
) -> None:
    request = Trigger(id="same-id-1", part="A-1")
    with ControlClient(publisher.control_endpoint or "", patience_s=PATIENCE_S) as client:
        answers = [client.call(request) for _ in range(3)]
    assert [answer.trigger_seq for answer in answers] == [1, 1, 1]
    assert line.asked == [("trigger", "", "A-1")]


def test_a_trigger_does_not_wait_for_a_plan_that_loads(publisher: Publisher, line: Line) -> None:
    line.may_load.clear()
    endpoint = publisher.control_endpoint or ""
    found: list[str] = []

    def load() -> None:
        with ControlClient(endpoint, patience_s=PATIENCE_S) as other:
            found.append(other.reload_plan("slow.plan"))

    loader = threading.Thread(target=load)
    loader.start()
    with ControlClient(endpoint, patience_s=PATIENCE_S) as client:
        assert eventually(lambda: any(t.name == "reload" for t in threading.enumerate()))
        assert client.trigger() == 1
        with pytest.raises(ControlRefused, match="another plan is being loaded"):
            client.reload_plan("second.plan")
        line.may_load.set()
        loader.join(PATIENCE_S)
    assert found == ["sha256:ab"]


def test_feedback_is_kept_with_what_the_line_had_said(
    publisher: Publisher, client: ControlClient, tmp_path: Path
) -> None:
    client.feedback(3, "ok", who="Ben", note="dust")
    client.feedback(3, "ng", who="Anna")
    publisher.close()
    from skrd4ad.pipeline.journal_store import JournalStore

    store = JournalStore(tmp_path / "journal.sqlite3")
    assert store.feedback() == []  # event 3 is not a stored result
    header = {"boot": "0" * 16, "kind": "res", "cam": "cam0", "verdict": "ng", "score": 0.9}
    store.append([(3, [b"res/e/cam0/ng", msgspec.json.encode(header), b""])])
    (row,) = store.feedback()
    assert (row.seq, row.truth, row.who, row.verdict, row.score) == (3, "ng", "Anna", "ng", 0.9)
    store.close()


def test_without_a_journal_or_a_running_line_the_answer_says_so(tmp_path: Path) -> None:
    settings = PublishSettings(events=FREE, maps=FREE, control=FREE)
    with (
        Publisher(settings, "edge07") as publisher,
        ControlClient(publisher.control_endpoint or "", patience_s=PATIENCE_S) as client,
    ):
        with pytest.raises(ControlRefused, match="keeps no journal"):
            client.feedback(1, "ok")
        with pytest.raises(ControlRefused, match="not running yet"):
            client.trigger()


def test_nothing_but_loopback_without_keys_even_if_insecure() -> None:
    settings = PublishSettings(control="tcp://0.0.0.0:5558", insecure=True)
    with pytest.raises(NetworkError, match="no keys protect it"):
        Publisher(settings, "edge07")


def test_nobody_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["control", "--connect", "tcp://127.0.0.1:9", "--wait-s", "0.3", "drain"]
    assert main(command) == 6
    assert "no answer from tcp://127.0.0.1:9 within 0.3 s" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="cannot be connected to"):
        ControlClient("not an endpoint")


def test_the_verb_asks_and_prints(publisher: Publisher, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["control", "--connect", publisher.control_endpoint or "", "--json"]
    assert main([*command, "trigger", "--part", "A-9"]) == 0
    assert json.loads(capsys.readouterr().out) == {"trigger_seq": 1}
    assert main([*command[:-1], "threshold", "0.5", "--who", "Anna"]) == 0
    assert "revision 7" in capsys.readouterr().out
    assert eventually(lambda: main([*command, "audit"]) == 0 and "Anna" in capsys.readouterr().out)


# ---- keys and roles --------------------------------------------------------------------------


@pytest.fixture
def keyed(tmp_path: Path, line: Line) -> Iterator[tuple[Publisher, Path]]:
    box = tmp_path / "keys"
    write_key_pair(box, "server", "server", *new_key_pair())
    for name, role in (("page", "viewer"), ("gate3", "gate"), ("anna", "engineer")):
        write_key_pair(tmp_path / "clients", name, role, *new_key_pair())
        key = read_public_key(tmp_path / "clients" / f"{name}.key")
        write_public_key(box / "allowed" / f"{name}.key", key)
    write_key_pair(tmp_path / "clients", "stranger", "engineer", *new_key_pair())
    with Publisher(settings_of(tmp_path, keys=str(box)), "edge07") as opened:
        opened.control(line)
        yield opened, box


def as_client(keyed: tuple[Publisher, Path], name: str, patience_s: float = PATIENCE_S):
    publisher, box = keyed
    keys = ClientKeys.read(box.parent / "clients" / f"{name}.secret", box / "server.key")
    return ControlClient(publisher.control_endpoint or "", keys, patience_s=patience_s)


def test_each_role_may_do_its_own_and_no_more(keyed: tuple[Publisher, Path], line: Line) -> None:
    with as_client(keyed, "gate3") as gate, as_client(keyed, "page") as page:
        assert gate.trigger("A-1") == 1
        page.feedback(1, "ng", who="Ben")
        for refused in (
            lambda: gate.set_threshold(9.0),
            lambda: gate.feedback(1, "ok"),
            lambda: page.trigger(),
            lambda: page.drain(),
            lambda: page.audit(),
        ):
            with pytest.raises(ControlRefused, match="may not ask for"):
                refused()
    assert line.asked == [("trigger", "", "A-1")]
    with as_client(keyed, "anna") as anna:
        assert eventually(lambda: len(anna.audit()) >= 7)
        audit = anna.audit()
    refusals = [entry for entry in audit if "may not" in entry.outcome]
    assert {(entry.who, entry.op) for entry in refusals} == {
        ("gate3", "threshold"),
        ("gate3", "feedback"),
        ("page", "trigger"),
        ("page", "drain"),
        ("page", "audit"),
    }


def test_a_stranger_and_a_keyless_client_get_no_answer_and_an_audit_line(
    keyed: tuple[Publisher, Path], line: Line
) -> None:
    publisher, _ = keyed

    def knocked() -> bool:
        """Half a second may be too short for a handshake: then it knocks again."""
        with as_client(keyed, "stranger", 0.5) as stranger, pytest.raises(NetworkError):
            stranger.drain()
        publisher.heartbeat_if_due(HealthFields(ready=True, uptime_s=1.0))
        with as_client(keyed, "anna") as anna:
            return any("unknown key" in entry.outcome for entry in anna.audit())

    assert eventually(knocked)
    keyless = ControlClient(publisher.control_endpoint or "", patience_s=0.5)
    with keyless, pytest.raises(NetworkError):
        keyless.drain()
    assert line.asked == []


def test_a_key_that_was_taken_off_the_list_may_do_nothing_at_once(
    keyed: tuple[Publisher, Path],
) -> None:
    with as_client(keyed, "gate3") as gate:
        assert gate.trigger() == 1
        (keyed[1] / "allowed" / "gate3.key").unlink()
        with pytest.raises(ControlRefused, match="the role none may not ask"):
            gate.trigger()


# ---- hostile input ---------------------------------------------------------------------------


def test_malformed_and_oversized_requests_change_nothing(publisher: Publisher, line: Line) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(publisher.control_endpoint or "")
    for parts in (
        [b"{"],
        [b'{"op":"drain"}'],
        [b'{"op":"drain","id":"12345678","extra":1}'],
        [b"\xff\xfe", b"two"],
        [b"[" * 50_000],
        [b""],
    ):
        socket.send_multipart(parts)
        assert socket.poll(int(PATIENCE_S * 1000))
        answer = json.loads(socket.recv())
        assert answer["ok"] is False
        assert answer["error"]
    socket.send(b"x" * 100_000)  # libzmq itself cuts the connection
    context.destroy(linger=0)
    with ControlClient(publisher.control_endpoint or "", patience_s=PATIENCE_S) as client:
        assert client.trigger() == 1
    assert line.asked == [("trigger", "", None)]


REQUESTS = (
    Trigger(id="x" * 8, cam="cam0", part="A"),
    Feedback(id="x" * 8, seq=1, truth="ok"),
    SetThreshold(id="x" * 8, value=0.5),
    Reload(id="x" * 8, plan="a.plan"),
    Rollback(id="x" * 8, cam="cam0"),
    Resync(id="x" * 8),
    Drain(id="x" * 8),
    Audit(id="x" * 8),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: type(r).__name__)
def test_requests_survive_the_wire(request_) -> None:
    assert decode_request([encode_request(request_)]) == request_
    assert may("engineer", request_)
    assert not may("none", request_)


@given(st.binary(max_size=300), st.integers(0, len(REQUESTS) - 1), st.integers(0, 200))
def test_decoding_raises_nothing_but_decode_error(noise: bytes, which: int, at: int) -> None:
    raw = encode_request(REQUESTS[which])
    for mutated in (noise, raw[:at] + noise + raw[at:], raw[:at]):
        try:
            decode_request([mutated])
        except DecodeError:
            continue
