"""`skrd4ad stream` as a plant runs it: its own process, real sockets, real signals."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import HeartbeatMessage, Message, ResultMessage, StateMessage

PATIENCE_S = 60.0


def everything(subscriber: Subscriber) -> list[Message]:
    """All messages up to BYE."""
    messages: list[Message] = []
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        item = subscriber.receive(1.0)
        if item is None:
            continue
        assert hasattr(item, "header"), f"the stream was not contiguous: {item}"
        messages.append(item)
        if isinstance(item, StateMessage) and item.header.state == "BYE":
            return messages
    pytest.fail(f"no BYE in {PATIENCE_S} s")


def results(messages: list[Message]) -> list[Any]:
    return [message.header for message in messages if isinstance(message, ResultMessage)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 parts in two folders, some grey, 16 bit or RGBA, and three that cannot be read."""
    root = tmp_path_factory.mktemp("parts")
    dice = np.random.default_rng(5)
    for number in range(40):
        pixels = np.full((80, 100, 3), (124, 116, 104), np.uint8)
        if number % 3 == 0:
            x, y = dice.integers(10, 60, 2)
            pixels[y : y + 15, x : x + 25] = 255
        path = root / ("a" if number < 20 else "b") / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        if number == 4:
            Image.fromarray(pixels[..., 0]).save(path)
        elif number == 8:
            Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(path)
        elif number == 12:
            Image.fromarray(np.dstack([pixels, pixels[..., 0]])).save(path)
        elif number == 16:
            Image.fromarray(pixels[:1, :1]).save(path)
        else:
            Image.fromarray(pixels).save(path)
    cut = root / "a" / "007.png"
    cut.write_bytes(cut.read_bytes()[:90])
    (root / "b" / "033.png").write_bytes(b"\x89PNG nothing more")
    return root


def test_a_folder_gives_one_event_per_file_in_order_as_inspect_sees_them(
    streams: ModuleType, tiny_plan: Path, folder: Path
) -> None:
    arguments = ("--plan", tiny_plan, "--camera", f"top=dir:{folder}", "--box", "edge07")
    with streams.running(*arguments, "--wait-subscribers", 1) as line:
        with Subscriber(line.ready["events"]) as subscriber:
            messages = everything(subscriber)
        summary = line.summary()
    events = results(messages)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert [event.name for event in events] == files
    assert [event.cam_seq for event in events] == list(range(1, 41))
    numbered = [m.header.seq for m in messages if not isinstance(m, HeartbeatMessage)]
    assert numbered == list(range(numbered[0], numbered[0] + len(numbered)))
    assert {event.cam for event in events} == {"top"}

    command = [sys.executable, "-m", "skrd4ad", "inspect", "--plan", str(tiny_plan), "--json"]
    inspected = subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert inspected.returncode == 2, "three files cannot be read"
    rows = [json.loads(line) for line in inspected.stdout.splitlines()]
    assert len(rows) == 40
    for event, row in zip(events, rows, strict=True):
        assert (event.name, event.verdict) == (row["name"], row["verdict"])
        if row["score"] is None:
            assert (event.score, event.reason, event.evaluated) == (None, ("unreadable",), False)
        else:
            assert event.score == pytest.approx(row["score"], abs=1e-6)
    verdicts = [event.verdict for event in events]
    assert verdicts.count("err") == 3
    assert {"ok", "ng"} < set(verdicts)
    counted = {name: summary[name] for name in ("ok", "ng", "review", "err")}
    assert counted == {name: verdicts.count(name) for name in counted}
    assert (summary["parts"], summary["dropped"], summary["balanced"]) == (40, 0, True)


def test_heartbeats_say_how_the_line_is(streams: ModuleType, tiny_plan: Path) -> None:
    camera = "test:rate=50,count=60,size=64,bank=2"
    arguments = ("--plan", tiny_plan, "--camera", camera, "--wait-subscribers", 1)
    with (
        streams.running(*arguments) as line,
        Subscriber(line.ready["events"]) as subscriber,
    ):
        messages = everything(subscriber)
    beats = [m.header for m in messages if isinstance(m, HeartbeatMessage)]
    assert beats
    assert all(beat.health.balance.holds for beat in beats)
    steady = [beat for beat in beats if beat.state == "RUNNING" and beat.health.balance.results]
    assert steady
    health = steady[-1].health
    assert health.ready
    assert health.cams["cam0"].state in ("running", "ended")
    assert health.lat_us["total"].p99 >= health.lat_us["total"].p50 > 0
    assert "onnxruntime" in health.backend
    assert {event.sim for event in results(messages)} == {True}


def stop_at(
    streams: ModuleType, plan: Path, moment_s: float, number: int, limit_s: float = 15.0
) -> None:
    """3 s is the promise, which the soak holds it to; the suite runs beside anything."""
    camera = "test:size=64,bank=2,rate=300"
    arguments = ("--plan", plan, "--camera", camera, "--wait-subscribers", 1)
    with streams.running(*arguments) as line:
        with Subscriber(line.ready["events"]) as subscriber:
            first = subscriber.receive(PATIENCE_S)
            assert first is not None
            time.sleep(moment_s)
            line.process.send_signal(number)
            asked = time.monotonic()
            messages = everything(subscriber)
        summary = line.summary(130 if number == signal.SIGINT else 0)
        assert time.monotonic() - asked < limit_s
    events = results(messages)
    assert [event.cam_seq for event in events] == list(range(1, len(events) + 1))
    assert (summary["parts"], summary["balanced"]) == (len(events), True)
    assert summary["ended_by"] == "stop"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_says_bye(streams: ModuleType, tiny_plan: Path, number: int) -> None:
    stop_at(streams, tiny_plan, random.Random(number).uniform(0.0, 0.3), number)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_fifty_signals_at_random_moments_lose_nothing(streams: ModuleType, tiny_plan: Path) -> None:
    dice = random.Random(50)
    for _ in range(50):
        end = dice.choice([signal.SIGTERM, signal.SIGINT])
        stop_at(streams, tiny_plan, dice.uniform(0.0, 1.0), end, limit_s=3.5)


def test_a_missing_camera_and_a_port_in_use_are_one_sentence(
    streams: ModuleType, tiny_plan: Path
) -> None:
    code, errors = streams.failed("--plan", tiny_plan, "--camera", "/dev/video93")
    assert code == 3
    assert "Traceback" not in errors
    assert "/dev/video93 does not exist" in errors
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = ("--events", f"tcp://127.0.0.1:{port}")
        code, errors = streams.failed("--plan", tiny_plan, "--camera", "test:", *busy)
    assert code == 6
    assert "Traceback" not in errors
    assert str(port) in errors


def test_two_cameras_of_one_name_are_a_usage_error(streams: ModuleType, tiny_plan: Path) -> None:
    two = ("--camera", "a=test:", "--camera", "a=test:")
    code, errors = streams.failed("--plan", tiny_plan, *two)
    assert code == 2
    assert "Traceback" not in errors
    assert "two cameras are called 'a'" in errors


def test_the_line_starts_without_torch_or_tensorrt(tiny_plan: Path, tmp_path: Path) -> None:
    program = f"""
import sys, time
began = time.process_time()
import skrd4ad.pipeline
took = time.process_time() - began
from skrd4ad import cli
code = cli.main(["stream", "--plan", {str(tiny_plan)!r}, "--camera",
                 "test:count=5,size=64,bank=1", "--events", "tcp://127.0.0.1:0",
                 "--maps", "tcp://127.0.0.1:0"])
loaded = sorted({{"torch", "tensorrt", "pycuda", "torchvision"}} & set(sys.modules))
print("PROOF", code, took < 0.5, loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=tmp_path,
    )
    assert done.stdout.splitlines()[-1] == "PROOF 0 True []", done.stderr


def memory_slope(streams: ModuleType, plan: Path, frames: int) -> tuple[float, float]:
    """RSS in MiB when a tenth of the frames is done, and at the end."""
    camera = f"test:count={frames},size=128,bank=8,seed=3,defect=0.3"
    arguments = ("--plan", plan, "--camera", camera, "--map-policy", "all")
    with streams.running(*arguments, "--wait-subscribers", 1) as line:
        own = psutil.Process(line.process.pid)
        early = last = 0.0
        with Subscriber(line.ready["events"]) as subscriber:
            seen = 0
            while seen < frames:
                item = subscriber.receive(PATIENCE_S)
                assert item is not None
                if isinstance(item, ResultMessage):
                    seen += 1
                    if seen == frames // 10:
                        early = own.memory_info().rss / 2**20
                    elif seen % 100 == 0 and line.process.poll() is None:
                        last = own.memory_info().rss / 2**20
        line.summary()
    return early, last


def test_memory_stays_flat_over_two_thousand_parts(streams: ModuleType, tiny_plan: Path) -> None:
    early, last = memory_slope(streams, tiny_plan, 2000)
    assert last - early < 8.0, f"{early:.1f} -> {last:.1f} MiB"


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_memory_stays_flat_over_ten_thousand_parts(streams: ModuleType, tiny_plan: Path) -> None:
    early, last = memory_slope(streams, tiny_plan, 10_000)
    print(f"RSS {early:.1f} -> {last:.1f} MiB over 10 000 parts")
    assert last - early < 8.0, f"{early:.1f} -> {last:.1f} MiB"


def test_a_refused_engine_is_exit_code_4_while_a_camera_still_opens(
    streams: ModuleType, tiny_plan: Path
) -> None:
    """The camera draws its parts in C++ when the process ends: that was an abort, code 134."""
    camera = ("--camera", "test:seed=1,size=1024")
    code, error = streams.failed(*camera, "--plan", tiny_plan, "--backend", "tensorrt")
    assert code == 4, error
    assert error.count("error: ") == 1
    assert "left behind" in error, "the camera was to be busy still"
