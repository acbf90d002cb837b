"""A cut network and a killed box, between two network namespaces: nothing is missing afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

BOX, CLIENT = "skrd-box", "skrd-client"
BOX_ADDRESS, CLIENT_ADDRESS = "10.77.31.1", "10.77.31.2"
STALE_WITHIN_S = 3.0

PUBLISH = """
import signal, sys, threading, time
from skrd4ad.pipeline.journal import JournalSettings
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.wire_messages import HealthFields

path, rate, address = sys.argv[1], float(sys.argv[2]), sys.argv[3]
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
settings = PublishSettings(
    events=f"tcp://{address}:5555", maps=f"tcp://{address}:5556", map_policy="none",
    replay=f"tcp://{address}:5557", insecure=True,
    journal=JournalSettings(path=path, min_free_mb=0.0),
)
with Publisher(settings, "edge07") as publisher:
    publisher.send_state("RUNNING")
    begun, number, known = time.monotonic(), 0, -1
    while not stop.is_set():
        due = int((time.monotonic() - begun) * rate)
        while number < due:
            number += 1
            now = time.monotonic_ns()
            publisher.send_result(Result(
                camera="cam0", camera_seq=number, frame_id=number, captured_ns=time.time_ns(),
                captured_mono_ns=now, captured_source="file", captured_error_ns=0,
                part=Part(f"A-{number}"), name=None, verdict=Verdict.OK, reasons=(),
                evaluated=True, score=0.25, threshold=0.5, defects=(), latency=Latency(),
            ))
        publisher.heartbeat_if_due(HealthFields(ready=True, uptime_s=1.0))
        count = publisher.subscribers
        if count != known:
            known = count
            print(f"{time.monotonic()} {count}", flush=True)
        time.sleep(0.001)
"""

SUBSCRIBE = """
import json, sys, time
from skrd4ad.pipeline.stream_check import Gap, Restart
from skrd4ad.pipeline.subscriber import Gone, Replayed, Subscriber
from skrd4ad.pipeline.wire import HeartbeatMessage

address = sys.argv[1]
seen, twice, filled, gone, restarts = set(), 0, 0, 0, 0
alive, changes = False, []
with Subscriber(f"tcp://{address}:5555", replay=f"tcp://{address}:5557") as stream:
    for item in stream.ticks(60.0, 60.0, 0.05):
        now_alive = stream.status().alive
        if now_alive != alive:
            alive = now_alive
            changes.append((time.monotonic(), alive))
            print(json.dumps({"alive": alive}), flush=True)
        if isinstance(item, Gone):
            gone += item.gap.count
        if isinstance(item, Restart):
            restarts += 1
        if item is None or isinstance(item, Gap | Restart | Gone | HeartbeatMessage):
            continue
        message = item.message if isinstance(item, Replayed) else item
        filled += isinstance(item, Replayed)
        twice += message.header.seq in seen
        seen.add(message.header.seq)
    missing = max(seen) - min(seen) + 1 - len(seen)
    print(json.dumps({
        "events": len(seen), "missing": missing, "twice": twice, "filled": filled, "gone": gone,
        "restarts": restarts, "changes": changes, "ignored": stream.check.duplicates,
        "contiguous": stream.status().contiguous,
    }), flush=True)
"""


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=20)


@pytest.fixture
def namespaces() -> Iterator[None]:
    """Two network namespaces with a cable between them."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (Debian package iproute2)")
    for name in (BOX, CLIENT):
        ip("netns", "del", name)
        made = ip("netns", "add", name)
        if made.returncode:
            pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    try:
        steps = [
            ("-n", BOX, "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", CLIENT),
            ("-n", BOX, "addr", "add", f"{BOX_ADDRESS}/24", "dev", "eth0"),
            ("-n", CLIENT, "addr", "add", f"{CLIENT_ADDRESS}/24", "dev", "eth0"),
            ("-n", BOX, "link", "set", "eth0", "up"),
            ("-n", CLIENT, "link", "set", "eth0", "up"),
        ]
        for step in steps:
            done = ip(*step)
            if done.returncode:
                pytest.skip(f"no virtual cable here: {done.stderr.strip()}")
        yield
    finally:
        for name in (BOX, CLIENT):
            ip("netns", "del", name)


def start(namespace: str, program: str, output: Path, *words: str) -> subprocess.Popen[bytes]:
    with output.open("ab") as file:
        return subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", program, *words],
            stdout=file,
        )


class Healed(NamedTuple):
    summary: dict[str, object]
    client_noticed_s: float
    box_noticed_s: float


def partition(folder: Path, rate: float, cut_s: float, steady_s: float) -> Healed:
    """Run, cut for `cut_s`, kill and restart the box meanwhile, heal, kill once more, end."""
    box_says, client_says = folder / "box.txt", folder / "client.txt"
    box_words = (str(folder / "journal.sqlite3"), str(rate), BOX_ADDRESS)
    running = [start(BOX, PUBLISH, box_says, *box_words)]
    try:
        running.append(start(CLIENT, SUBSCRIBE, client_says, BOX_ADDRESS))
        wait_for(lambda: any(line.endswith(" 1") for line in lines(box_says)))
        wait_for(lambda: '{"alive": true}' in lines(client_says))
        time.sleep(steady_s)
        cut_at = time.monotonic()
        assert ip("-n", CLIENT, "link", "set", "eth0", "down").returncode == 0
        # The box must have noticed before it is killed, or nobody could say whether it would.
        time.sleep(max(cut_s / 2, STALE_WITHIN_S + 0.5))
        box_noticed = [float(line.split()[0]) for line in lines(box_says) if line.endswith(" 0")]
        running[0] = killed_and_restarted(running[0], box_says, box_words)
        time.sleep(max(cut_at + cut_s - time.monotonic(), 0.0))
        assert ip("-n", CLIENT, "link", "set", "eth0", "up").returncode == 0
        wait_for(lambda: lines(client_says).count('{"alive": true}') >= 2)
        time.sleep(steady_s)
        running[0] = killed_and_restarted(running[0], box_says, box_words)
        count = len(lines(box_says))
        wait_for(lambda: any(line.endswith(" 1") for line in lines(box_says)[count:]))
        time.sleep(steady_s)
        running[0].send_signal(signal.SIGTERM)
        assert running[0].wait(20.0) == 0
        assert running[1].wait(90.0) == 0
    finally:
        for process in running:
            process.kill()
            process.wait(20.0)
    summary = json.loads(lines(client_says)[-1])
    died = [at for at, alive in summary["changes"] if not alive and at > cut_at]
    noticed = [at for at in box_noticed if at > cut_at]
    return Healed(summary, died[0] - cut_at, noticed[0] - cut_at if noticed else float("inf"))


def killed_and_restarted(
    process: subprocess.Popen[bytes], output: Path, words: tuple[str, ...]
) -> subprocess.Popen[bytes]:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20.0)
    return start(BOX, PUBLISH, output, *words)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check(healed: Healed) -> None:
    summary = healed.summary
    assert (summary["missing"], summary["twice"], summary["gone"]) == (0, 0, 0)
    assert summary["contiguous"] is True
    assert summary["restarts"] == 2
    assert summary["filled"] > 0


@pytest.mark.usefixtures("namespaces")
@pytest.mark.timeout(120)
def test_after_a_cut_and_two_kills_no_event_is_missing_and_none_comes_twice(tmp_path: Path) -> None:
    healed = partition(tmp_path, rate=100.0, cut_s=3.5, steady_s=0.5)
    check(healed)
    # Three seconds are the aim (soak); a busy machine may look later.
    assert healed.client_noticed_s < 3 * STALE_WITHIN_S
    assert healed.box_noticed_s < 3 * STALE_WITHIN_S


@pytest.mark.soak
@pytest.mark.usefixtures("namespaces")
@pytest.mark.timeout(300)
def test_eight_seconds_cut_at_a_thousand_events_a_second(tmp_path: Path) -> None:
    healed = partition(tmp_path, rate=1000.0, cut_s=8.0, steady_s=5.0)
    summary = {key: value for key, value in healed.summary.items() if key != "changes"}
    print(
        f"\npartition: {summary}; staleness noticed by the client after "
        f"{healed.client_noticed_s:.2f} s, by the box after {healed.box_noticed_s:.2f} s"
    )
    check(healed)
    assert healed.client_noticed_s <= STALE_WITHIN_S
    assert healed.box_noticed_s <= STALE_WITHIN_S
