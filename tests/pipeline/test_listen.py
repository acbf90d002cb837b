"""`skrd4ad listen` as a user runs it, against a real publisher in this process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from skrd4ad import cli
from skrd4ad.pipeline.key_files import write_key_pair
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.security import new_key_pair
from skrd4ad.pipeline.wire_messages import CameraFields, HealthFields
from skrd4ad.pipeline.wire_record import unpack_record

PATIENCE_S = 60.0


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
        (["--doctor", 0], 2, "--doctor"),
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


Doctor = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Runs the verb in this process, with patience for a busy machine."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        words = ["listen", "--doctor", "1.2", "--json", *map(str, arguments)]
        code = cli.main(words)
        return code, json.loads(capsys.readouterr().out)

    return run


def test_the_doctor_finds_nothing_wrong_with_a_line_that_runs(box_parts: ModuleType) -> None:
    box = box_parts.Box()
    process = listen("--doctor", 2.0, "--connect", box.events)
    box.wait_for_clients(1)
    box.send(*[box_parts.result(number) for number in range(1, 21)])
    box.do(lambda: box.publisher.send_alarm("peer_refused", True, "somebody"))
    out, _ = process.communicate(timeout=PATIENCE_S)
    box.close()
    assert process.returncode == 0, out
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert out.startswith("ACT | alive fresh contiguous valid | RUNNING")
    assert "edge07" in lines["box"]
    assert "every 100 ms, last sign 0." in lines["heartbeat"]
    assert "cam0: running, 1 parts, last frame 0.0 s before, 0 reconnects" in lines["cameras"]
    assert "ok 20 ng 0" in lines["results"]
    assert "0, fetched 0, gone 0" in lines["missing"]
    assert "active 5001 | newest: on  5001 peer_refused" in lines["alarms"]
    assert "all is well, with a warning: 5001" in lines["DIAGNOSIS"]


def test_the_doctor_tells_camera_box_and_keys_apart(
    doctor: Doctor, box_parts: ModuleType, tmp_path: Path
) -> None:
    box = box_parts.Box()
    box.health = msgspec.structs.replace(
        box.health,
        cams={"cam0": CameraFields(state="reopening", admitted=1, reconnects=4, last_age_ms=9000)},
    )
    code, said = doctor("--connect", box.events)
    assert (code, said["where"]) == (3, "camera")
    assert "cam0 is reopening" in said["diagnosis"]
    assert said["heartbeat"]["health"]["cams"]["cam0"]["reconnects"] == 4
    box.fall_silent()
    code, said = doctor("--connect", box.events)
    assert (code, said["where"], said["link"]) == (6, "box", "ready")
    assert "no heartbeat comes" in said["diagnosis"]
    endpoint = box.events
    box.close()
    code, said = doctor("--connect", endpoint)
    assert (code, said["where"], said["reach"]) == (6, "box", "refused")

    write_key_pair(tmp_path / "keys", "server", "server", *new_key_pair())
    settings = PublishSettings(
        events="tcp://127.0.0.1:0", maps="tcp://127.0.0.1:0", keys=str(tmp_path / "keys")
    )
    with Publisher(settings, "edge07") as locked:
        code, said = doctor("--connect", locked.events_endpoint)
        assert (code, said["where"]) == (6, "keys")
        assert "asks for a key" in said["diagnosis"]
        write_key_pair(tmp_path / "me", "press3", "viewer", *new_key_pair())
        keys = (
            "--key",
            tmp_path / "me/press3.secret",
            "--server-key",
            tmp_path / "keys/server.key",
        )
        code, said = doctor("--connect", locked.events_endpoint, *keys)
        assert (code, said["where"]) == (6, "keys")
        assert "refuses our key" in said["diagnosis"]


def test_silence_ends_with_the_diagnosis(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["listen", "--connect", "tcp://127.0.0.1:9", "--wait-s", "0.3"]) == 6
    err = capsys.readouterr().err
    assert "its computer answers, but the program does not run" in err
    assert "try:   start skrd4ad-stream there" in err


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
