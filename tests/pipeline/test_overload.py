"""More parts than the line can judge, and a camera that dies all the time: every part is accounted
for, and memory, handles and threads stay as they are."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from skrd4ad.pipeline.stream_check import Gap
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import AlarmMessage, HeartbeatMessage, ResultMessage, StateMessage

PROGRAM = Path(__file__).parent / "overloaded.py"
SHORT_S, LONG_S = 10.0, 300.0
"""Of each of the two modes: twenty seconds in the suite, ten minutes in `make soak`."""


def overload(plan: Path, mode: str, seconds: float) -> dict[str, Any]:
    """Run it, watch it from outside; what the events, the process and its last line say."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(plan), mode, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    results: dict[str, list[int]] = {"steady": [], "dying": []}
    reasons: Counter[str] = Counter()
    alarms: Counter[tuple[str, bool]] = Counter()
    samples: list[tuple[float, int, int]] = []
    gates = None
    try:
        endpoint = process.stdout.readline().strip()
        own = psutil.Process(process.pid)
        begun = next_sample = time.monotonic()
        with Subscriber(endpoint) as events:
            while True:
                item = events.receive(1.0)
                now = time.monotonic()
                assert now < begun + seconds + 60
                # Not in the last two seconds: its time began before ours, and it ends in steps.
                if next_sample <= now < begun + seconds - 2:
                    next_sample = now + seconds / 40
                    rss_mb = own.memory_info().rss / 2**20
                    samples.append((rss_mb, own.num_fds(), own.num_threads()))
                assert not isinstance(item, Gap), item
                if isinstance(item, ResultMessage):
                    results[item.header.cam].append(item.header.cam_seq)
                    reasons.update(item.header.reason)
                elif isinstance(item, AlarmMessage):
                    alarms[item.header.name, item.header.active] += 1
                elif isinstance(item, HeartbeatMessage):
                    assert item.header.health.balance.holds
                    gates = item.header.health.gates
                elif isinstance(item, StateMessage) and item.header.state == "BYE":
                    break
        summary = json.loads(process.communicate(timeout=60)[0].splitlines()[-1])
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
    return {
        **summary,
        "results": results,
        "reasons": reasons,
        "alarms": alarms,
        "samples": samples[len(samples) // 4 :],  # what comes before is warm-up
        "gate": gates["steady"] if gates else None,
    }


def check(found: dict[str, Any], mode: str, lives: int) -> str:
    balance, results, alarms = found["balance"], found["results"], found["alarms"]
    assert found["balanced"]
    assert found["pending"] == 0
    count = {camera: len(own) for camera, own in results.items()}
    assert sum(count.values()) == balance["results"]
    assert found["opened"]["dying"] >= lives
    # At the very end it may be out.
    assert 0 <= alarms["camera_lost", True] - alarms["camera_lost", False] <= 1
    assert alarms["camera_lost", False] >= lives - 1
    if mode == "latest":
        # What a camera made was admitted (but for one in its hand at the end), and what was
        # admitted has a result or was counted as dropped.
        made = sum(found["made"].values())
        assert made - 2 <= balance["admitted"] <= made
        assert balance["admitted"] == balance["results"] + sum(balance["dropped"].values())
        assert balance["dropped"]["admission:superseded"] > 0
        for own in results.values():
            assert own == sorted(set(own))
    else:
        assert balance["dropped"] == {}
        assert count == found["given"]
        assert min(found["refused"].values()) > 0, "it was not overloaded"
        for own in results.values():
            assert own == list(range(1, len(own) + 1))
        assert found["reasons"]["camera_lost"] > 0
        assert set(found["reasons"]) <= {"camera_lost", "no_frame", "stopped"}
        assert found["gate"].unplaced == found["gate"].mismatched == 0
    rss, handles, threads = zip(*found["samples"], strict=True)
    half = len(rss) // 2
    growth_mb = sum(rss[half:]) / len(rss[half:]) - sum(rss[:half]) / half
    assert growth_mb < 4.0, rss
    assert max(handles) - min(handles) <= 2, handles  # the dying camera's own, open or not
    assert max(threads) - min(threads) <= 1, threads
    return (
        f"{mode}: {balance['admitted']} parts admitted, {balance['results']} results, "
        f"{sum(balance['dropped'].values())} dropped, {sum(found['refused'].values())} refused; "
        f"{found['opened']['dying']} lives of the dying camera; memory {growth_mb:+.2f} MiB from "
        f"the first half to the second, {min(handles)} to {max(handles)} handles, "
        f"{min(threads)} to {max(threads)} threads"
    )


@pytest.mark.parametrize("mode", ["latest", "every"])
def test_overload_and_a_dying_camera_leave_no_part_unaccounted(tiny_plan: Path, mode: str) -> None:
    print(check(overload(tiny_plan, mode, SHORT_S), mode, lives=2))


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", ["latest", "every"])
def test_ten_minutes_of_overload(tiny_plan: Path, mode: str) -> None:
    print(check(overload(tiny_plan, mode, LONG_S), mode, lives=15))
