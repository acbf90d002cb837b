"""Training end to end on tiny images: the same weights twice, an honest folder, plain refusals."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skrd4ad.cli import main
from skrd4ad.errors import ConfigError, DataError, EngineError
from skrd4ad.trainer.checkpoint import load_run, write_metrics
from skrd4ad.trainer.config import TrainConfig, load_config
from skrd4ad.trainer.learner import MAX_RESTORES, Learner
from skrd4ad.trainer.network import Network
from skrd4ad.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

N_IMAGES = 12
SPEC = TrainConfig(data="", out="").network_spec()
LOSS = TrainConfig(data="", out="").loss_weights()


def write_parts(root: Path, count: int = N_IMAGES) -> Path:
    """Noise over a fixed shape: enough to learn something from in a few steps."""
    generator = np.random.default_rng(0)
    for folder in ("train/good", "test/good", "test/bad"):
        (root / "part" / folder).mkdir(parents=True)
        for index in range(count if folder == "train/good" else 2):
            pixels = generator.integers(90, 120, (72, 72, 3), dtype=np.uint8)
            pixels[20:50, 20:50] += 80
            Image.fromarray(pixels).save(root / "part" / folder / f"{index:03}.png")
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("data"))


def tiny(data: Path, out: Path, **changes: object) -> TrainConfig:
    values = {
        "data": str(data),
        "category": "part",
        "out": str(out),
        "backbone_weights": "random",
        "image_size": 64,
        "epochs": 2,
        "batch": 6,
        "tensorboard": False,
    }
    return load_config(None, values | changes)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "part"
    train(tiny(data, out))
    return out


def test_the_same_configuration_gives_the_same_weights(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    again = train(tiny(data, tmp_path / "again", feature_cache_gib=0.0, image_cache_gib=0.0))
    first = load_run(finished)
    # Bit for bit, and whether features and images are cached or not.
    assert again.origin.weights_sha256 == first.origin.weights_sha256
    assert again.origin.split_sha256 == first.origin.split_sha256


def test_a_run_folder_is_complete_and_says_where_everything_came_from(
    data: Path, finished: Path
) -> None:
    names = {path.name for path in finished.iterdir()}
    assert {"weights.safetensors", "run.yaml", "split.csv", "log.csv", "metrics.json"} <= names
    assert not {"state.safetensors"} & names
    run = load_run(finished)
    assert run.origin.n_fit == len(run.fit_paths()) == 6
    assert run.origin.n_calibration == len(run.calibration_paths()) == 6
    assert run.origin.preset == "poster"
    assert run.teacher.kind == "random"
    assert (run.input.height, run.input.width) == (64, 64)
    good = {path.resolve() for path in (data / "part" / "train" / "good").iterdir()}
    assert set(run.fit_paths()) | set(run.calibration_paths()) == good
    assert not set(run.fit_paths()) & set(run.calibration_paths())
    for row in run.split:
        assert row.sha256 == hashlib.sha256(row.path.read_bytes()).hexdigest()
    rows = list(csv.DictReader((finished / "log.csv").open()))
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    assert all(np.isfinite(float(row["loss"])) for row in rows)
    assert json.loads((finished / "metrics.json").read_text())["training"]["steps"] == 2


def test_a_loaded_run_inspects_in_eval_mode(finished: Path) -> None:
    network = load_run(finished).network
    assert not any(module.training for module in network.modules())
    with torch.no_grad():
        features = network(torch.randn(1, 3, 64, 64))
    assert all(torch.isfinite(level).all() for level in features.student)


def test_metrics_of_another_section_are_kept(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_bytes((finished / "metrics.json").read_bytes())
    write_metrics(tmp_path, "test", {"image_auroc": 0.5})
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["test"] == {"image_auroc": 0.5}
    assert "training" in document


def test_the_teacher_never_changes_and_has_no_gradient() -> None:
    torch.manual_seed(0)
    network = Network(SPEC)
    before = {name: value.clone() for name, value in network.teacher.state_dict().items()}
    learner = Learner(network, LOSS, clip_norm=1.0, ema_decay=0.999)
    x = torch.randn(4, 3, 64, 64)
    figures = learner.step(0, network.teach(x), x, rate=5e-3)
    assert figures is not None
    after = network.teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in network.teacher.parameters())
    assert learner.averaged.teacher is network.teacher


def test_a_state_put_back_continues_bit_for_bit() -> None:
    torch.manual_seed(0)
    network = Network(SPEC)
    learner = Learner(network, LOSS, clip_norm=1.0, ema_decay=0.999)
    x = torch.randn(4, 3, 64, 64)
    taught = network.teach(x)
    learner.step(0, taught, x, rate=5e-3)
    middle = learner.state()
    first = learner.step(1, taught, x, rate=5e-3)
    end = learner.state()
    learner.restore(middle)
    assert learner.step(1, taught, x, rate=5e-3) == first
    assert all(torch.equal(value, end[name]) for name, value in learner.state().items())


def test_a_non_finite_step_is_undone_and_the_rate_halved() -> None:
    torch.manual_seed(0)
    network = Network(SPEC)
    learner = Learner(network, LOSS, clip_norm=1.0, ema_decay=0.999)
    x = torch.randn(4, 3, 64, 64)
    taught = network.teach(x)
    learner.step(0, taught, x, rate=5e-3)
    learner.mark_good()
    good = learner.state()
    poisoned = (taught[0] * torch.nan, *taught[1:])
    assert learner.step(1, poisoned, x, rate=5e-3) is None
    assert (learner.restores, learner.rate_scale) == (1, 0.5)
    after = learner.state()
    assert all(
        torch.equal(value, after[name])
        for name, value in good.items()
        if name not in ("restores", "rate_scale")
    )
    learner.restores = MAX_RESTORES
    with pytest.raises(EngineError, match="diverged"):
        learner.step(1, poisoned, x, rate=5e-3)


def failing(data: Path, out: Path, words: str, **changes: object) -> None:
    with pytest.raises((ConfigError, DataError), match=words) as caught:
        train(tiny(data, out, **changes))
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.sentence
    assert not out.exists()
    assert not list(out.parent.glob("*.partial"))


def test_a_corrupt_training_image_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "data")
    broken = root / "part" / "train" / "good" / "003.png"
    broken.write_bytes(broken.read_bytes()[:200])
    failing(root, tmp_path / "run", "003.png cannot be read")


def test_too_small_and_missing_images_are_refused(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "data", count=1)
    failing(root, tmp_path / "run", "cannot be split")
    failing(root, tmp_path / "run", "absent", category="absent")
    Image.new("RGB", (1, 1)).save(root / "part" / "train" / "good" / "tiny.png")
    failing(root, tmp_path / "run", "1 x 1 pixels")


def test_bad_teacher_weights_leave_nothing_behind(data: Path, tmp_path: Path) -> None:
    failing(data, tmp_path / "run", "no weights file", backbone_weights=str(tmp_path / "x.pth"))


def test_an_existing_run_is_never_overwritten(data: Path, finished: Path) -> None:
    before = (finished / "weights.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        train(tiny(data, finished))
    assert (finished / "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochz": 3}, "unknown key 'epochz'; did you mean 'epochs'"),
        ({"epochs": "many"}, "epochs"),
        ({"batch": 2}, "batch is 2"),
        ({"image_size": 100}, "100 is not a positive multiple of 32"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"preset": "best"}, "preset"),
        ({"fusion": "none", "skip_gate": "cosine"}, "nothing to gate"),
        ({"score": "top-mean"}, "top_fraction"),
    ],
)
def test_a_wrong_configuration_is_one_sentence_naming_the_key(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"data": "d", "out": "o"} | changes))
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(path, {})
    assert "\n" not in caught.value.sentence


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(path, {"data": "d", "out": "o"})


def test_options_win_over_the_file_and_presets_fill_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("epochs: 7\nbatch: 8\npreset: official\nloss_skip: 0.5\n")
    config = load_config(path, {"data": "d", "out": "o", "epochs": 9, "batch": None})
    assert (config.epochs, config.batch) == (9, 8)
    assert config.network_spec().fusion == "official"
    assert config.loss_weights() == (0.0, 1.0, 0.5, "inter_group")


def test_the_command_says_one_sentence_and_exits_with_2(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", str(data), "--category", "part", "--out", str(tmp_path / "r")]
    assert main([*arguments, "--image-size", "sixty"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: image size 'sixty'")
    assert "Traceback" not in error


@pytest.mark.parametrize("victim", ["weights.safetensors", "split.csv", "run.yaml"])
def test_a_damaged_run_folder_is_refused_naming_the_file(
    finished: Path, tmp_path: Path, victim: str
) -> None:
    for source in finished.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    content = bytearray((tmp_path / victim).read_bytes())
    content[len(content) // 2] ^= 0x55
    (tmp_path / victim).write_bytes(content if victim != "run.yaml" else content[:100])
    with pytest.raises((ConfigError, DataError), match=victim):
        load_run(tmp_path)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run folder"):
        load_run(tmp_path)
