"""The gate on a real line: orders in over the socket, decisions out of the gate's file."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import yaml
from skrd4ad.cli import main
from skrd4ad.engine.plan import load_plan
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.gate.settings import (
    EncoderSettings,
    GateSettings,
    OutputSettings,
    check_gate,
)
from skrd4ad.pipeline.gate.tap import GateTap
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.records import Announced, Part
from skrd4ad.pipeline.station import Station, camera_settings
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.taps import TappedOutlet
from skrd4ad.pipeline.wire import HeartbeatMessage, ResultMessage
from skrd4ad.pipeline.wire_messages import HealthFields

PARTS = 40


def decisions_of(path: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if "cause" in line]


def test_every_part_that_was_ordered_is_decided_on_by_its_own_verdict(
    streams: ModuleType, tiny_plan: Path, tmp_path: Path
) -> None:
    record = tmp_path / "gate.jsonl"
    station = tmp_path / "station.yaml"
    station.write_text(
        f"""
plan: {tiny_plan}
cameras:
- name: top
  uri: "test:seed=4,size=64,bank=4,defect=0.5,trigger=true,lose=0.1"
  trigger: {{under_way: 64, limit_ms: 20000}}
gates:
- output: {{kind: file, path: {record}}}
  delay_ms: 1500
  tolerance_ms: 4000
publish: {{control: "tcp://127.0.0.1:0"}}
"""
    )
    verdicts: dict[int, str] = {}
    gates = None
    with streams.running("--station", station) as line:
        with (
            Subscriber(line.ready["events"]) as events,
            ControlClient(line.ready["control"]) as client,
        ):
            assert events.receive(streams.PATIENCE_S) is not None
            for number in range(PARTS):
                client.trigger(f"A-{number}", "top")
            for item in events.items():
                if isinstance(item, ResultMessage):
                    verdicts[item.header.cam_seq] = item.header.verdict
                elif isinstance(item, HeartbeatMessage):
                    gates = item.header.health.gates["top"]
                    if gates.passed + gates.rejected == PARTS:
                        break
            client.drain()
        line.summary()
    found = decisions_of(record)
    assert [one["cam_seq"] for one in found] == list(range(1, PARTS + 1))
    assert [one["part"] for one in found] == [f"A-{number}" for number in range(PARTS)]
    assert [one["trigger_seq"] for one in found] == list(range(1, PARTS + 1))
    # With 1.5 seconds to the gate every verdict was there; each decision is its own part's.
    assert [one["cause"] for one in found] == [verdicts[seq] for seq in range(1, PARTS + 1)]
    assert [one["reject"] for one in found] == [one["cause"] != "ok" for one in found]
    assert gates is not None
    assert (gates.missing, gates.late, gates.mismatched, gates.missed) == (0, 0, 0, 0)


class Recorder:
    """An output that keeps everything in memory."""

    def __init__(self) -> None:
        self.decisions: list[object] = []
        self.on: list[bool] = []

    def open(self) -> None: ...

    def switch(self, on: bool) -> None:
        self.on.append(on)

    def note(self, decision: object, now_ns: int) -> None:
        self.decisions.append(decision)

    def close(self) -> None:
        self.on.append(False)


@pytest.mark.parametrize("way", ["too slow", "in transit at the end", "far away"])
def test_a_gate_behind_a_line_that_ends(parts: ModuleType, tiny_plan: Path, way: str) -> None:
    manifest = msgspec.structs.replace(load_plan(tiny_plan).manifest, batch=1)
    recorder, outlet = Recorder(), parts.RecordingOutlet()
    # Too slow: each verdict comes long after its part has passed the gate.
    delay_ms = {"too slow": 10.0, "in transit at the end": 700.0, "far away": 60_000.0}[way]

    def before(batch: object) -> None:
        time.sleep(0.2 if way == "too slow" else 0.0)

    settings = GateSettings(
        output=OutputSettings(kind="log"), delay_ms=delay_ms, tolerance_ms=30_000.0
    )
    tapped = TappedOutlet(outlet, [GateTap(settings, "cam", gate=recorder)])
    shots = [parts.shot(number, 0 if number % 2 else 255) for number in range(1, 7)]
    script = [(lambda one=one: replace(one, captured_mono_ns=time.monotonic_ns())) for one in shots]
    source = parts.ScriptedSource(script)
    parts.LineThread(
        [CameraSettings("cam", lambda: source)],
        [LinePlan(lambda: parts.ArithmeticEngine(manifest, before), parts.THRESHOLD)],
        tapped,
        on_admitted=tapped.on_admitted,
        on_refused=tapped.on_refused,
    ).join()
    results = outlet.results
    assert [result.camera_seq for result in results] == [1, 2, 3, 4, 5, 6]
    assert recorder.on[-1] is False
    if way == "too slow":
        assert [one.cause for one in recorder.decisions] == ["missing"] * 6
        assert recorder.on.count(True) >= 1
    elif way == "in transit at the end":
        # All were judged before the first reached the gate, and the line waited for the last.
        assert [one.camera_seq for one in recorder.decisions] == [1, 2, 3, 4, 5, 6]
        wanted = [result.verdict.value for result in results]
        found = [one.cause for one in recorder.decisions]
        # A good part that was judged while the line was ending already does not pass.
        assert all(
            a == b or (a, b) == ("not_running", "ok") for a, b in zip(found, wanted, strict=True)
        )
    else:
        assert recorder.decisions == []


def test_a_gate_that_breaks_is_taken_off_with_the_next_heartbeat(parts: ModuleType) -> None:
    class Broken(Recorder):
        def note(self, decision: object, now_ns: int) -> None:
            raise RuntimeError("a fault of ours")

    broken, outlet = Broken(), parts.RecordingOutlet()
    settings = GateSettings(output=OutputSettings(kind="log"), delay_ms=0.0)
    tapped = TappedOutlet(outlet, [GateTap(settings, "cam", gate=broken)])
    tapped.open()
    tapped.on_admitted(Announced("cam", 1, Part("A-1"), 0, 0))
    deadline = time.monotonic() + 30
    health = HealthFields(ready=True, uptime_s=1.0)
    while ("tap_failed", "", True) not in outlet.alarms:
        assert time.monotonic() < deadline
        tapped.heartbeat_if_due(lambda: health)
    assert broken.on[-1] is False  # it was switched off


def test_an_output_that_never_returns_is_an_alarm(parts: ModuleType) -> None:
    hand, release = parts.HandClock(0), threading.Event()

    class Stuck(Recorder):
        def note(self, decision: object, now_ns: int) -> None:
            release.wait(60)

    settings = GateSettings(output=OutputSettings(kind="log"), delay_ms=0.0)
    tap, alarms = GateTap(settings, "cam", hand.clock, Stuck()), []
    tap.open(alarms.append)
    tap.on_admitted(Announced("cam", 1, Part("A-1"), 0, 0))
    deadline = time.monotonic() + 30
    while not alarms:  # the part is without a verdict: the gate's thread has come to it
        assert time.monotonic() < deadline
        time.sleep(0.001)
    hand.advance_s(3)
    tap.on_heartbeat(None)
    assert [(one.name, one.active) for one in alarms] == [
        ("gate_missing", True), ("gate_failed", True),
    ]  # fmt: skip
    release.set()
    while len(alarms) < 3:
        assert time.monotonic() < deadline
        tap.on_heartbeat(None)
        time.sleep(0.001)
    assert (alarms[2].name, alarms[2].active) == ("gate_failed", False)
    tap.on_state("DRAINING", "")
    hand.advance_s(60)
    tap.close()


@pytest.mark.parametrize(
    ("gates", "said"),
    [
        ("[{output: {kind: log}}]", "either delay_ms or delay_counts"),
        ("[{output: {kind: log}, delay_ms: 5, camera: nix}]", "no camera 'nix'"),
        ("[{output: {kind: log}, delay_m: 5}]", "'gates[0].delay_m' is not known"),
        ("[{output: {kind: log, pat: x}, delay_ms: 5}]", "'gates[0].output.pat' is not known"),
        ("[{output: {kind: lag}, delay_ms: 5}]", "gates[0].output.kind"),
        (
            "[{output: {kind: log}, delay_ms: 5}, {output: {kind: log}, delay_ms: 9}]",
            "two gates stand behind one camera",
        ),
    ],
)
def test_a_gate_that_cannot_work_is_refused_at_the_start(
    gates: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station = tmp_path / "station.yaml"
    station.write_text(f'cameras:\n- uri: "test:"\ngates: {gates}\n')
    assert main(["stream", "--station", str(station), "--check-config"]) == 2
    assert said in capsys.readouterr().err


def test_an_output_that_cannot_be_opened_ends_the_command_in_one_sentence(
    tiny_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station = tmp_path / "station.yaml"
    station.write_text(
        f"""
plan: {tiny_plan}
cameras: [{{uri: "test:count=1"}}]
gates: [{{output: {{kind: file, path: {tmp_path}/no/gate.jsonl}}, delay_ms: 5}}]
publish: {{events: "tcp://127.0.0.1:0", maps: "tcp://127.0.0.1:0"}}
"""
    )
    assert main(["stream", "--station", str(station)]) == 2
    assert "cannot be written" in capsys.readouterr().err


REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_page_names_every_key_and_its_examples_are_valid_stations() -> None:
    page = (REPOSITORY / "docs" / "gate.md").read_text(encoding="utf-8")
    for kind in (GateSettings, OutputSettings, EncoderSettings):
        for key in kind.__struct_fields__:
            assert f"`{key}`" in page or f"{key}:" in page, key
    line = (REPOSITORY / "docs" / "line.md").read_text(encoding="utf-8")
    tutorial = (REPOSITORY / "docs" / "tutorials" / "reject_gate.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", page + line + tutorial, re.DOTALL)
    assert len(examples) >= 3
    for text in examples:
        station = msgspec.convert(yaml.safe_load(text), Station)
        if station.cameras:
            camera_settings(station)
        for gate in station.gates:
            check_gate(gate, ("top",))
