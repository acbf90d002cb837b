"""A stop ends the line within three seconds from whatever state it is in, and systemd is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.spec import Manifest
from skrd4ad.errors import CameraError
from skrd4ad.pipeline.capture.base import Shot
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.control_port import ControlRefused, LineControl
from skrd4ad.pipeline.line import STOP_LIMIT_S, run_line
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings, LineSummary
from skrd4ad.pipeline.records import Verdict

PATIENCE_S = 60.0
GRACE_S = 1.5
"""For a loaded test machine, beyond the promise."""


@pytest.fixture(scope="module")
def manifest(tiny_plan: Path) -> Manifest:
    return msgspec.structs.replace(load_plan(tiny_plan).manifest, batch=2)


class Plant:
    """A line whose parts can hang; `reached` is set when it has come where the test wants it."""

    def __init__(self, parts: ModuleType, manifest: Manifest) -> None:
        self.parts, self.manifest = parts, manifest
        self.reached, self.release, self.stop = (threading.Event() for _ in range(3))
        self.outlet = parts.RecordingOutlet()
        self.wait_subscribers = 0
        self.sources = [parts.ScriptedSource(self.endless(), live=True)]
        self.hung = False
        self.orders: list[threading.Thread] = []
        self.refusals: list[str] = []
        self.infer: Callable[[int], None] = lambda count: None
        self.open_engine: Callable[[], None] = lambda: None
        self.on_control: Callable[[LineControl], None] = lambda control: None

    def hang(self, *ignored: object) -> None:
        self.reached.set()
        self.hung = True
        self.release.wait(PATIENCE_S)

    def endless(self, at: int = 10**9, do: Callable[[], object] = lambda: None) -> Iterator[object]:
        for number in range(1, 100_000):
            if number == at:
                yield do
            yield lambda number=number: self.parts.shot(number)

    def run(self, **settings: object) -> tuple[LineSummary | None, float]:
        """The summary and how long the stop took."""
        asked: list[float] = []

        def watch() -> None:
            assert self.reached.wait(PATIENCE_S)
            asked.append(time.monotonic())
            self.stop.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            summary = run_line(
                [
                    CameraSettings(f"cam{index}", lambda source=source: source)
                    for index, source in enumerate(self.sources)
                ],
                [LinePlan(self._engine, self.parts.THRESHOLD)],
                self.outlet,
                LineSettings(wait_subscribers=self.wait_subscribers, **settings),
                self.stop,
                on_control=self.on_control,
                load_plan=self._load,
            )
            ended = time.monotonic()
        finally:
            self.release.set()
            for thread in (watcher, *self.orders):
                thread.join(PATIENCE_S)
                assert not thread.is_alive()
        return summary, ended - asked[0]

    def _engine(self) -> object:
        self.open_engine()
        counter = iter(range(10**9))
        return self.parts.ArithmeticEngine(self.manifest, lambda batch: self.infer(next(counter)))

    def _load(self, slot: str, path: str) -> LinePlan:
        return LinePlan(lambda: self.hang() or self._engine(), self.parts.THRESHOLD)  # type: ignore[func-returns-value]


class HangsOnOpening:
    live = True

    def __init__(self, plant: Plant) -> None:
        self.plant, self.closed = plant, False

    def open(self) -> None:
        self.plant.hang()

    def configure(self) -> None: ...

    def grab(self, timeout_s: float) -> Shot | None:
        raise AssertionError("it was never open")

    def close(self) -> None:
        self.closed = True


def engine_opening(plant: Plant) -> None:
    plant.open_engine = plant.hang


def camera_opening(plant: Plant) -> None:
    plant.sources = [HangsOnOpening(plant)]


def one_camera_of_two_opening(plant: Plant) -> None:
    plant.sources.append(HangsOnOpening(plant))


def waiting_for_subscribers(plant: Plant) -> None:
    plant.outlet.arrived, plant.wait_subscribers = 0, 1
    plant.on_control = lambda control: plant.reached.set()


def running(plant: Plant) -> None:
    plant.outlet.before_result = lambda result: result.camera_seq > 5 and plant.reached.set()


def running_with_a_full_queue(plant: Plant) -> None:
    running(plant)
    plant.infer = lambda count: time.sleep(0.05)


def idle(plant: Plant) -> None:
    plant.sources = [plant.parts.ScriptedSource([plant.parts.shot(1)], live=True, then="idle")]
    plant.outlet.before_result = lambda result: plant.reached.set()


def reopening(plant: Plant) -> None:
    lost = [CameraError("unplugged")] * 1000
    source = plant.parts.ScriptedSource(
        [plant.parts.shot(1), CameraError("unplugged")], live=True, open_errors=[None, *lost]
    )
    plant.sources = [source]
    plant.outlet.before_result = lambda result: plant.reached.set()


def engine_hanging(plant: Plant) -> None:
    plant.infer = lambda count: plant.hang() if count > 8 else None


def camera_hanging(plant: Plant) -> None:
    plant.sources = [plant.parts.ScriptedSource(plant.endless(5, plant.hang), live=True)]


def both_hanging(plant: Plant) -> None:
    hangs_too = threading.Event()

    def camera() -> None:
        hangs_too.set()
        plant.release.wait(PATIENCE_S)

    plant.sources = [plant.parts.ScriptedSource(plant.endless(5, camera), live=True)]

    def engine(count: int) -> None:
        if count >= 3:  # after the warm-ups
            assert hangs_too.wait(PATIENCE_S)
            plant.hang()

    plant.infer = engine


def loading_another_plan(plant: Plant) -> None:
    def begin(control: LineControl) -> None:
        def order() -> None:
            try:
                control.reload_plan("", "other.plan")
            except ControlRefused as refused:
                plant.refusals.append(refused.sentence)

        plant.orders.append(threading.Thread(target=order, daemon=True))
        plant.orders[0].start()

    plant.on_control = begin


STATES = [
    engine_opening,
    camera_opening,
    one_camera_of_two_opening,
    waiting_for_subscribers,
    running,
    running_with_a_full_queue,
    idle,
    reopening,
    engine_hanging,
    camera_hanging,
    both_hanging,
    loading_another_plan,
]


@pytest.mark.parametrize("arrange", STATES, ids=lambda arrange: arrange.__name__)
def test_a_stop_ends_the_line_in_time_from_any_state(
    parts: ModuleType, manifest: Manifest, arrange: Callable[[Plant], None]
) -> None:
    plant = Plant(parts, manifest)
    arrange(plant)
    summary, took_s = plant.run(depth=8)
    assert took_s < STOP_LIMIT_S + GRACE_S
    assert summary is not None
    assert summary.ended_by == "stop"
    assert plant.outlet.states[-1] == "BYE"
    assert len(plant.refusals) == len(plant.orders)
    balance = summary.balance
    assert (balance.balanced, balance.pending, balance.dropped) == (True, 0, {})
    results = plant.outlet.results
    assert len(results) == balance.admitted
    for camera in {result.camera for result in results}:
        own = [result.camera_seq for result in results if result.camera == camera]
        assert own == list(range(1, len(own) + 1))
    for result in results:
        assert (result.verdict is Verdict.OK) == (result.reasons == ())
        assert result.verdict is Verdict.OK or result.reasons == ("stopped",)
    for source in plant.sources:
        if isinstance(source, parts.ScriptedSource) and not plant.hung:
            assert not source.is_open


def test_a_camera_that_hangs_when_first_opened_ends_the_command(
    parts: ModuleType, manifest: Manifest
) -> None:
    plant = Plant(parts, manifest)
    with pytest.raises(CameraError, match=r"cam0: its driver has not returned for 0.3 s"):
        run_line(
            [CameraSettings("cam0", lambda: HangsOnOpening(plant), hang_limit_s=0.3)],
            [LinePlan(plant._engine, parts.THRESHOLD)],
            plant.outlet,
            LineSettings(),
            plant.stop,
        )
    plant.release.set()
    assert plant.outlet.states == ["STARTING", "DRAINING", "BYE"]
    assert plant.outlet.results == []


# ---- the real process ------------------------------------------------------------------------


@contextmanager
def systemd(folder: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """A socket as systemd has it, and the environment that names it."""
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind(str(path))
        inbox.settimeout(PATIENCE_S)
        yield inbox, {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "10000000"}


def told(inbox: socket.socket, until: str) -> list[str]:
    """What systemd is told, up to and with a message that begins with `until`."""
    messages: list[str] = []
    while not messages or not messages[-1].startswith(until):
        messages.append(inbox.recv(4096).decode())
    return messages


def ended(process: subprocess.Popen[str]) -> tuple[dict[str, object], float]:
    """SIGTERM, then the summary and how long the whole process took to end."""
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    out, _ = process.communicate(timeout=PATIENCE_S)
    took_s = time.monotonic() - asked
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1]), took_s


def test_systemd_hears_ready_watchdog_and_stopping(
    streams: ModuleType, tiny_plan: Path, tmp_path: Path
) -> None:
    with systemd(tmp_path) as (inbox, environment):
        camera = "test:rate=50,size=64,bank=2"
        options = ("--plan", tiny_plan, "--camera", camera)
        with streams.started(*options, environment=environment) as (process, _):
            before = told(inbox, "READY=1")
            assert "STATUS=STARTING" in before
            assert not any(one.startswith("STATUS=RUNNING") for one in before)
            while_running = told(inbox, "WATCHDOG=1") + told(inbox, "WATCHDOG=1")
            summary, took_s = ended(process)
            at_the_end = told(inbox, "STOPPING=1")
    assert took_s < STOP_LIMIT_S + GRACE_S
    assert (summary["ended_by"], summary["balanced"]) == ("stop", True)
    assert "STATUS=RUNNING" in while_running
    assert at_the_end[-1] == "STOPPING=1\nSTATUS=DRAINING"


def test_a_process_that_waits_for_subscribers_is_ready_and_ends_in_time(
    streams: ModuleType, tiny_plan: Path, tmp_path: Path
) -> None:
    options = ("--plan", tiny_plan, "--camera", "test:size=64", "--wait-subscribers", 1)
    with (
        systemd(tmp_path) as (inbox, environment),
        streams.started(*options, environment=environment) as (process, _),
    ):
        told(inbox, "READY=1")
        summary, took_s = ended(process)
    assert took_s < STOP_LIMIT_S + GRACE_S
    assert (summary["parts"], summary["ended_by"]) == (0, "stop")


def test_a_process_whose_camera_does_not_answer_ends_in_time(
    streams: ModuleType, tiny_plan: Path, tmp_path: Path
) -> None:
    """A server that accepts and says nothing keeps the driver in its open call."""
    with systemd(tmp_path) as (_, environment), socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/video"
        options = ("--plan", tiny_plan, "--camera", address)
        with streams.started(*options, environment=environment) as (process, _):
            server.settimeout(PATIENCE_S)
            connection, _ = server.accept()
            with connection:
                summary, took_s = ended(process)
    assert took_s < STOP_LIMIT_S + GRACE_S
    assert (summary["parts"], summary["ended_by"]) == (0, "stop")
