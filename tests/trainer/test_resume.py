"""A killed training run continues to the same weights as one that was left alone."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skrd4ad.errors import ConfigError
from skrd4ad.trainer.config import load_config
from skrd4ad.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

DEADLINE_S = 240.0


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration file for a run of three short epochs over noise."""
    root = tmp_path_factory.mktemp("resume")
    generator = np.random.default_rng(0)
    (root / "good").mkdir()
    for index in range(10):
        pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "good" / f"{index}.png")
    path = root / "config.yaml"
    values = {
        "data": str(root / "good"),
        "backbone_weights": "random",
        "image_size": 64,
        "epochs": 3,
        "batch": 4,
        "deterministic": True,
        "checkpoint_s": 0.0,
        "tensorboard": False,
    }
    path.write_text(json.dumps(values))
    return path


@pytest.fixture(scope="module")
def uninterrupted(options: Path) -> str:
    out = options.parent / "uninterrupted"
    return train(
        load_config(options, {"out": str(out), "checkpoint_s": 60.0})
    ).origin.weights_sha256


def start(options: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "skrd4ad", "train", "--config", str(options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--out", str(out), *more], env=environment, stderr=subprocess.DEVNULL
    )


@pytest.mark.timeout(400)
def test_a_run_killed_after_a_checkpoint_resumes_to_the_same_weights(
    options: Path, uninterrupted: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    state = tmp_path / "run.partial" / "state.safetensors"
    process = start(options, out)
    try:
        end = time.monotonic() + DEADLINE_S
        while not state.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    assert state.exists()
    with pytest.raises(ConfigError, match="other options or images"):
        train(load_config(options, {"out": str(out), "seed": 5}), resume=True)
    resumed = train(load_config(options, {"out": str(out)}), resume=True)
    assert resumed.origin.weights_sha256 == uninterrupted
    assert {path.name for path in out.iterdir()} >= {"weights.safetensors", "run.yaml"}
    assert not list(out.glob("*state*"))
    assert not list(out.glob(".*"))
    assert len((out / "log.csv").read_text().splitlines()) == 4
    assert not (tmp_path / "run.partial").exists()


def test_a_run_killed_before_its_first_checkpoint_starts_anew(
    options: Path, uninterrupted: str, tmp_path: Path
) -> None:
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / ".state.safetensors.abcd.tmp").write_bytes(b"half")
    changes = {"out": str(tmp_path / "run"), "checkpoint_s": 60.0}
    resumed = train(load_config(options, changes), resume=True)
    assert resumed.origin.weights_sha256 == uninterrupted


def test_there_must_be_something_to_resume(options: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no interrupted run"):
        train(load_config(options, {"out": str(tmp_path / "run")}), resume=True)


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_that_another_process_trains_into_is_left_alone(
    options: Path, tmp_path: Path, resume: bool
) -> None:
    work = tmp_path / "run.partial"
    work.mkdir()
    (work / "state.safetensors").write_bytes(b"of the other")
    lock = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is training"):
            train(load_config(options, {"out": str(tmp_path / "run")}), resume=resume)
    finally:
        os.close(lock)
    assert (work / "state.safetensors").read_bytes() == b"of the other"


def test_a_damaged_state_is_refused(options: Path, tmp_path: Path) -> None:
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / "state.safetensors").write_bytes(b"\x10" * 100)
    with pytest.raises(ConfigError, match=r"state\.safetensors cannot be resumed"):
        train(load_config(options, {"out": str(tmp_path / "run")}), resume=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_random_kills_never_change_the_result(
    options: Path, uninterrupted: str, tmp_path: Path
) -> None:
    generator = np.random.default_rng(1)
    kills = 0
    for trial in range(6):
        out, patience = tmp_path / f"run{trial}", 1.0
        process = start(options, out)
        # A kill may also fall between the last step and the end of the process.
        while not out.is_dir():
            try:
                process.wait(timeout=patience * float(generator.uniform(2.0, 9.0)))
                assert process.returncode == 0
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                patience *= 1.2  # a busy machine needs longer to get anywhere at all
                partial = (tmp_path / f"run{trial}.partial").is_dir()
                if not out.is_dir():
                    process = start(options, out, *(["--resume"] if partial else []))
        run_yaml = (out / "run.yaml").read_text()
        assert uninterrupted in run_yaml
    print(f"{kills} kills in 6 runs")
    assert kills > 0
