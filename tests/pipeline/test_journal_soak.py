"""A million events journalled and replayed: speed and size, printed for docs/performance.md."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
from skrd4ad.pipeline import wire
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.journal import Journal, JournalSettings
from skrd4ad.pipeline.records import Defect, Latency, Part, Result, Verdict
from skrd4ad.pipeline.replay import replay_client

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
REPLAY_BOX = """
import sys
from pathlib import Path
import zmq
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.journal import Journal, JournalSettings
from skrd4ad.pipeline.replay import ReplayServer, Snapshot

journal = Journal(JournalSettings(path=sys.argv[1], min_free_mb=0.0))
journal.open()
now = Snapshot("edge07", "a" * 16, int(sys.argv[2]), "RUNNING", fields.CountFields(), ())
context = zmq.Context()
server = ReplayServer("tcp://127.0.0.1:0", journal, lambda: now)
server.open(context)
print(server.endpoint, flush=True)
sys.stdin.read()
server.close()
context.destroy(linger=0)
assert journal.close(60.0)
"""


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

    assert journal.close(60.0)

    # The box and its client are two processes, as in a plant.
    box = subprocess.Popen(
        [sys.executable, "-c", REPLAY_BOX, str(path), str(EVENTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert box.stdin is not None
    assert box.stdout is not None
    endpoint, expected = box.stdout.readline().strip(), 1
    with replay_client(endpoint) as client:
        begun = time.perf_counter()
        for message in client.events(1, EVENTS):
            assert message.header.seq == expected
            expected += 1
        replayed_s = time.perf_counter() - begun
    box.stdin.close()
    assert box.wait(60.0) == 0
    assert expected == EVENTS + 1
    print(
        f"\njournal: {EVENTS} events in {stored_s:.0f} s ({EVENTS / stored_s:.0f}/s, encoding "
        f"included), {size / EVENTS:.0f} bytes each; append mean {append_s / EVENTS * 1e6:.1f} us, "
        f"slowest {slowest_s * 1e3:.1f} ms; replay {EVENTS / replayed_s:.0f}/s (decoded)"
    )
    assert EVENTS / replayed_s >= 20_000
