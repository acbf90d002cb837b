"""What archiving every part costs the publish thread, beside two ways that were not taken."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest
import zmq
from skrd4ad.pipeline.archive import ArchiveSettings, ArchiveTap
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict

FREE = "tcp://127.0.0.1:0"
PARTS = 150
PIXELS = np.random.default_rng(1).integers(0, 256, (1024, 1280, 3), np.uint8)

pytestmark = pytest.mark.soak


def quantiles_us(act: Callable[[], object], pause_s: float = 0.02) -> tuple[float, float, float]:
    """(p50, p99, max) of calling `act`, with the pauses of a line of 50 parts a second."""
    times = []
    for _ in range(PARTS):
        begun = time.perf_counter_ns()
        act()
        times.append((time.perf_counter_ns() - begun) / 1000)
        time.sleep(pause_s)
    ordered = sorted(times)
    return ordered[PARTS // 2], ordered[int(PARTS * 0.99)], ordered[-1]


def copies_into(memory: SharedMemory) -> tuple[float, float, float]:
    slot = np.ndarray(PIXELS.shape, np.uint8, memory.buf)
    return quantiles_us(lambda: np.copyto(slot, PIXELS))


def test_the_hand_over_costs_the_publish_thread_less_than_copying_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher = Publisher(PublishSettings(events=FREE, maps=FREE), "edge07")
    part = Result(
        camera="cam0",
        camera_seq=1,
        frame_id=1,
        captured_ns=time.time_ns(),
        captured_mono_ns=time.monotonic_ns(),
        captured_source="file",
        captured_error_ns=0,
        part=Part(),
        name=None,
        verdict=Verdict.NG,
        reasons=(),
        evaluated=True,
        score=0.9,
        threshold=0.5,
        defects=(),
        latency=Latency(),
        anomaly_map=np.zeros((256, 256), np.float32),
        pixels=PIXELS,
    )
    tap = ArchiveTap(ArchiveSettings(path=str(tmp_path)), publisher.last_result, publisher.boot)
    with publisher:
        seq = publisher.send_result(part)
        tap.open(lambda alarm: None)
        begun = time.monotonic()
        ours = quantiles_us(lambda: tap.on_result(part, seq))
        seconds = time.monotonic() - begun
        rate = tap.written / seconds
        good = dataclasses.replace(part, verdict=Verdict.OK, score=0.1)
        not_wanted = quantiles_us(lambda: tap.on_result(good, seq), 0.0)
        tap.close()
    tap.writer.wait(60)

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    out, into = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    into.bind(f"ipc://{tmp_path}/ipc")
    out.connect(f"ipc://{tmp_path}/ipc")
    ipc = quantiles_us(lambda: (out.send(PIXELS.data, copy=True), into.recv(copy=False)))
    context.destroy(linger=0)

    memory = SharedMemory(create=True, size=PIXELS.nbytes)
    shared = copies_into(memory)
    memory.close()
    memory.unlink()
    with capsys.disabled():
        print(f"\n3.9 MB image, {PARTS} parts at 50/s; microseconds in the calling thread")
        for name, (p50, p99, worst) in (
            ("archive tap, part kept", ours),
            ("archive tap, part not kept", not_wanted),
            ("copy into shared memory", shared),
            ("ipc socket, send and receive", ipc),
        ):
            print(f"  {name:30} p50 {p50:8.1f}  p99 {p99:8.1f}  max {worst:8.1f}")
        print(f"  written meanwhile: {rate:.1f} parts/s, {tap.dropped} dropped of {PARTS}")
    assert ours[0] < shared[0], "handing over a reference must be cheaper than a copy"
