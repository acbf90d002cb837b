"""The MQTT bridge with a real mosquitto broker and a real client behind it."""

from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

paho = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt (the extra bridges)")
from paho.mqtt.enums import CallbackAPIVersion  # noqa: E402
from skrd4ad import cli  # noqa: E402
from skrd4ad.pipeline.bridges.bridge import read_password  # noqa: E402
from skrd4ad.pipeline.bridges.feed import Feed  # noqa: E402
from skrd4ad.pipeline.bridges.mqtt import MqttSettings, MqttUplink  # noqa: E402
from skrd4ad.pipeline.bridges.uplink import CircuitBreaker  # noqa: E402
from skrd4ad.pipeline.records import Verdict  # noqa: E402
from skrd4ad.pipeline.subscriber import Subscriber  # noqa: E402
from skrd4ad.redaction import redacted  # noqa: E402

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
pytestmark = pytest.mark.skipif(
    MOSQUITTO is None, reason="needs a broker (Debian package mosquitto)"
)
STATE = "skrd4ad/edge07/state"


class Broker:
    """mosquitto on a port of its own; `kill` and `start` as often as wanted."""

    def __init__(self, folder: Path, parts: ModuleType, *lines: str) -> None:
        self.port = parts.free_port()
        self._parts = parts
        self._config = folder / "mosquitto.conf"
        # The state is retained on disk, as in a plant: a broker that restarts still has it.
        config = [f"listener {self.port} 127.0.0.1", *(lines or ("allow_anonymous true",))]
        self._config.write_text("\n".join(config) + "\n")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        command = [MOSQUITTO, "-c", str(self._config)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self._parts.wait_for(self._listens, "the broker listens")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(60)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Listener:
    """A client of the broker that keeps everything under skrd4ad/."""

    def __init__(self, port: int, **options: Any) -> None:
        self.messages: list[tuple[str, dict[str, Any], bool]] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        for name, value in options.items():
            getattr(self.client, name)(*value)
        self.client.on_connect = lambda client, *_: client.subscribe("skrd4ad/#", qos=1)
        self.client.on_message = self._keep
        self.client.on_subscribe = self._note_subscription
        self.subscribed = 0
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _note_subscription(self, *_: Any) -> None:
        self.subscribed += 1

    def _keep(self, client: Any, data: Any, message: Any) -> None:
        if not message.topic.endswith("/acknowledge"):
            self.messages.append((message.topic, json.loads(message.payload), message.retain))

    def states(self) -> list[dict[str, Any]]:
        return [body for topic, body, _ in list(self.messages) if topic == STATE]

    def seqs(self, kind: str = "res") -> list[int]:
        return [body["seq"] for topic, body, _ in list(self.messages) if topic.endswith(kind)]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class HeldBreaker(CircuitBreaker):
    """Allows no attempt while `held`."""

    held = False

    def allows(self) -> bool:
        return not self.held and super().allows()


Start = Callable[..., Any]


@pytest.fixture
def start(box: Any, box_parts: ModuleType) -> Start:
    """`start(port, limit=10_000, **settings)`: a bridge of the box to that broker."""

    def started(port: int, limit: int = 10_000, **settings: Any) -> Any:
        feed = Feed(Subscriber(box.events), limit)
        broker = MqttSettings(host="127.0.0.1", port=port, **settings)
        uplink = MqttUplink(broker, feed.acknowledge_losses)
        return box_parts.RunningBridge(feed, uplink, HeldBreaker(0.05, 0.2))

    return started


@pytest.fixture
def broker(tmp_path: Path, box_parts: ModuleType) -> Iterator[Broker]:
    opened = Broker(tmp_path, box_parts)
    yield opened
    opened.kill()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    opened = Listener(broker.port)
    yield opened
    opened.close()


@pytest.fixture
def bridge(start: Start, broker: Broker, listener: Listener) -> Iterator[Any]:
    opened = start(broker.port)
    yield opened
    opened.close()


def acting(listener: Listener) -> bool:
    return bool(listener.states()) and listener.states()[-1]["act"]


def test_results_alarms_and_a_retained_state_reach_the_broker(
    bridge: Any, box: Any, listener: Listener, broker: Broker, box_parts: ModuleType
) -> None:
    box_parts.wait_for(lambda: acting(listener))
    box.send(box_parts.result(1, Verdict.NG, score=0.75), box_parts.result(2, camera="side"))
    box.do(lambda: box.publisher.send_alarm("camera_lost", True, "cable", "side"))
    box_parts.wait_for(lambda: listener.seqs("alarm"))
    box_parts.wait_for(lambda: listener.states()[-1]["alarms"] == [1001])
    topics = {topic: body for topic, body, _ in listener.messages}
    assert topics["skrd4ad/edge07/cam0/res"]["verdict"] == "ng"
    assert topics["skrd4ad/edge07/cam0/res"]["score"] == 0.75
    assert topics["skrd4ad/edge07/side/res"]["part"]["id"] == "p2"
    assert topics["skrd4ad/edge07/alarm"]["name"] == "camera_lost"
    state = listener.states()[-1]
    assert (state["online"], state["state"], state["act"]) == (True, "RUNNING", True)
    # Who comes later sees the state at once, and no verdict of a part that has passed.
    late = Listener(broker.port)
    box_parts.wait_for(late.states)
    assert [(topic, retained) for topic, _, retained in late.messages[:1]] == [(STATE, True)]
    assert late.seqs() == []
    late.close()


def test_a_silent_box_is_offline_and_not_to_be_acted_on(
    bridge: Any, box: Any, listener: Listener, box_parts: ModuleType
) -> None:
    box_parts.wait_for(lambda: acting(listener))
    box.fall_silent()
    box_parts.wait_for(lambda: not listener.states()[-1]["online"])
    assert listener.states()[-1]["act"] is False
    assert listener.states()[-1]["reason"] == "box silent"
    box.speak_again()
    box_parts.wait_for(lambda: acting(listener))


def test_lost_events_stop_acting_until_they_are_acknowledged(
    bridge: Any, box: Any, listener: Listener, box_parts: ModuleType
) -> None:
    box_parts.wait_for(lambda: acting(listener))
    box.lose(2)
    box_parts.wait_for(lambda: not acting(listener))
    assert listener.states()[-1]["missing"] == 2
    listener.client.publish("skrd4ad/edge07/acknowledge", b"", qos=1)
    box_parts.wait_for(lambda: acting(listener))


def test_a_killed_broker_that_comes_back_gets_what_it_missed(
    bridge: Any, box: Any, broker: Broker, listener: Listener, box_parts: ModuleType
) -> None:
    box_parts.wait_for(lambda: acting(listener))
    box.send(box_parts.result(1))
    box_parts.wait_for(lambda: listener.seqs() == [2])
    first = listener.states()[-1]["session"]
    broker.kill()
    box.send(*[box_parts.result(n) for n in range(2, 302)])
    assert box.slowest_send_s < 1.0
    box_parts.wait_for(lambda: bridge.breaker.failures > 0)
    assert bridge.feed.view().status.contiguous
    # The test's own client must be back before the bridge, or it would miss some itself.
    bridge.breaker.held = True
    broker.start()
    box_parts.wait_for(lambda: listener.subscribed == 2)
    bridge.breaker.held = False
    box_parts.wait_for(lambda: len(set(listener.seqs())) == 301)
    first_seen = list(dict.fromkeys(listener.seqs()))
    assert first_seen == list(range(2, 303))  # at least once, and in order
    assert bridge.feed.dropped == 0
    box_parts.wait_for(lambda: listener.states()[-1]["session"] != first)
    assert acting(listener)


def test_a_clean_end_says_so(
    start: Start, broker: Broker, listener: Listener, box_parts: ModuleType
) -> None:
    bridge = start(broker.port)
    box_parts.wait_for(lambda: acting(listener))
    bridge.close()
    box_parts.wait_for(lambda: listener.states()[-1]["reason"] == "bridge stopped")
    assert listener.states()[-1]["online"] is False


def test_a_new_box_process_is_a_new_birth(
    bridge: Any, box: Any, listener: Listener, box_parts: ModuleType
) -> None:
    box_parts.wait_for(lambda: acting(listener))
    before, endpoint = listener.states()[-1], box.events
    box.close()
    again = box_parts.Box(events=endpoint)
    # The first events of the new process came before anybody listened: lost, so not `act`.
    box_parts.wait_for(lambda: listener.states()[-1]["boot"] == again.publisher.boot)
    box_parts.wait_for(lambda: listener.states()[-1]["online"])
    assert listener.states()[-1]["session"] != before["session"]
    again.close()


def test_a_broker_that_accepts_and_never_answers_is_given_up_and_tried_again(
    start: Start, box: Any, box_parts: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skrd4ad.pipeline.bridges.mqtt.ANSWER_S", 0.3)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)
        bridge = start(deaf.getsockname()[1], limit=10)
        box.wait_for_clients(1)
        box.send(*[box_parts.result(n) for n in range(1, 101)])
        box_parts.wait_for(lambda: bridge.breaker.failures >= 2)
        box_parts.wait_for(lambda: bridge.feed.dropped == 90)
        assert bridge.feed.view().status.last_seq == 101
        assert bridge.feed.view().status.contiguous
        bridge.close()


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority, and the broker's certificate and key for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.timezone.utc)
    made = []
    issuer, issuer_key = None, None
    for name in ("authority", "broker"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(name == "authority", None), critical=True)
        )
        if name == "broker":
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), False)
        signed = builder.sign(issuer_key or key, hashes.SHA256())
        path, key_path = folder / f"{name}.pem", folder / f"{name}.key"
        path.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        key_path.chmod(0o644)  # mosquitto gives up root before it reads
        issuer, issuer_key = subject, key
        made += [path, key_path]
    return made[0], made[2], made[3]


def test_tls_and_a_password_let_in_who_has_them_and_nobody_else(
    start: Start, tmp_path: Path, box_parts: ModuleType
) -> None:
    tmp_path.chmod(0o755)
    authority, certificate, key = certificates(tmp_path)
    passwords = tmp_path / "passwords"
    made = subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), "line1", "pass:word"], timeout=60
    )
    assert made.returncode == 0
    passwords.chmod(0o644)
    broker = Broker(
        tmp_path,
        box_parts,
        f"cafile {authority}",
        f"certfile {certificate}",
        f"keyfile {key}",
        "allow_anonymous false",
        f"password_file {passwords}",
        "user root",
    )
    right = {"user": "line1", "password": "pass:word", "tls_ca": authority}
    for wrong in (
        {**right, "password": "wrong"},
        {},  # no TLS at all
        {**right, "tls_ca": certificate},  # another authority
    ):
        bridge = start(broker.port, **wrong)
        box_parts.wait_for(lambda: bridge.breaker.failures > 0, str(wrong))  # noqa: B023
        bridge.close()
    listener = Listener(
        broker.port, tls_set=(str(authority),), username_pw_set=("line1", "pass:word")
    )
    bridge = start(broker.port, **right)
    box_parts.wait_for(lambda: acting(listener))
    assert len(listener.states()) < 4  # the wrong ones left no birth
    bridge.close()
    listener.close()
    broker.kill()


def verb(box: Any, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "skrd4ad", "bridge", "mqtt", "--connect", box.events, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_brokers_last_will_speaks_for_a_killed_bridge(
    box: Any, broker: Broker, listener: Listener, box_parts: ModuleType
) -> None:
    process = verb(box, "--broker", f"127.0.0.1:{broker.port}")
    box_parts.wait_for(lambda: acting(listener))
    session = listener.states()[-1]["session"]
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    box_parts.wait_for(lambda: listener.states()[-1]["reason"] == "bridge lost")
    will = listener.states()[-1]
    assert (will["online"], will["act"], will["session"]) == (False, False, session)
    late = Listener(broker.port)
    box_parts.wait_for(late.states)
    assert late.states()[-1]["reason"] == "bridge lost"
    late.close()
    again = verb(box, "--broker", f"127.0.0.1:{broker.port}")
    box_parts.wait_for(lambda: acting(listener))
    again.terminate()
    out, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert "0 events dropped" in out


def test_the_will_of_a_half_dead_bridge_comes_before_the_birth_of_the_next(
    start: Start, box: Any, broker: Broker, listener: Listener, box_parts: ModuleType
) -> None:
    hanging = verb(box, "--broker", f"127.0.0.1:{broker.port}")
    box_parts.wait_for(lambda: acting(listener))
    old = listener.states()[-1]["session"]
    hanging.send_signal(signal.SIGSTOP)
    bridge = start(broker.port)
    box_parts.wait_for(lambda: acting(listener) and listener.states()[-1]["session"] != old)
    told = [(state["session"] == old, state["online"]) for state in listener.states()]
    will, birth = told.index((True, False)), told.index((False, True))
    assert will < birth
    assert (True, False) not in told[birth:]
    hanging.kill()
    hanging.communicate()
    bridge.close()


@pytest.mark.soak
def test_the_brokers_last_will_speaks_for_a_bridge_that_hangs(
    box: Any, broker: Broker, listener: Listener, box_parts: ModuleType
) -> None:
    process = verb(box, "--broker", f"127.0.0.1:{broker.port}")
    box_parts.wait_for(lambda: acting(listener))
    process.send_signal(signal.SIGSTOP)
    box_parts.wait_for(lambda: listener.states()[-1]["reason"] == "bridge lost")
    process.send_signal(signal.SIGCONT)
    box_parts.wait_for(lambda: acting(listener))
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--broker", "nohost"), "not an address"),
        (("--queue", "0"), "must be 1 or more"),
        (("--tls-ca", "nowhere.pem"), "does not exist"),
        (("--tls-cert", __file__), "need --tls-ca"),
        (("--password-file", "nowhere"), "cannot be read"),
    ],
)
def test_bad_options_are_one_sentence(
    options: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bridge", "mqtt", *options]) == 2
    assert sentence in capsys.readouterr().err


def test_a_password_that_others_can_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "password"
    path.write_text("line1:secret-9f2c\n")
    path.chmod(0o644)
    assert cli.main(["bridge", "mqtt", "--password-file", str(path)]) == 2
    assert "can be read by others" in capsys.readouterr().err
    path.chmod(0o600)
    assert read_password(path) == ("line1", "secret-9f2c")
    assert redacted("refused: secret-9f2c") == "refused: ***"
    path.write_text("no colon\n")
    assert cli.main(["bridge", "mqtt", "--password-file", str(path)]) == 2
    assert "does not hold user:password" in capsys.readouterr().err
