"""examples/python, run as they stand against a real publisher."""

from __future__ import annotations

import csv
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest
from skrd4ad.errors import NetworkError
from skrd4ad.pipeline.records import Verdict
from skrd4ad.pipeline.stream_check import StreamStatus
from skrd4ad.pipeline.subscriber import Item, Subscriber
from skrd4ad.pipeline.wire import ResultMessage

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"
PATIENCE_S = 60.0


def example(name: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_gate_passes_good_parts_and_stops_the_feeder_in_silence(box_parts: ModuleType) -> None:
    box = box_parts.Box()
    gate = example("gate.py", box.events)
    assert gate.stdout is not None
    box.wait_for_clients(1)
    assert gate.stdout.readline() == "GO\n"
    box.send(
        box_parts.result(1),
        box_parts.result(2, Verdict.NG),
        box_parts.result(3, Verdict.ERR),
        box_parts.result(4, late=True),
    )
    told = [gate.stdout.readline().strip() for _ in range(4)]
    assert told == ["2 PASS", "3 REJECT", "4 REJECT", "5 REJECT"]
    box.fall_silent()
    assert gate.stdout.readline() == "STOP\n"
    box.send(box_parts.result(5))  # alive again, as any message shows
    assert [gate.stdout.readline().strip() for _ in range(2)] == ["GO", "6 PASS"]
    box.lose(2)
    box.send(box_parts.result(6))
    assert [gate.stdout.readline().strip() for _ in range(2)] == ["STOP", "9 REJECT"]
    box.close()
    gate.communicate(timeout=PATIENCE_S)
    assert gate.returncode == 0


def test_every_result_is_kept_also_a_lost_one(tmp_path: Path, box_parts: ModuleType) -> None:
    box = box_parts.Box(journal=tmp_path / "journal.db")
    keeper = example(
        "keep_results.py", box.events, box.publisher.replay_endpoint, tmp_path / "r.csv"
    )
    box.wait_for_clients(1)
    box.send(box_parts.result(1))
    box.send_unheard(box_parts.result(2), box_parts.result(3, Verdict.NG))
    box.send(box_parts.result(4))
    path = tmp_path / "r.csv"
    box_parts.wait_for(lambda: path.exists() and path.read_text().count("\n") == 4)
    box.close()
    _, errors = keeper.communicate(timeout=PATIENCE_S)
    assert keeper.returncode == 0, errors
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = sorted(csv.reader(file))
    assert [(row[0], row[3], row[4]) for row in rows] == [
        ("2", "p1", "ok"),
        ("3", "p2", "ok"),
        ("4", "p3", "ng"),
        ("5", "p4", "ok"),
    ]


def test_callbacks_end_when_they_are_asked_to(box_parts: ModuleType) -> None:
    box, stop = box_parts.Box(), threading.Event()
    seen: list[int] = []

    def on_item(item: Item, status: StreamStatus) -> None:
        if isinstance(item, ResultMessage):
            seen.append(item.header.seq)
            if len(seen) == 3:
                stop.set()

    with Subscriber(box.events) as stream:
        thread = threading.Thread(target=stream.run, args=(on_item,), kwargs={"stop": stop})
        thread.start()
        box.wait_for_clients(1)
        box.send(*[box_parts.result(number) for number in range(1, 6)])
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert seen == [2, 3, 4]
    box.close()


def test_silence_is_told_before_it_ends_the_callbacks(box_parts: ModuleType) -> None:
    box = box_parts.Box()
    told: list[bool] = []

    def on_status(status: StreamStatus) -> None:
        told.append(status.ok)
        if status.ok:
            box.fall_silent()

    with (
        Subscriber(box.events) as stream,
        pytest.raises(NetworkError, match="fell silent"),
    ):
        stream.run(lambda item, status: None, on_status, silent_s=2.0)
    assert told == [True, False]
    box.close()
