"""A subscriber that sleeps 50 ms per message harms itself, and the gate beside it not at all."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.wire_messages import HealthFields

FREE = "tcp://127.0.0.1:0"
PATIENCE_S = 60.0
WARM_UP = 1_000_000
"""Results with this number and above are not measured."""
LARGE_MAP = np.zeros((256, 256), np.float32)
READY = HealthFields(ready=True, uptime_s=1.0)

GATE = """
import json, sys, time
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import ResultMessage

found = []
with Subscriber(sys.argv[1]) as stream:
    for item in stream.items():
        if isinstance(item, ResultMessage):
            now = time.monotonic_ns()
            found.append((item.header.cam_seq, (now - item.header.mono_pub) // 1000))
    print(json.dumps({"results": found, "missing": stream.status().missing}))
"""
SLEEPER = """
import sys, time
import zmq

socket = zmq.Context().socket(zmq.SUB)
socket.setsockopt(zmq.RCVHWM, 10)
socket.setsockopt(zmq.RCVBUF, 8192)
socket.subscribe(b"")
socket.connect(sys.argv[1])
while True:
    socket.recv_multipart()
    time.sleep(0.05)
"""


def result(number: int) -> Result:
    now = time.monotonic_ns()
    return Result(
        camera="cam0",
        camera_seq=number,
        frame_id=number,
        captured_ns=time.time_ns(),
        captured_mono_ns=now,
        captured_source="file",
        captured_error_ns=0,
        part=Part(f"A-{number}"),
        name=None,
        verdict=Verdict.OK,
        reasons=(),
        evaluated=True,
        score=0.25,
        threshold=0.5,
        defects=(),
        latency=Latency(),
    )


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher(PublishSettings(events=FREE, maps=FREE, map_policy="none"), "edge07") as opened:
        yield opened


def child(program: str, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE)


def send(publisher: Publisher, numbers: range, rate: float) -> None:
    """At most `rate` a second: what a busy machine held up is not made up for in a burst, which
    would be more than a queue holds."""
    for number in numbers:
        time.sleep(1 / rate)
        publisher.send_result(result(number))
        publisher.heartbeat_if_due(READY)


def test_the_gate_loses_nothing_beside_a_subscriber_that_sleeps(publisher: Publisher) -> None:
    gate = child(GATE, publisher.events_endpoint)
    sleeper = child(SLEEPER, publisher.events_endpoint)
    try:
        assert publisher.wait_for_subscribers(2, PATIENCE_S)
        send(publisher, range(1, 3001), rate=2000.0)
        publisher.close()
        output, _ = gate.communicate(timeout=PATIENCE_S)
    finally:
        for process in (gate, sleeper):
            process.kill()
            process.wait(PATIENCE_S)
    found = json.loads(output)
    assert [number for number, _ in found["results"]] == list(range(1, 3001))
    assert found["missing"] == 0


STALLED = """
import sys, time
from contextlib import ExitStack
from skrd4ad.pipeline.subscriber import Subscriber

with ExitStack() as stack:
    streams = [stack.enter_context(Subscriber(*sys.argv[1:3])) for _ in range(6)]
    sys.stdin.read()
    time.sleep(2.0)  # four heartbeats of libzmq
    print("alive")
"""


def test_a_box_that_ends_kills_no_subscriber_whose_queue_is_full() -> None:
    """libzmq 4.3.5 aborts such a process when a heartbeat of its own falls due: see subscriber."""
    settings = PublishSettings(events=FREE, maps=FREE, map_policy="all")
    with Publisher(settings, "edge07") as publisher:
        stalled = subprocess.Popen(
            [
                *(sys.executable, "-c", STALLED),
                *(publisher.events_endpoint, publisher.maps_endpoint),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert publisher.wait_for_subscribers(6, PATIENCE_S)
        for number in range(300):
            publisher.send_result(replace(result(number), anomaly_map=LARGE_MAP))
    output, _ = stalled.communicate(timeout=PATIENCE_S)
    assert output == b"alive\n", f"ended by {stalled.returncode}"


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_gates_p99_does_not_move_beside_a_subscriber_that_sleeps(publisher: Publisher) -> None:
    """Turns with and without the sleeper alternate, and each p99 is the median over its turns: a
    burst of other work on the machine hits one turn, and neither side's figure."""
    gate = child(GATE, publisher.events_endpoint)
    turns, per_turn = 20, 1000
    try:
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        send(publisher, range(WARM_UP, WARM_UP + 500), rate=200.0)
        for turn in range(turns):
            sleeper = None
            if turn % 2:
                sleeper = child(SLEEPER, publisher.events_endpoint)
                assert publisher.wait_for_subscribers(2, PATIENCE_S)
            time.sleep(0.5)
            send(publisher, range(turn * per_turn, (turn + 1) * per_turn), rate=200.0)
            if sleeper is not None:
                sleeper.kill()
                sleeper.wait(PATIENCE_S)
            time.sleep(0.5)
        publisher.close()
        output, _ = gate.communicate(timeout=PATIENCE_S)
    finally:
        gate.kill()
    found = json.loads(output)
    assert found["missing"] == 0
    latency = np.array(
        [us for number, us in found["results"] if number < WARM_UP], dtype=np.float64
    )
    assert len(latency) == turns * per_turn
    by_turn = latency.reshape(turns, per_turn)
    by_turn_p99 = np.percentile(by_turn, 99, axis=1)
    alone, beside = np.median(by_turn_p99[0::2]), np.median(by_turn_p99[1::2])
    print(
        f"\ngate p99 publish to receive: alone {alone:.0f} us, beside a sleeper {beside:.0f} us, "
        f"ratio {beside / alone:.3f}; {len(latency)} events, none lost"
    )
    assert beside / alone <= 1.2
