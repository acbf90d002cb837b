"""Orders over the control socket to a real `skrd4ad stream` with a triggered camera."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from skrd4ad.cli import main
from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.pairing import TriggerSettings
from skrd4ad.pipeline.station import Station, StationCamera, camera_settings
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import HeartbeatMessage, ResultMessage, StateMessage

PARTS = 60


def test_each_order_over_the_socket_has_its_event(
    streams: ModuleType, tiny_plan: Path, tmp_path: Path
) -> None:
    station = tmp_path / "station.yaml"
    station.write_text(
        f"""
plan: {tiny_plan}
cameras:
- name: top
  uri: "test:seed=4,size=64,bank=4,trigger=true,lose=0.2,delay_ms=3"
  trigger: {{under_way: 64, limit_ms: 20000}}
publish: {{control: "tcp://127.0.0.1:0"}}
"""
    )
    results, beats = [], []
    with streams.running("--station", station) as line:
        with (
            Subscriber(line.ready["events"]) as events,
            ControlClient(line.ready["control"]) as client,
        ):
            assert events.receive(streams.PATIENCE_S) is not None
            given = [client.trigger(f"A-{number}", "top") for number in range(PARTS)]
            client.resync("top")
            client.drain()
            for item in events.items():
                if isinstance(item, ResultMessage):
                    results.append(item)
                elif isinstance(item, HeartbeatMessage):
                    beats.append(item.header)
                elif isinstance(item, StateMessage) and item.header.state == "BYE":
                    break
        summary = line.summary()
    assert given == list(range(1, PARTS + 1))
    assert [one.header.part.trigger_seq for one in results] == given
    assert [one.record.trigger_seq for one in results] == given
    assert [one.header.part.id for one in results] == [f"A-{number}" for number in range(PARTS)]
    reasons = {
        reason for one in results if not one.header.evaluated for reason in one.header.reason
    }
    assert "no_frame" in reasons  # lose=0.2 of sixty
    assert reasons <= {"no_frame", "trigger_mismatch", "stopped"}
    assert all(one.header.part.match == "exact" for one in results if one.header.evaluated)
    assert all(beat.health.balance.holds for beat in beats)
    assert (summary["parts"], summary["balanced"]) == (PARTS, True)


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        ("{match: time}", "needs window_ms"),
        ("{match: fifo}", "needs window_ms"),
        ("{fire: external}", "needs window_ms"),
        ("{fire: external, match: none, window_ms: 5}", "pairs nothing"),
        ("{window_ms: 50, limit_ms: 20}", "longer than limit_ms"),
        ("{mach: time}", "the key 'cameras[0].trigger.mach' is not known"),
        ("{under_way: 0}", ">= 1"),
    ],
)
def test_a_trigger_that_cannot_work_is_refused_at_the_start(
    trigger: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station = tmp_path / "station.yaml"
    station.write_text(f'cameras:\n- uri: "test:trigger=true"\n  trigger: {trigger}\n')
    assert main(["stream", "--station", str(station), "--check-config"]) == 2
    assert said in capsys.readouterr().err


def test_a_camera_that_takes_no_orders_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station = tmp_path / "station.yaml"
    station.write_text('cameras:\n- uri: "aravis:GV01?trigger=Line0"\n  trigger: {}\n')
    assert main(["stream", "--station", str(station), "--check-config"]) == 2
    assert "takes no trigger from the line" in capsys.readouterr().err


def test_an_address_that_waits_for_orders_needs_no_more_words() -> None:
    for uri in ("aravis:GV01?trigger=software", "test:trigger=true"):
        (camera,) = camera_settings(Station(cameras=(StationCamera(uri=uri),)))
        assert camera.trigger == TriggerSettings()
    (camera,) = camera_settings(Station(cameras=(StationCamera(uri="aravis:GV01?trigger=Line0"),)))
    assert camera.trigger is None


def test_latest_and_triggers_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    station = tmp_path / "station.yaml"
    station.write_text('cameras:\n- uri: "test:trigger=true"\n  trigger: {}\n')
    assert main(["stream", "--station", str(station), "--mode", "latest", "--check-config"]) == 2
    assert "each gets a result" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("test:lose=0.1", "test camera with triggers"),
        ("test:trigger=true,rate=5", "no rate of its own"),
    ],
)
def test_a_test_camera_explains_what_does_not_go_together(
    uri: str, said: str, tiny_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stream", "--camera", uri, "--plan", str(tiny_plan)]) == 2
    assert said in capsys.readouterr().err
