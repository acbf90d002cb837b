"""The station file: strict, explained, and never quietly something else."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml
from skrd4ad import cli
from skrd4ad.errors import ConfigError
from skrd4ad.pipeline.station import Station, load_station
from skrd4ad.pipeline.stopping import notify_systemd

REPOSITORY = Path(__file__).resolve().parents[2]


def station_file(folder: Path, text: str) -> Path:
    path = folder / "station.yaml"
    path.write_text(text)
    return path


def test_the_shipped_station_is_valid() -> None:
    station = load_station(REPOSITORY / "configs" / "station.yaml")
    assert station.cameras[0].name == "top"
    assert station.deadline_ms == 200


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("deadlin_ms: 5", "the key 'deadlin_ms' is not known", "did you mean 'deadline_ms'?"),
        (
            "cameras:\n- uri: '0'\n  frozen_aftr: 2",
            "the key 'cameras[0].frozen_aftr' is not known",
            "did you mean 'frozen_after'?",
        ),
        ("publish:\n  event: x", "the key 'publish.event' is not known", "'events'"),
        (
            "publish:\n  journal:\n    path: a\n    max_day: 3",
            "the key 'publish.journal.max_day' is not known",
            "'max_days'",
        ),
        (
            "cameras:\n- uri: '0'\n  regions: {image_width: 4, image_height: 4, regions: "
            "[{name: a, polygon: [[0, 0], [3, 0], [3, 3]], treshold: 1}]}",
            "the key 'cameras[0].regions.regions[0].treshold' is not known",
            "did you mean 'threshold'?",
        ),
        (
            "cameras:\n- uri: '0'\n  roi: {x: 1, y: 1, widht: 4, height: 4}",
            "the key 'cameras[0].roi.widht' is not known",
            "did you mean 'width'?",
        ),
        ("batch_wait: 3", "the key 'batch_wait' is not known", "did you mean 'batch_wait_ms'?"),
        ("batch_wait_ms: 2000", "batch_wait_ms: expected", ""),
        ("plans: [a.plan]", "plans: expected `object`", ""),
        ("zzz: 1", "the key 'zzz' is not known", "known here: version, box"),
        ("deadline_ms: soon", "deadline_ms: expected", ""),
        ("deadline_ms: -1", "deadline_ms: expected", ""),
        ("mode: sometimes", "mode: invalid enum value", ""),
        ("version: 2", "version: invalid enum value", ""),
        ("cameras: {", "line 1 is not YAML", ""),
        ("- 3", "the file: expected `object`", ""),
        ("[]", "the file: expected `object`", ""),
    ],
)
def test_a_wrong_file_names_file_key_and_nearest_key(
    tmp_path: Path, text: str, says: str, hint: str
) -> None:
    path = station_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_station(path)
    assert str(path) in caught.value.sentence
    assert says in caught.value.sentence
    assert hint in caught.value.hint


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_station(tmp_path / "none.yaml")


def test_check_config_prints_what_would_run_without_passwords(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = station_file(
        tmp_path, "box: b7\nmode: every\ncameras:\n- uri: rtsp://me:secret@host/1\n  name: top\n"
    )
    arguments = ["stream", "--station", str(path), "--mode", "latest", "--check-config"]
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    resolved = yaml.safe_load(output)
    assert (resolved["box"], resolved["mode"]) == ("b7", "latest"), "the command line wins"
    assert resolved["cameras"][0]["uri"] == "rtsp://***@host/1"
    assert "secret" not in output
    assert resolved["publish"]["events"] == Station().publish.events


def test_a_station_runs_and_requires_its_backend(
    tiny_plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        f"plan: {tiny_plan}\nbox: b7\nrequire: onnxruntime\n"
        "cameras:\n- uri: test:count=5,size=64,bank=1\n  name: top\n"
        "publish: {events: 'tcp://127.0.0.1:0', maps: 'tcp://127.0.0.1:0'}\n"
    )
    assert cli.main(["stream", "--station", str(station_file(tmp_path, text))]) == 0
    assert "5 parts" in capsys.readouterr().out
    wrong = text.replace("require: onnxruntime", "require: tensorrt")
    assert cli.main(["stream", "--station", str(station_file(tmp_path, wrong))]) == 4
    assert "requires tensorrt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no camera is named"),
        (["--camera", "0"], "no plan is named"),
        (["--camera", "a=0", "--camera", "a=1"], "two cameras are called 'a'"),
    ],
)
def test_what_is_missing_is_said(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["stream", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_systemd_is_told_over_its_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify_systemd("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify_systemd("READY=1")
        assert systemd.recv(100) == b"READY=1"
    assert not notify_systemd("STOPPING=1"), "nobody listens any more"
