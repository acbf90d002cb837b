"""The OPC UA bridge, read by asyncua's real client as an MES would read it."""

from __future__ import annotations

import datetime
import math
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

asyncua = pytest.importorskip("asyncua", reason="needs asyncua (the extra bridges)")
from asyncua import ua  # noqa: E402
from asyncua.sync import Client  # noqa: E402
from skrd4ad.pipeline.bridges.feed import Feed  # noqa: E402
from skrd4ad.pipeline.bridges.opcua import NAMESPACE, OpcUaUplink  # noqa: E402
from skrd4ad.pipeline.bridges.opcua_values import EVENT_FIELDS, MACHINE, RESULT  # noqa: E402
from skrd4ad.pipeline.records import Verdict  # noqa: E402
from skrd4ad.pipeline.subscriber import Subscriber  # noqa: E402


def start(parts: ModuleType, box: Any, port: int) -> Any:
    feed = Feed(Subscriber(box.events))
    return parts.RunningBridge(feed, OpcUaUplink("127.0.0.1", port, feed.acknowledge_losses))


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Mes:
    """A client that finds everything by its browse path, as the docs give it."""

    def __init__(self, endpoint: str, parts: ModuleType) -> None:
        self.parts = parts
        port = int(endpoint.partition("://")[2].partition("/")[0].rpartition(":")[2])
        parts.wait_for(lambda: _listens(port), "the server listens")
        self.client = Client(endpoint, timeout=60)
        self.client.connect()
        self.index = self.client.get_namespace_index(NAMESPACE)

    def node(self, path: str) -> Any:
        steps = [f"{self.index}:{name}" for name in ("Machines", "edge07", *path.split("/"))]
        return self.client.nodes.objects.get_child([step for step in steps if step[-1] != ":"])

    def value(self, path: str) -> Any:
        return self.node(path).read_value()

    def quality(self, path: str) -> Any:
        """The status of a value, also of one that is not good."""
        return self.node(path).read_data_value(raise_on_bad_status=False).StatusCode

    def has(self, path: str) -> bool:
        try:
            self.node(path)
        except ua.UaError:
            return False
        return True


@pytest.fixture(scope="module")
def box(box_parts: ModuleType) -> Iterator[Any]:
    opened = box_parts.Box()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def server(box: Any, box_parts: ModuleType) -> Iterator[Any]:
    """One for the module: asyncua needs seconds to build its address space."""
    opened = start(box_parts, box, box_parts.free_port())
    box.wait_for_clients(1)
    yield opened
    opened.close()


@pytest.fixture
def mes(server: Any, box_parts: ModuleType) -> Iterator[Mes]:
    opened = Mes(server.uplink.endpoint, box_parts)
    box_parts.wait_for(lambda: opened.value("Act"))
    yield opened
    opened.client.disconnect()


RESULTS = "Results/cam0"


def test_a_client_browses_to_the_newest_result(mes: Mes, box: Any, box_parts: ModuleType) -> None:
    began = time.time()
    box.send(box_parts.result(7, Verdict.NG, score=0.75, simulated=True, late=True))
    box_parts.wait_for(lambda: mes.has(RESULTS))
    meta, times, content = (
        f"{RESULTS}/{name}" for name in ("ResultMetaData", "ProcessingTimes", "ResultContent")
    )
    seq = box.publisher.last_seq
    box_parts.wait_for(lambda: mes.value(f"{meta}/SequenceNumber") == seq)
    assert mes.value(f"{meta}/ResultId") == f"{box.publisher.boot}-{seq}"
    assert mes.value(f"{meta}/PartId") == "p7"
    assert mes.value(f"{meta}/ResultEvaluation") == 2
    assert mes.value(f"{meta}/ResultEvaluationDetails") == "score"
    assert mes.value(f"{meta}/IsSimulated") is True
    created = mes.value(f"{meta}/CreationTime").replace(tzinfo=datetime.timezone.utc)
    assert abs(created.timestamp() - began) < 60
    assert mes.value(f"{times}/ProcessingDuration") >= 0.0
    assert mes.value(f"{content}/Verdict") == "ng"
    assert mes.value(f"{content}/Score") == 0.75
    assert mes.value(f"{content}/Threshold") == 0.5
    assert mes.value(f"{content}/Late") is True
    assert mes.value(f"{content}/TriggerNumber") == 7
    assert '"kind":"res"' in mes.value(f"{content}/Event")
    box_parts.wait_for(lambda: mes.value("CountNg") == box.publisher.counts.ng)
    assert mes.value("State") == "RUNNING"
    assert mes.value("Boot") == box.publisher.boot


@pytest.mark.parametrize(
    ("verdict", "evaluation"),
    [(Verdict.OK, 1), (Verdict.NG, 2), (Verdict.REVIEW, 3), (Verdict.ERR, 0)],
)
def test_each_verdict_has_its_evaluation(
    verdict: Verdict, evaluation: int, box_parts: ModuleType
) -> None:
    from skrd4ad.pipeline import wire
    from skrd4ad.pipeline import wire_messages as fields
    from skrd4ad.pipeline.bridges.opcua_values import result_values

    context = wire.WireContext("edge07", "a" * 16, fields.ModelFields())
    result = box_parts.result(1, verdict, score=math.nan)
    parts = wire.encode_result(result, context, wire.Stamp(1, 1, 1, fields.CountFields()))
    values = result_values(wire.decode(parts))
    assert values["ResultEvaluation"] == evaluation
    assert values["Score"] == math.inf  # never a number that a comparison would let pass
    assert set(values) == set(RESULT)
    assert set(EVENT_FIELDS) <= set(RESULT)


class Kept:
    """What a subscription was told."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.events: list[Any] = []

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        self.values.append(value)

    def event_notification(self, event: Any) -> None:
        self.events.append(event)


def test_a_subscription_gets_changes_and_an_event_for_every_part(
    mes: Mes, box: Any, box_parts: ModuleType
) -> None:
    box.send(box_parts.result(1))
    box_parts.wait_for(lambda: mes.has(RESULTS))
    kept = Kept()
    subscription = mes.client.create_subscription(20, kept)
    subscription.subscribe_data_change(mes.node(f"{RESULTS}/ResultMetaData/SequenceNumber"))
    types = mes.client.nodes.base_event_type.get_child([f"{mes.index}:ResultReadyEventType"])
    subscription.subscribe_events(mes.node(""), types, queuesize=1000)
    box_parts.wait_for(lambda: kept.values)
    first = box.publisher.last_seq + 1
    box.send(*[box_parts.result(n, Verdict.NG) for n in range(2, 102)])
    box_parts.wait_for(lambda: len(kept.events) == 100, "an event for each part")
    assert [event.SequenceNumber for event in kept.events] == list(range(first, first + 100))
    assert {event.Verdict for event in kept.events} == {"ng"}
    assert {event.Camera for event in kept.events} == {"cam0"}
    assert not any(event.Replayed for event in kept.events)
    box_parts.wait_for(lambda: kept.values[-1] == first + 99)
    subscription.delete()


def test_a_silent_box_takes_the_quality_from_every_value(
    mes: Mes, box: Any, box_parts: ModuleType
) -> None:
    box.send(box_parts.result(1))
    verdict = f"{RESULTS}/ResultContent/Verdict"
    box_parts.wait_for(lambda: mes.has(RESULTS) and mes.value(verdict) == "ok")
    assert mes.quality(verdict).is_good()
    box.fall_silent()
    box_parts.wait_for(lambda: not mes.value("Online"))
    assert mes.value("Act") is False
    box_parts.wait_for(lambda: not mes.quality(verdict).is_good())
    counter = mes.value("AliveCounter")
    box_parts.wait_for(lambda: mes.value("AliveCounter") > counter)  # the bridge itself lives
    box.speak_again()
    box.send(box_parts.result(2))
    box_parts.wait_for(lambda: mes.quality(verdict).is_good() and mes.value("Act"))


def test_losses_stop_acting_until_the_method_acknowledges_them(
    mes: Mes, box: Any, box_parts: ModuleType
) -> None:
    box.lose(3)
    box_parts.wait_for(lambda: mes.value("MissingEvents") == 3)
    assert mes.value("Act") is False
    mes.node("").call_method(f"{mes.index}:AcknowledgeLosses")
    box_parts.wait_for(lambda: mes.value("Act"))
    assert mes.value("MissingEvents") == 0


def test_a_client_may_write_nothing(mes: Mes, box: Any, box_parts: ModuleType) -> None:
    with pytest.raises(ua.UaError):
        mes.node("Act").write_value(True)
    with pytest.raises(ua.UaError):
        mes.node("CountNg").write_value(ua.Variant(0, ua.VariantType.UInt64))
    admin = Client(mes.client.aio_obj.server_url.geturl())
    admin.set_user("admin")
    admin.connect()
    with pytest.raises(ua.UaError):
        admin.get_node(mes.node("Act").nodeid).write_value(True)
    admin.disconnect()
    assert mes.value("Act") is True


def test_every_node_of_the_tables_is_there(mes: Mes, box: Any, box_parts: ModuleType) -> None:
    box.send(box_parts.result(1))
    box_parts.wait_for(lambda: mes.has(RESULTS))
    for name, typed in MACHINE.items():
        assert mes.node(name).read_data_type_as_variant_type() == typed.kind, name
    for name, typed in RESULT.items():
        node = mes.node(f"{RESULTS}/{typed.group}/{name}")
        assert node.read_data_type_as_variant_type() == typed.kind, name


def test_a_port_in_use_is_tried_again(box: Any, box_parts: ModuleType) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        server = start(box_parts, box, taken.getsockname()[1])
        box_parts.wait_for(lambda: server.breaker.failures >= 2)
        server.close()


def test_the_verb_serves_also_what_was_fetched_later_and_ends(
    tmp_path: Any, box_parts: ModuleType
) -> None:
    box, port = box_parts.Box(journal=tmp_path / "journal.db"), box_parts.free_port()
    command = [sys.executable, "-m", "skrd4ad", "bridge", "opcua", "--connect", box.events]
    refused = subprocess.run(
        [*command, "--listen", "0.0.0.0:4840"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 6
    assert "can be reached by other hosts" in refused.stderr
    bridge = subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{port}", "--replay", box.publisher.replay_endpoint],
        stdout=subprocess.PIPE,
        text=True,
    )
    mes, kept = Mes(f"opc.tcp://127.0.0.1:{port}/skrd4ad", box_parts), Kept()
    box_parts.wait_for(lambda: mes.value("Act"))
    subscription = mes.client.create_subscription(20, kept)
    types = mes.client.nodes.base_event_type.get_child([f"{mes.index}:ResultReadyEventType"])
    subscription.subscribe_events(mes.node(""), types, queuesize=1000)
    box.send(box_parts.result(1))
    box.send_unheard(box_parts.result(2, Verdict.NG))
    box.send(box_parts.result(3))
    box_parts.wait_for(lambda: len(kept.events) == 3)
    told = [(event.SequenceNumber, event.Replayed) for event in kept.events]
    assert told == [(2, False), (4, False), (3, True)]
    # What was fetched later is history: the newest result stays in the nodes.
    assert mes.value(f"{RESULTS}/ResultMetaData/SequenceNumber") == 4
    mes.client.disconnect()
    bridge.terminate()
    out, _ = bridge.communicate(timeout=60)
    box.close()
    assert bridge.returncode == 0
    assert "0 events dropped" in out
