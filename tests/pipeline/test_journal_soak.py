"""A million events journalled and replayed: speed and size, printed for docs/performance.md."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
import zmq
from skrd4ad.pipeline import wire
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.journal import Journal, JournalSettings
from skrd4ad.pipeline.records import Defect, Latency, Part, Result, Verdict
from skrd4ad.pipeline.replay import ReplayClient, ReplayServer, Snapshot

EVENTS = 1_000_000
CONTEXT = wire.WireContext("edge07", "a" * 16, fields.ModelFields(name="transistor", plan="sha256"))
RESULT = Result(
    camera="cam0",
    camera_seq=1,
    frame_id=1,
    captured_ns=time.time_ns(),
    captured_mono_ns=0,
    captured_source="device",
    captured_error_ns=0,
    part=Part("A-1", 1, "plc", "exact"),
    name=None,
    verdict=Verdict.NG,
    reasons=("score",),
    evaluated=True,
    score=0.8,
    threshold=0.5,
    defects=(Defect("image", 0.8, 0.5, 321, (10, 20, 30, 40), (22, 33)),),
    latency=Latency(),
)


def parts_of(seq: int) -> list[bytes]:
    verdict = Verdict.NG if seq % 50 == 0 else Verdict.OK
    result = dataclasses.replace(
        RESULT, camera_seq=seq, frame_id=seq, verdict=verdict, part=Part(f"A-{seq}", seq, "plc")
    )
    counts = fields.CountFields(ok=seq)
    return wire.encode_result(result, CONTEXT, wire.Stamp(seq, time.time_ns(), seq, counts))


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_million_events_are_journalled_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(JournalSettings(path=str(path), min_free_mb=0.0))
    journal.open()
    append_s, slowest_s, begun = 0.0, 0.0, time.perf_counter()
    for seq in range(1, EVENTS + 1):
        parts = parts_of(seq)
        start = time.perf_counter()
        journal.append(seq, parts)
        took = time.perf_counter() - start
        append_s, slowest_s = append_s + took, max(slowest_s, took)
        while seq - journal.committed_seq > 10_000:
            time.sleep(0.001)  # as fast as the disk takes it, without giving any up
    while journal.committed_seq < EVENTS:
        time.sleep(0.01)
    stored_s = time.perf_counter() - begun
    assert journal.given_up == 0
    size = sum(file.stat().st_size for file in tmp_path.glob("journal.sqlite3*"))

    snapshot = Snapshot("edge07", "a" * 16, EVENTS, "RUNNING", fields.CountFields(), ())
    server = ReplayServer("tcp://127.0.0.1:0", journal, lambda: snapshot)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    server.open(context)
    client = ReplayClient(server.endpoint, context)
    begun, begun_cpu, expected = time.perf_counter(), time.process_time(), 1
    for message in client.events(1, EVENTS):
        assert message.header.seq == expected
        expected += 1
    replayed_s, replayed_cpu_s = time.perf_counter() - begun, time.process_time() - begun_cpu
    server.close()
    context.destroy(linger=0)
    assert journal.close(60.0)
    assert expected == EVENTS + 1
    print(
        f"\njournal: {EVENTS} events in {stored_s:.0f} s ({EVENTS / stored_s:.0f}/s, encoding "
        f"included), {size / EVENTS:.0f} bytes each; append mean {append_s / EVENTS * 1e6:.1f} us, "
        f"slowest {slowest_s * 1e3:.1f} ms; replay {EVENTS / replayed_s:.0f}/s, "
        f"{EVENTS / replayed_cpu_s:.0f} per CPU second (server, client and decoding)"
    )
    # The aim is 20,000/s on a quiet machine; half of it per CPU second must hold on a busy one.
    assert EVENTS / replayed_cpu_s >= 10_000
