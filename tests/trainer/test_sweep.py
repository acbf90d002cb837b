"""Several seeds in one command; nuisances, half precision and events in a real short run."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skrd4ad.cli import main
from skrd4ad.trainer.checkpoint import load_run
from skrd4ad.trainer.config import load_config
from skrd4ad.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sweep")
    generator = np.random.default_rng(0)
    (root / "part" / "train" / "good").mkdir(parents=True)
    for index in range(8):
        pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "part" / "train" / "good" / f"{index}.png")
    for folder in ("test/good", "test/spot", "ground_truth/spot"):
        (root / "part" / folder).mkdir(parents=True)
    for index in range(3):
        pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "part" / "test" / "good" / f"{index}.png")
        mask = np.zeros((64, 64), np.uint8)
        mask[16:48, 16:48] = 255
        pixels[mask > 0] = 255
        Image.fromarray(pixels).save(root / "part" / "test" / "spot" / f"{index}.png")
        Image.fromarray(mask).save(root / "part" / "ground_truth" / "spot" / f"{index}_mask.png")
    path = root / "config.yaml"
    values = {
        "data": str(root),
        "category": "part",
        "backbone_weights": "random",
        "image_size": 64,
        "epochs": 1,
        "batch": 4,
        "tensorboard": False,
    }
    path.write_text(json.dumps(values))
    return path


def test_a_sweep_trains_every_seed_tabulates_them_and_keeps_what_is_finished(
    options: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--config", str(options), "--out", str(tmp_path), "--seeds", "0,3"]
    assert main(command) == 0
    table = capsys.readouterr().out
    runs = [load_run(tmp_path / "part" / f"seed{seed}") for seed in (0, 3)]
    assert [run.origin.seed for run in runs] == [0, 3]
    assert runs[0].origin.weights_sha256 != runs[1].origin.weights_sha256
    for run in runs:
        assert run.origin.weights_sha256[:12] in table
    assert "mean of 2" in table
    times = [(run.folder / "weights.safetensors").stat().st_mtime_ns for run in runs]
    assert main(command) == 0
    assert capsys.readouterr().out == table
    assert times == [(run.folder / "weights.safetensors").stat().st_mtime_ns for run in runs]
    seeds_become_mean_and_deviation([run.folder for run in runs], options.parent, capsys)


def seeds_become_mean_and_deviation(
    folders: list[Path], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trained seeds go through `evaluate` together: figures, report and reproduce."""
    figures, report = data / "figures.json", data / "report.html"
    command = ["evaluate", "--run", *map(str, folders), "--data", str(data), "--category", "part"]
    assert main([*command, "--json", str(figures), "--report", str(report)]) == 0
    document = json.loads(figures.read_text())
    each = [one["pixel"]["auroc"] for one in document["runs"]]
    (group,) = document["aggregate"]
    assert group["seeds"] == [0, 3]
    assert group["figures"]["pixel AUROC"] == {
        "mean": pytest.approx(statistics.mean(each)),
        "sd": pytest.approx(statistics.stdev(each)),
        "n": 2,
    }
    page = report.read_text()
    assert "poster: mean ± sd, n = 2" in page
    assert f"{100 * statistics.mean(each):.2f} ± {100 * statistics.stdev(each):.2f}" in page
    assert ">Convergence</text>" in page  # of the first run, whose log lies beside it
    capsys.readouterr()
    assert main(["reproduce", "--runs", str(folders[0].parent)]) == 0
    assert "| part " in capsys.readouterr().out


@pytest.mark.parametrize("seeds", ["one", "1,1", "-2", ""])
def test_wrong_seeds_are_refused(options: Path, tmp_path: Path, seeds: str) -> None:
    command = ["train", "--config", str(options), "--out", str(tmp_path), f"--seeds={seeds}"]
    assert main(command) == 2
    assert not list(tmp_path.iterdir())


def test_nuisances_half_precision_and_events_together(options: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = {
        "nuisance": {"light": 0.1, "blur_px": 1.0, "shift_px": 2.0},
        "precision": "bf16",
        "tensorboard": True,
    }
    runs = [
        train(load_config(options, changes | {"out": str(tmp_path / name)})) for name in ("a", "b")
    ]
    assert runs[0].origin.weights_sha256 == runs[1].origin.weights_sha256
    state = runs[0].network.state_dict()
    assert all(v.dtype == torch.float32 for v in state.values() if v.is_floating_point())
    document = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert document["training"]["feature_cache"] is False
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    logged = (tmp_path / "a" / "log.csv").read_text().splitlines()
    loss = float(logged[1].split(",")[logged[0].split(",").index("loss")])
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx([loss])
