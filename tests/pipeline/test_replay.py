"""Lost events come back: the client's bookkeeping, the server, and both with a crash between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.errors import ConfigError, NetworkError
from skrd4ad.pipeline import wire
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.journal import JournalSettings
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.replay import ReplayClient
from skrd4ad.pipeline.replay_wire import (
    PAGE_EVENTS,
    GapFiller,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from skrd4ad.pipeline.stream_check import Gap
from skrd4ad.pipeline.subscriber import Gone, Item, Replayed, Subscriber
from skrd4ad.pipeline.wire_record import DecodeError

FREE = "tcp://127.0.0.1:0"
BOOT = "a" * 16
PATIENCE_S = 60.0
SECOND = 1_000_000_000


def event(seq: int) -> list[bytes]:
    return wire.encode_state(
        fields.StateHeader(
            v="1.0",
            box="edge07",
            boot=BOOT,
            seq=seq,
            t=1,
            mono=0,
            state="RUNNING",
            previous="RUNNING",
        )
    )


def result(number: int, part: str | None = None) -> Result:
    return Result(
        camera="cam0",
        camera_seq=number,
        frame_id=number,
        captured_ns=time.time_ns(),
        captured_mono_ns=time.monotonic_ns(),
        captured_source="file",
        captured_error_ns=0,
        part=Part(part),
        name=None,
        verdict=Verdict.OK,
        reasons=(),
        evaluated=True,
        score=0.25,
        threshold=0.5,
        defects=(),
        latency=Latency(),
    )


def journalled(folder: Path, **changes: object) -> PublishSettings:
    chosen: dict[str, object] = {
        "events": FREE,
        "maps": FREE,
        "map_policy": "none",
        "replay": FREE,
        "journal": JournalSettings(path=str(folder / "journal.sqlite3"), min_free_mb=0.0),
    }
    return PublishSettings(**(chosen | changes))  # type: ignore[arg-type]


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[Publisher]:
    with Publisher(journalled(tmp_path), "edge07") as opened:
        yield opened


@pytest.fixture
def client(publisher: Publisher) -> Iterator[ReplayClient]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    assert publisher.replay_endpoint is not None
    yield ReplayClient(publisher.replay_endpoint, context)
    context.destroy(linger=0)


def wait_until_stored(client: ReplayClient, seq: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while client.snapshot()[0].newest < seq:
        assert time.monotonic() < deadline


# ---- the bookkeeping ---------------------------------------------------------------------------


def serve(request: Request, have: set[int], oldest: int, newest: int) -> list[bytes]:
    """What a box that has stored the events `have` answers."""
    found = sorted(seq for seq in have if request.first <= seq <= request.last and seq <= newest)
    page = found[:PAGE_EVENTS]
    reply = Reply(
        id=request.id,
        op="get",
        box="edge07",
        boot=BOOT,
        seq=newest,
        state="RUNNING",
        counts=fields.CountFields(),
        oldest=oldest,
        newest=newest,
        n=len(page),
        more=len(page) == PAGE_EVENTS,
    )
    return encode_reply(reply, [event(seq) for seq in page])


@given(
    gaps=st.lists(st.tuples(st.integers(1, 900), st.integers(0, 700)), min_size=1, max_size=2),
    lost=st.sets(st.integers(1, 1600), max_size=40),
    requests_lost=st.lists(st.booleans(), max_size=8),
)
@settings(max_examples=25)
def test_every_missing_event_is_fetched_once_or_declared_gone(
    gaps: list[tuple[int, int]], lost: set[int], requests_lost: list[bool]
) -> None:
    filler, now, first = GapFiller(), 0, 1
    wanted: list[int] = []
    for skip, length in gaps:
        gap = Gap("edge07", BOOT, first + skip, first + skip + length)
        filler.add(gap)
        wanted += range(gap.first, gap.last + 1)
        first = gap.last + 1
    have = set(wanted) - lost
    newest, got, gone = 0, [], []
    drops = iter(requests_lost)
    while filler.busy:
        assert now < 100 * SECOND, "it does not come to an end"
        now += SECOND // 20
        newest = min(newest + 700, first)
        request = filler.request(now)
        if request is None or next(drops, False):
            continue  # a request that is lost must be repeated
        filled = filler.receive(*decode_reply(serve(request, have, 1, newest)), now)
        got += [message.header.seq for message in filled.messages]
        gone += [seq for gap in filled.gone for seq in range(gap.first, gap.last + 1)]
    assert got == sorted(have)
    assert gone == sorted(set(wanted) & lost)


def test_an_answer_to_an_older_request_changes_nothing() -> None:
    filler = GapFiller()
    filler.add(Gap("edge07", BOOT, 5, 9))
    old = filler.request(0)
    assert old is not None
    assert filler.request(SECOND) is None
    new = filler.request(3 * SECOND)
    assert new is not None
    reply = decode_reply(serve(old, {5, 6, 7, 8, 9}, 1, 9))
    assert filler.receive(*reply, 3 * SECOND).messages == ()
    reply = decode_reply(serve(new, {5, 6, 7, 8, 9}, 1, 9))
    assert len(filler.receive(*reply, 3 * SECOND).messages) == 5
    assert not filler.busy


def test_a_box_in_trouble_is_asked_again() -> None:
    filler = GapFiller()
    filler.add(Gap("edge07", BOOT, 5, 9))
    request = filler.request(0)
    assert request is not None
    reply, _ = decode_reply(serve(request, set(), 1, 9))
    trouble = Reply(
        **{name: getattr(reply, name) for name in reply.__struct_fields__} | {"error": "disk"}
    )
    assert filler.receive(trouble, [], 0).gone == ()
    assert filler.busy
    assert filler.request(3 * SECOND) is not None


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_random_requests_and_replies_raise_only_decode_errors(parts: list[bytes]) -> None:
    for decoder in (decode_request, decode_reply):
        try:
            decoder(parts)
        except DecodeError:
            continue
        raise AssertionError("random bytes were understood")


def test_a_page_cut_short_anywhere_is_refused() -> None:
    request = Request(id=1, op="get", first=1, last=3)
    head, page = serve(request, {1, 2, 3}, 1, 3)
    assert len(decode_reply([head, page])[1]) == 3
    for length in range(len(page)):
        with pytest.raises(DecodeError):
            decode_reply([head, page[:length]])


def test_requests_round_trip_and_empty_ranges_are_refused() -> None:
    request = Request(id=7, op="get", first=3, last=9)
    assert decode_request([encode_request(request)]) == request
    assert b'"from":3' in encode_request(request)
    with pytest.raises(DecodeError, match="empty"):
        decode_request([encode_request(Request(id=7, op="get", first=9, last=3))])
    with pytest.raises(DecodeError, match="protocol"):
        decode_request([encode_request(Request(v="2.0", id=7, op="snapshot"))])


# ---- the server --------------------------------------------------------------------------------


def test_past_events_are_replayed_in_pages_byte_for_byte(
    publisher: Publisher, client: ReplayClient
) -> None:
    with Subscriber(publisher.events_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        for number in range(1, 1301):
            publisher.send_result(result(number))
        live: list[Item] = []
        while len(live) < 1300:
            item = stream.receive(PATIENCE_S)
            assert item is not None
            live.append(item)
    wait_until_stored(client, 1300)
    assert list(client.events(1, 1300)) == live
    assert [message.header.seq for message in client.events(700, 705)] == list(range(700, 706))
    assert list(client.events(5000, 6000)) == []


def test_a_snapshot_tells_how_things_are(publisher: Publisher, client: ReplayClient) -> None:
    publisher.send_state("RUNNING")
    publisher.send_result(result(1))
    publisher.send_result(result(2))
    reply, messages = client.snapshot()
    assert (reply.box, reply.boot, reply.state, reply.seq) == (
        "edge07",
        publisher.boot,
        "RUNNING",
        3,
    )
    assert reply.counts.ok == 2
    assert [message.header.seq for message in messages] == [3]


def test_the_results_of_a_part_are_found(publisher: Publisher, client: ReplayClient) -> None:
    for number, part in enumerate(["A-1", "A-2", "A-1"], 1):
        publisher.send_result(result(number, part))
    wait_until_stored(client, 3)
    assert [message.header.seq for message in client.of_part("A-1")] == [1, 3]


def test_malformed_requests_are_refused_and_the_server_goes_on(
    publisher: Publisher, client: ReplayClient
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    assert publisher.replay_endpoint is not None
    stranger.connect(publisher.replay_endpoint)
    for parts in ([b""], [b"{}"], [b"x" * 70_000], [b"1", b"2"], [b'{"id":1,"op":"drop"}']):
        stranger.send_multipart(parts)
    assert client.snapshot()[0].box == "edge07"
    assert stranger.poll(200) == 0
    context.destroy(linger=0)


def test_nobody_there_is_an_error_that_names_the_endpoint() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with pytest.raises(
        NetworkError, match=r"no answer from tcp://127\.0\.0\.1:9 .*nothing listens at this port"
    ):
        ReplayClient("tcp://127.0.0.1:9", context, watch=True).snapshot(0.2)
    context.destroy(linger=0)


def test_replay_without_a_journal_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to replay"):
        Publisher(journalled(tmp_path, journal=None), "edge07")


def test_the_replay_port_in_use_is_named_and_the_journal_is_released(tmp_path: Path) -> None:
    with Publisher(journalled(tmp_path / "a"), "edge07") as first:
        with pytest.raises(NetworkError, match="already in use"):
            Publisher(journalled(tmp_path / "b", replay=first.replay_endpoint), "edge07").open()
        with Publisher(journalled(tmp_path / "b"), "edge07"):
            pass


# ---- both --------------------------------------------------------------------------------------


def test_a_gap_is_filled_by_itself_and_what_never_existed_is_declared_gone(
    publisher: Publisher,
) -> None:
    sockets = (publisher.events_endpoint, None)
    with Subscriber(*sockets, replay=publisher.replay_endpoint) as stream:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        publisher.send_result(result(1))
        publisher.last_seq += 2  # 2 and 3 are never made
        for number in range(2, 6):
            seq = publisher.last_seq + 1
            if seq in (5, 6):
                # On the box but not on the wire: what a cut cable does.
                publisher.last_seq = seq
                assert publisher._services.journal is not None
                publisher._services.journal.append(seq, event(seq))
            else:
                publisher.send_result(result(number))
        items: list[Item] = []
        deadline = time.monotonic() + PATIENCE_S
        while sum(isinstance(item, Replayed | Gone) for item in items) < 3:
            assert time.monotonic() < deadline, items
            item = stream.receive(0.2)
            if item is not None:
                items.append(item)
        status = stream.status()
    assert [item.message.header.seq for item in items if isinstance(item, Replayed)] == [5, 6]
    assert [item.gap for item in items if isinstance(item, Gone)] == [
        Gap("edge07", publisher.boot, 2, 3)
    ]
    assert status.missing == 2


LINE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.journal import JournalSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.wire_messages import HealthFields
folder, events, replay, parts = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
settings = PublishSettings(events=events, maps="tcp://127.0.0.1:0", map_policy="none",
    replay=replay, journal=JournalSettings(path=str(folder / "journal.sqlite3"), min_free_mb=0.0))
with Publisher(settings, "edge07") as publisher:
    print(publisher.events_endpoint, publisher.replay_endpoint, flush=True)
    number = 0
    while parts == 0 or number < parts:
        number += 1
        publisher.send_result(Result("cam0", number, number, time.time_ns(), time.monotonic_ns(),
            "file", 0, Part(), None, Verdict.OK, (), True, 0.25, 0.5, (), Latency()))
        publisher.heartbeat_if_due(HealthFields(ready=True, uptime_s=1.0))
        time.sleep(0.001)
    # On a busy machine the subscriber may be back only now; BYE must not pass it by.
    publisher.wait_for_subscribers(1, 30.0)
    publisher.heartbeat_if_due(HealthFields(ready=True, uptime_s=1.0))
    time.sleep(1.0)
"""


def start_line(folder: Path, events: str, replay: str, parts: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LINE, str(folder), events, replay, str(parts)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_publisher_killed_and_restarted_under_load_loses_no_event(tmp_path: Path) -> None:
    first = start_line(tmp_path, FREE, FREE, 0)
    assert first.stdout is not None
    events, replay = first.stdout.readline().split()
    seen: list[int] = []
    with Subscriber(events, replay=replay) as stream:

        def take(item: Item | None) -> None:
            if isinstance(item, wire.ResultMessage | wire.StateMessage):
                seen.append(item.header.seq)
            elif isinstance(item, Replayed):
                seen.append(item.message.header.seq)
            assert not isinstance(item, Gone), item

        deadline = time.monotonic() + PATIENCE_S
        while len(seen) < 400:
            assert time.monotonic() < deadline
            take(stream.receive(0.2))
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        # The first events of the new process are published before we are connected again.
        second = start_line(tmp_path, events, replay, 1500)
        assert second.stdout is not None
        assert second.stdout.readline(), "the ports of the first process are taken"
        while not stream.check.ended:
            assert time.monotonic() < deadline, stream.status()
            take(stream.receive(0.2))
        second.communicate(timeout=PATIENCE_S)
        status = stream.status()
    assert status.restarts == 1
    assert status.missing == 0
    assert sorted(seen) == list(range(min(seen), max(seen) + 1))
    assert len(seen) >= 400 + 1500


# ---- the verb ----------------------------------------------------------------------------------


def fetch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "skrd4ad", "replay", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_verb_fetches_ranges_and_parts(
    publisher: Publisher, client: ReplayClient, tmp_path: Path
) -> None:
    publisher.send_state("RUNNING")
    for number in range(1, 6):
        publisher.send_result(result(number, f"A-{number}"))
    wait_until_stored(client, 6)
    connect = ("--connect", publisher.replay_endpoint)
    done = fetch(*connect, "--json", "--from", 2, "--to", 4, "--record", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [2, 3, 4]
    assert (tmp_path / "r/events.jsonl").read_text() == done.stdout
    assert "3 events of edge07; its journal has 1 to 6" in done.stderr
    done = fetch(*connect, "--part", "A-4")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["seq", "5"]
    assert fetch(*connect).stdout.count("\n") == 7


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--connect", "tcp://127.0.0.1:9", "--wait-s", 0.2], 6, "no answer from"),
        (["--connect", "nonsense"], 2, "cannot be connected to"),
        (["--from", 5, "--to", 4], 2, "empty range"),
        (["--part", "A", "--from", 4], 2, "--part"),
    ],
)
def test_mistakes_of_the_verb_get_one_sentence(
    arguments: list[object], code: int, message: str
) -> None:
    done = fetch(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
