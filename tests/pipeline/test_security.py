"""Keys: who is on the list gets in, by role; all others get nothing and leave an audit line."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.errors import ConfigError, NetworkError
from skrd4ad.pipeline import wire
from skrd4ad.pipeline.journal import JournalSettings
from skrd4ad.pipeline.key_files import (
    PublicKey,
    allowed_keys,
    read_public_key,
    read_secret_key,
    write_key_pair,
    write_public_key,
)
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.replay import replay_client
from skrd4ad.pipeline.security import ClientKeys, client_keys, decide, new_key_pair
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire_messages import HealthFields

FREE = "tcp://127.0.0.1:0"
PATIENCE_S = 60.0
READY = HealthFields(ready=True, uptime_s=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A box's folder of keys, with a client of each role that is allowed, and one that is not."""
    box = tmp_path / "keys"
    write_key_pair(box, "server", "server", *new_key_pair())
    for name, role in (("page", "viewer"), ("gate3", "gate"), ("anna", "engineer")):
        write_key_pair(tmp_path / "clients", name, role, *new_key_pair())
        key = read_public_key(tmp_path / "clients" / f"{name}.key")
        write_public_key(box / "allowed" / f"{name}.key", key)
    write_key_pair(tmp_path / "clients", "stranger", "engineer", *new_key_pair())
    return box


@pytest.fixture
def publisher(folder: Path, tmp_path: Path) -> Iterator[Publisher]:
    settings = PublishSettings(
        events="tcp://0.0.0.0:0",  # with keys, other hosts may be let in
        maps=FREE,
        map_policy="none",
        keys=str(folder),
        replay=FREE,
        journal=JournalSettings(path=str(tmp_path / "journal.sqlite3"), min_free_mb=0.0),
    )
    with Publisher(settings, "edge07") as opened:
        yield opened


def keys_of(folder: Path, name: str) -> ClientKeys:
    clients = folder.parent / "clients"
    return ClientKeys.read(clients / f"{name}.secret", folder / "server.key")


def local(endpoint: str) -> str:
    return endpoint.replace("0.0.0.0", "127.0.0.1")


@pytest.mark.parametrize("name", ["page", "gate3", "anna"])
def test_every_role_on_the_list_receives_events(
    publisher: Publisher, folder: Path, name: str
) -> None:
    with Subscriber(local(publisher.events_endpoint), keys=keys_of(folder, name)) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        publisher.send_state("RUNNING")
        item = stream.receive(PATIENCE_S)
    assert isinstance(item, wire.StateMessage)


def test_without_a_key_or_with_an_unknown_one_nothing_arrives_and_the_line_says_so(
    publisher: Publisher, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = local(publisher.events_endpoint)
    with (
        Subscriber(endpoint) as keyless,
        Subscriber(endpoint, keys=keys_of(folder, "stranger")) as stranger,
        Subscriber(endpoint, keys=keys_of(folder, "anna")) as anna,
    ):
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while "unknown key" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        publisher.send_state("RUNNING")
        assert publisher.heartbeat_if_due(READY)
        found = [anna.receive(PATIENCE_S) for _ in range(4)]
        assert keyless.receive(0.3) is None
        assert stranger.receive(0.1) is None
        assert publisher.subscribers == 1
    kinds = [item.topic.kind for item in found if isinstance(item, wire.Message)]
    assert kinds == ["st", "al", "al", "hb"]
    assert keys_of(folder, "stranger").client.public in caplog.text
    secrets = [keys_of(folder, name).client.secret for name in ("stranger", "anna")]
    assert not any(secret in caplog.text for secret in secrets)


def test_a_client_that_trusts_another_server_gets_nothing(
    publisher: Publisher, folder: Path
) -> None:
    wrong = PublicKey("server", "server", new_key_pair()[0])
    keys = ClientKeys(keys_of(folder, "anna").client, wrong)
    with Subscriber(local(publisher.events_endpoint), keys=keys) as stream:
        assert not publisher.wait_for_subscribers(1, 0.5)
        publisher.send_state("RUNNING")
        assert stream.receive(0.2) is None


def test_a_gate_may_not_fetch_the_past_but_a_viewer_may(
    publisher: Publisher, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert publisher.replay_endpoint is not None
    with replay_client(publisher.replay_endpoint, keys_of(folder, "page")) as client:
        assert client.snapshot(PATIENCE_S)[0].box == "edge07"
    deadline = time.monotonic() + PATIENCE_S
    with replay_client(publisher.replay_endpoint, keys_of(folder, "gate3")) as client:
        # The first time its handshake may not have been made yet.
        while "gate3 has the role gate, which may not use replay" not in caplog.text:
            assert time.monotonic() < deadline
            with pytest.raises(NetworkError, match="no answer"):
                client.snapshot(0.5)
        with pytest.raises(NetworkError, match="no answer"):
            client.snapshot(0.5)


def test_a_client_is_locked_out_when_its_file_is_removed(
    publisher: Publisher, folder: Path
) -> None:
    endpoint = local(publisher.events_endpoint)
    with Subscriber(endpoint, keys=keys_of(folder, "page")):
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
    (folder / "allowed" / "page.key").unlink()
    deadline = time.monotonic() + PATIENCE_S
    while publisher.subscribers:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    with Subscriber(endpoint, keys=keys_of(folder, "page")):
        assert not publisher.wait_for_subscribers(1, 0.5)


@given(st.binary(max_size=200))
def test_a_damaged_key_file_is_one_sentence_and_allows_nobody(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "allowed" / "x.key"
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(NetworkError):
            read_public_key(path)
        assert allowed_keys(Path(name)) == {}


def test_a_key_whose_name_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    write_public_key(tmp_path / "a.key", PublicKey("../../server", "engineer", new_key_pair()[0]))
    with pytest.raises(NetworkError):
        read_public_key(tmp_path / "a.key")


def test_a_secret_that_others_can_read_is_refused(folder: Path) -> None:
    (folder / "server.secret").chmod(0o640)
    settings = PublishSettings(events=FREE, maps=FREE, keys=str(folder))
    with pytest.raises(NetworkError, match="can be read by other users"):
        Publisher(settings, "edge07").open()


def test_a_secret_is_private_from_the_start_and_never_shown(folder: Path) -> None:
    path = folder / "server.secret"
    assert path.stat().st_mode & 0o777 == 0o600
    key = read_secret_key(path)
    assert key.secret not in repr(key)
    with pytest.raises(NetworkError, match="exists already"):
        write_key_pair(folder, "server", "server", *new_key_pair())
    assert read_secret_key(path) == key


def test_missing_keys_are_named(tmp_path: Path, folder: Path) -> None:
    settings = PublishSettings(events=FREE, maps=FREE, keys=str(tmp_path / "nowhere"))
    with pytest.raises(NetworkError, match=r"server\.secret cannot be read"):
        Publisher(settings, "edge07").open()
    with pytest.raises(ConfigError, match="go together"):
        client_keys(tmp_path / "x.secret", None)
    assert client_keys(None, None) is None
    with pytest.raises(NetworkError, match="holds no secret key"):
        read_secret_key(folder / "server.key")


def test_only_curve_is_accepted(folder: Path) -> None:
    public = keys_of(folder, "anna").client.public
    assert decide(folder, "events", "CURVE", public)[1] == ""
    assert decide(folder, "elsewhere", "CURVE", public)[1] != ""
    assert decide(folder, "events", "NULL", public) == (None, "no key (NULL)")
    assert decide(folder, "events", "PLAIN", public)[1] != ""


def test_raw_sockets_without_curve_receive_nothing(publisher: Publisher) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    raw = context.socket(zmq.SUB)
    raw.subscribe(b"")
    raw.connect(local(publisher.events_endpoint))
    assert not publisher.wait_for_subscribers(1, 0.3)
    publisher.send_state("RUNNING")
    assert raw.poll(200) == 0
    context.destroy(linger=0)


def keys(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "skrd4ad", "keys", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_verb_makes_allows_and_lists(tmp_path: Path) -> None:
    assert keys("new", tmp_path / "box").returncode == 0
    made = keys("new", tmp_path / "me", "--client", "gate3", "--role", "gate")
    assert made.returncode == 0, made.stderr
    assert keys("allow", tmp_path / "box", tmp_path / "me/gate3.key").returncode == 0
    listed = keys("list", tmp_path / "box")
    assert [line.split()[1:] for line in listed.stdout.splitlines()] == [
        ["server"],
        ["gate", "gate3"],
    ]
    secret = read_secret_key(tmp_path / "me/gate3.secret").secret
    assert secret not in made.stdout + listed.stdout
    again = keys("new", tmp_path / "box")
    assert again.returncode == 6
    assert "exists already" in again.stderr
