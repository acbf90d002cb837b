"""`skrd4ad listen` as a user runs it, against a real publisher in this process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.wire_messages import HealthFields
from skrd4ad.pipeline.wire_record import unpack_record

PATIENCE_S = 30.0


def result(number: int, verdict: Verdict) -> Result:
    values = np.linspace(0.0, 1.0, 64, dtype=np.float32).reshape(8, 8)
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
        reasons=(),
        evaluated=True,
        score=0.25,
        threshold=0.5,
        defects=(),
        latency=Latency(),
        anomaly_map=values,
    )


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    free = "tcp://127.0.0.1:0"
    with Publisher(PublishSettings(events=free, maps=free, map_policy="none"), "edge07") as opened:
        yield opened


def listen(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "skrd4ad", "listen", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_line(publisher: Publisher, parts: int) -> None:
    assert publisher.wait_for_subscribers(1, PATIENCE_S)
    publisher.send_state("RUNNING")
    for number in range(1, parts + 1):
        publisher.send_result(result(number, Verdict.NG if number == 2 else Verdict.OK))
        publisher.heartbeat_if_due(HealthFields(ready=True, uptime_s=1.0))


def test_json_prints_exactly_one_line_per_result(publisher: Publisher) -> None:
    process = listen("--connect", publisher.events_endpoint, "--json")
    run_line(publisher, 25)
    publisher.close()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["name"] for line in lines] == [f"{number}.png" for number in range(1, 26)]
    assert {line["kind"] for line in lines} == {"res"}
    assert "25 results (24 ok, 1 ng, 0 review, 0 err)" in err


def test_plain_lines_name_parts_verdicts_and_states(publisher: Publisher) -> None:
    process = listen("--connect", publisher.events_endpoint)
    run_line(publisher, 3)
    publisher.close("shift over")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "verdict" in out.splitlines()[0]
    assert "state STARTING -> RUNNING" in out
    assert "2.png" in out
    assert "state RUNNING -> BYE: shift over" in out


def test_a_recording_holds_every_event_record_and_map(tmp_path: Path) -> None:
    free = "tcp://127.0.0.1:0"
    with Publisher(
        PublishSettings(events=free, maps=free, map_policy="all"), "edge07"
    ) as publisher:
        endpoints = ("--connect", publisher.events_endpoint, "--maps", publisher.maps_endpoint)
        folders = ("--record", tmp_path / "r", "--save-maps", tmp_path / "m")
        process = listen(*endpoints, *folders, "--json")
        assert publisher.wait_for_subscribers(1, PATIENCE_S)
        publisher.send_state("RUNNING")
        publisher.send_result(result(1, Verdict.OK))
        publisher.send_result(result(2, Verdict.NG))
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    events = [json.loads(line) for line in (tmp_path / "r/events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == ["st", "res", "res", "st"]
    raw = (tmp_path / "r/records.bin").read_bytes()
    assert [unpack_record(raw[at : at + 64]).verdict for at in (0, 64)] == ["ok", "ng"]
    names = ["cam0-00000002.npy", "cam0-00000002.png", "cam0-00000003.npy", "cam0-00000003.png"]
    for folder in (tmp_path / "r/maps", tmp_path / "m"):
        assert sorted(path.name for path in folder.iterdir()) == names
    values = np.load(tmp_path / "m/cam0-00000002.npy")
    assert np.abs(values - np.linspace(0, 1, 64).reshape(8, 8)).max() < 0.5 / 255 + 1e-6
    assert np.asarray(Image.open(tmp_path / "m/cam0-00000002.png")).max() == 255


def test_an_earlier_recording_is_not_overwritten(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("precious\n")
    process = listen("--connect", publisher.events_endpoint, "--record", tmp_path)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "already holds a recording" in err
    assert (tmp_path / "events.jsonl").read_text() == "precious\n"


def test_count_ends_the_session(publisher: Publisher) -> None:
    process = listen("--connect", publisher.events_endpoint, "--json", "--count", 3)
    run_line(publisher, 5)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 3


def test_a_stream_that_falls_silent_exits_with_6(publisher: Publisher) -> None:
    process = listen("--connect", publisher.events_endpoint, "--json", "--idle-s", 1.0)
    run_line(publisher, 2)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 6
    assert len(out.splitlines()) == 2
    assert "fell silent" in err


def test_lost_events_exit_with_6(publisher: Publisher) -> None:
    process = listen("--connect", publisher.events_endpoint, "--json")
    run_line(publisher, 2)
    publisher.last_seq += 7
    run_line(publisher, 1)
    publisher.close()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 6
    assert len(out.splitlines()) == 3
    assert "LOST 7 events" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--connect", "tcp://127.0.0.1:9", "--wait-s", 0.3], 6, "nothing was heard"),
        (["--connect", "nonsense"], 2, "cannot be connected to"),
        (["--count", 0], 2, "--count"),
        (["--save-maps", "m"], 2, "--maps"),
    ],
)
def test_mistakes_get_one_sentence_and_the_right_code(
    arguments: list[object], code: int, message: str
) -> None:
    process = listen(*arguments)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert message in err
    assert "Traceback" not in err


def test_sigterm_closes_the_recording(publisher: Publisher, tmp_path: Path) -> None:
    process = listen("--connect", publisher.events_endpoint, "--record", tmp_path)
    run_line(publisher, 2)
    deadline = time.monotonic() + PATIENCE_S
    while (
        not (tmp_path / "records.bin").exists() or (tmp_path / "records.bin").stat().st_size < 128
    ):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in err
