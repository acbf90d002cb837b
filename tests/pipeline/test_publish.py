"""Publisher and subscriber over real sockets."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq
from skrd4ad.errors import ConfigError, NetworkError
from skrd4ad.pipeline import wire
from skrd4ad.pipeline.clock import Clock
from skrd4ad.pipeline.endpoints import is_loopback
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Defect, Latency, Part, Result, Verdict
from skrd4ad.pipeline.stream_check import Gap, Restart
from skrd4ad.pipeline.subscriber import Item, Subscriber
from skrd4ad.pipeline.wire_map import MapMessage
from skrd4ad.pipeline.wire_messages import HealthFields, ModelFields

FREE = "tcp://127.0.0.1:0"
READY = HealthFields(ready=True, uptime_s=1.0)
PATIENCE_S = 60.0


def result(number: int, verdict: Verdict = Verdict.OK, size: int = 8) -> Result:
    return Result(
        camera="cam0",
        camera_seq=number,
        frame_id=number,
        captured_ns=time.time_ns(),
        captured_mono_ns=time.monotonic_ns(),
        captured_source="file",
        captured_error_ns=0,
        part=Part(),
        name=f"{number}.png",
        verdict=verdict,
        reasons=() if verdict is Verdict.OK else ("score",),
        evaluated=verdict is not Verdict.ERR,
        score=0.25,
        threshold=0.5,
        defects=(),
        latency=Latency(),
        anomaly_map=np.full((size, size), 0.25, np.float32),
    )


def settings(**changes: object) -> PublishSettings:
    return PublishSettings(**({"events": FREE, "maps": FREE, "map_policy": "none"} | changes))  # type: ignore[arg-type]


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher(settings(), "edge07") as opened:
        yield opened


def collect(
    stream: Subscriber, enough: Callable[[list[Item]], bool], patience_s: float = PATIENCE_S
) -> list[Item]:
    """Items until `enough` of them came; fails when they do not come in time."""
    items: list[Item] = []
    deadline = time.monotonic() + patience_s
    while not enough(items):
        assert time.monotonic() < deadline, f"only {len(items)} items came"
        item = stream.receive(0.5)
        if item is not None:
            items.append(item)
    return items


def wait_for_return(stream: Subscriber, publisher: Publisher) -> None:
    """Until `stream` is back at the ports of an earlier publisher. Another program may have had one
    for a moment, and libzmq gives an endpoint up then: only who reads calls anew."""
    deadline = time.monotonic() + PATIENCE_S
    while not publisher.wait_for_subscribers(1, 0.5):
        assert time.monotonic() < deadline
        assert stream.receive(0.5) is None


def results(items: list[Item]) -> list[wire.ResultMessage]:
    return [item for item in items if isinstance(item, wire.ResultMessage)]


def test_everything_sent_arrives_in_order_and_decoded(publisher: Publisher) -> None:
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        assert publisher.send_state("RUNNING") == 1
        assert publisher.send_result(result(1)) == 2
        assert publisher.send_alarm("camera_lost", True, "cable?", "cam0") == 3
        assert publisher.send_alarm("camera_lost", True, "cable?", "cam0") == 0
        assert publisher.send_result(result(2, Verdict.ERR)) == 4
        assert publisher.send_alarm("camera_lost", False, "", "cam0") == 5
        assert publisher.heartbeat_if_due(READY)
        assert not publisher.heartbeat_if_due(READY)
        publisher.close("end of test")
        items = list(stream.items(PATIENCE_S, PATIENCE_S))
        status = stream.status()
    kinds = [item.topic.kind for item in items if not isinstance(item, Gap | Restart)]
    assert kinds == ["st", "res", "al", "res", "al", "hb", "st"]
    first, second = results(items)
    assert (first.record.toggle, second.record.toggle) == (True, False)
    assert (first.record.alarm, second.record.alarm) == (False, True)
    assert (second.header.counts.ok, second.header.counts.err) == (1, 1)
    bye = items[-1]
    assert isinstance(bye, wire.StateMessage)
    assert (bye.header.state, bye.header.previous, bye.header.seq) == ("BYE", "RUNNING", 6)
    assert (status.contiguous, status.missing, stream.malformed) == (True, 0, 0)


def test_a_subscriber_that_was_there_first_gets_the_very_first_message() -> None:
    with Publisher(settings(), "edge07") as first:
        endpoints = (first.events_endpoint, first.maps_endpoint)
    with Subscriber(*endpoints) as stream:
        assert stream.receive(0.05) is None
        later = Publisher(
            settings(events=endpoints[0], maps=endpoints[1], map_policy="all"), "edge07"
        )
        with later:
            wait_for_return(stream, later)
            later.send_state("RUNNING")
            for number in range(1, 4):
                later.send_result(result(number))
        items = list(stream.items(PATIENCE_S, PATIENCE_S))
    assert [message.header.seq for message in results(items)] == [2, 3, 4]
    assert [item.header.seq for item in items if isinstance(item, MapMessage)] == [2, 3, 4]


def test_a_late_joiner_starts_where_it_comes_in(publisher: Publisher) -> None:
    for number in range(1, 6):
        publisher.send_result(result(number))
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        publisher.send_result(result(6))
        items = collect(stream, lambda items: len(results(items)) == 1)
        assert results(items)[0].header.seq == 6
        assert stream.status().contiguous


def test_events_that_never_arrive_are_a_gap(publisher: Publisher) -> None:
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        publisher.send_result(result(1))
        publisher.last_seq += 3  # three numbers that nobody will ever receive
        publisher.send_result(result(2))
        items = collect(stream, lambda items: len(results(items)) == 2)
        assert [item for item in items if isinstance(item, Gap)] == [
            Gap("edge07", publisher.boot, 2, 4)
        ]
        assert stream.status().missing == 3


def test_a_new_process_is_noticed_by_its_boot() -> None:
    with Publisher(settings(), "edge07", "a" * 16) as first:
        endpoint = first.events_endpoint
        with Subscriber(endpoint) as stream:
            assert first.wait_for_subscribers(1, PATIENCE_S)
            first.send_result(result(1))
            collect(stream, lambda items: len(results(items)) == 1)
            first.close()
            collect(stream, lambda items: stream.check.ended)
            with Publisher(settings(events=endpoint), "edge07", "b" * 16, first_seq=3) as second:
                wait_for_return(stream, second)
                second.send_result(result(2))
                items = collect(stream, lambda items: len(results(items)) == 1)
    assert items[0] == Restart("edge07", "a" * 16, "b" * 16)
    assert not [item for item in items if isinstance(item, Gap)]


def test_silence_is_an_error_that_names_the_endpoint(publisher: Publisher) -> None:
    with Subscriber(publisher.events_endpoint) as stream:
        with pytest.raises(NetworkError, match="nothing was heard from tcp://"):
            list(stream.items(first_s=0.1, silent_s=9.0))
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        publisher.send_state("RUNNING")
        collect(stream, lambda items: bool(items))
        with pytest.raises(NetworkError, match="fell silent"):
            list(stream.items(first_s=9.0, silent_s=0.1))


def test_a_port_in_use_is_named(publisher: Publisher) -> None:
    port = publisher.events_endpoint.rpartition(":")[2]
    for changes in ({"events": publisher.events_endpoint}, {"maps": publisher.events_endpoint}):
        with pytest.raises(NetworkError, match=f"port {port} is already in use"):
            Publisher(settings(**changes), "edge07").open()


def test_an_address_of_another_host_cannot_be_bound() -> None:
    with pytest.raises(NetworkError, match="no network address"):
        Publisher(settings(events="tcp://192.0.2.1:0", insecure=True), "edge07").open()


def test_a_refused_bind_leaves_nothing_open() -> None:
    with Publisher(settings(), "edge07") as probe:
        events, taken = probe.events_endpoint, probe.maps_endpoint
    with Publisher(settings(events=taken), "edge07"):
        with pytest.raises(NetworkError):
            Publisher(settings(events=events, maps=taken), "edge07").open()
        with Publisher(settings(events=events), "edge07") as again:
            assert again.events_endpoint == events


@pytest.mark.parametrize(
    "endpoint", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://[::]:0", "tcp://eth0:0"]
)
@pytest.mark.parametrize("which", ["events", "maps"])
def test_other_hosts_are_not_let_in_without_saying_so(endpoint: str, which: str) -> None:
    with pytest.raises(NetworkError, match="can be reached by other hosts"):
        Publisher(settings(**{which: endpoint}), "edge07").open()


def test_other_hosts_are_let_in_when_the_station_says_insecure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Publisher(settings(events="tcp://0.0.0.0:0", insecure=True), "edge07") as publisher:
        assert publisher.events_endpoint.startswith("tcp://0.0.0.0:")
    assert "can be reached by other hosts without keys" in caplog.text


@pytest.mark.parametrize(
    "endpoint", ["", "5555", "tcp://127.0.0.1", "tcp://127.0.0.1:x", "udp://1.2.3.4:5", "tcp://:1"]
)
def test_what_is_no_endpoint_is_a_configuration_error(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="is not an endpoint"):
        Publisher(settings(events=endpoint), "edge07").open()


def test_loopback_is_recognised_in_all_its_spellings() -> None:
    inside = [
        "tcp://127.0.0.1:0",
        "tcp://127.9.9.9:1",
        "tcp://localhost:1",
        "tcp://[::1]:1",
        "ipc:///x",
    ]
    assert [is_loopback(endpoint) for endpoint in inside] == [True] * len(inside)


def test_wrong_names_and_policies_are_refused() -> None:
    with pytest.raises(ConfigError, match="box"):
        Publisher(settings(), "edge/07")
    for policy in ("every", "every:0", "some", "every:-1"):
        with pytest.raises(ConfigError, match="map_policy"):
            Publisher(settings(map_policy=policy), "edge07")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("ng", [2, 4]), ("all", [1, 2, 3, 4, 5, 6]), ("every:3", [2, 3, 4, 6]), ("none", [])],
)
def test_maps_follow_their_results_by_the_policy(policy: str, expected: list[int]) -> None:
    verdicts = [Verdict.OK, Verdict.NG, Verdict.OK, Verdict.REVIEW, Verdict.OK, Verdict.OK]
    with Publisher(settings(map_policy=policy), "edge07") as publisher:
        with Subscriber(publisher.events_endpoint, publisher.maps_endpoint) as stream:
            assert publisher.wait_for_subscribers(1, PATIENCE_S)
            announced = []
            for number, verdict in enumerate(verdicts, 1):
                seq = publisher.send_result(result(number, verdict))
                if seq in expected:
                    # Read each one: the maps socket keeps very few for slow readers.
                    items = collect(stream, lambda items: any_map(items))
                    announced += [m.header.seq for m in results(items) if m.header.map.avail]
            publisher.close()
            rest = list(stream.items(PATIENCE_S, PATIENCE_S))
        announced += [m.header.seq for m in results(rest) if m.header.map.avail]
    assert announced == expected
    assert not any_map(rest)


def any_map(items: list[Item]) -> bool:
    return any(isinstance(item, MapMessage) for item in items)


def test_results_without_a_map_promise_none() -> None:
    publisher = Publisher(settings(map_policy="all"), "edge07")
    with publisher, Subscriber(publisher.events_endpoint, publisher.maps_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        publisher.send_result(dataclasses.replace(result(1), anomaly_map=None))
        items = collect(stream, lambda items: len(results(items)) == 1)
    assert not results(items)[0].header.map.avail


def test_a_subscriber_that_never_reads_does_not_hold_up_the_line(publisher: Publisher) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sleeper = context.socket(zmq.SUB)
    sleeper.set_hwm(10)
    sleeper.setsockopt(zmq.RCVBUF, 4096)
    sleeper.subscribe(b"")
    sleeper.connect(publisher.events_endpoint)
    received: list[int] = []
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(2, PATIENCE_S)

        def gate() -> None:
            deadline = time.monotonic() + PATIENCE_S
            while len(received) < 3000 and time.monotonic() < deadline:
                item = stream.receive(0.5)
                if isinstance(item, wire.ResultMessage):
                    received.append(item.header.seq)

        reader = threading.Thread(target=gate)
        reader.start()
        slowest_s = 0.0
        for number in range(1, 3001):
            message = result(number)
            begun = time.perf_counter()
            publisher.send_result(message)
            slowest_s = max(slowest_s, time.perf_counter() - begun)
            # The reader keeps up: it is the sleeper whose queue is to be full.
            while number - len(received) > 300 and reader.is_alive():
                time.sleep(0.001)
        reader.join(PATIENCE_S)
    context.destroy(linger=0)
    assert received == list(range(1, 3001))
    assert slowest_s < 2.0, "a blocked send would have waited for the sleeper for ever"


def test_time_stands_in_every_message_as_the_clock_gave_it() -> None:
    wall, mono = [1_000_000_000_000], [50_000_000]
    clock = Clock(wall_ns=lambda: wall[0], mono_ns=lambda: mono[0])
    publisher = Publisher(settings(), "edge07", clock=clock)
    with publisher, Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        captured = dataclasses.replace(
            result(1), captured_mono_ns=44_000_000, latency=Latency(infer_us=4000)
        )
        publisher.send_result(captured)
        assert publisher.heartbeat_if_due(lambda: READY)
        mono[0] += 499_000_000
        assert not publisher.heartbeat_if_due(lambda: READY)
        mono[0] += 1_000_000
        assert publisher.heartbeat_if_due(lambda: READY)
        items = collect(stream, lambda items: len(items) == 3)
    header = results(items)[0].header
    assert (header.t_pub, header.mono_pub) == (1_000_000_000_000, 50_000_000)
    assert (header.lat_us.total, header.lat_us.infer, header.lat_us.pub) == (6000, 4000, 2000)


def test_dropped_frames_are_counted_in_the_next_result(publisher: Publisher) -> None:
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        for number, dropped in ((1, 4), (2, 4), (3, 7)):
            publisher.send_result(result(number), dropped)
        items = collect(stream, lambda items: len(results(items)) == 3)
    drops = [(m.header.drops.since_boot, m.header.drops.since_last) for m in results(items)]
    assert drops == [(4, 4), (4, 0), (7, 3)]


def test_a_result_names_what_judged_it(publisher: Publisher) -> None:
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        publisher.send_result(result(1))
        screws = ModelFields(name="screws", thr_rev=2)
        publisher.send_result(dataclasses.replace(result(2), model=screws))
        items = collect(stream, lambda items: len(results(items)) == 2)
    assert [m.header.model.name for m in results(items)] == ["", "screws"]


def test_regions_of_a_later_plan_get_numbers_behind_the_first_ones(publisher: Publisher) -> None:
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        for number, region in enumerate(("pin", "image", "cap", "pin"), start=1):
            defect = Defect(region, 0.9, 0.5, 64, (8, 8, 8, 8), (9, 9))
            publisher.send_result(
                dataclasses.replace(result(number, Verdict.NG), threshold=0.5, defects=(defect,))
            )
        items = collect(stream, lambda items: len(results(items)) == 4)
    assert [m.record.region_id for m in results(items)] == [2, 1, 3, 2]


def test_bytes_that_are_not_skrd_are_counted_and_skipped() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stranger = context.socket(zmq.XPUB)
    port = stranger.bind_to_random_port("tcp://127.0.0.1")
    try:
        with Subscriber(f"tcp://127.0.0.1:{port}") as stream:
            subscribed: set[bytes] = set()
            while not {b"\x01res/", b"\x01hb/"} <= subscribed:
                assert stranger.poll(int(PATIENCE_S * 1000))
                subscribed.add(stranger.recv())
            for parts in (
                [b"res/"],
                [b"res/a/b/ok", b"{}", b""],
                [b"hb/a", b"\xff" * 99, b"", b"x"],
            ):
                stranger.send_multipart(parts)
            deadline = time.monotonic() + PATIENCE_S
            while stream.malformed < 3:
                assert time.monotonic() < deadline
                assert stream.receive(0.1) is None
            assert stream.receive(0.1) is None
            assert stream.malformed == 3
    finally:
        context.destroy(linger=0)
