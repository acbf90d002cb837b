"""Cross-fitting end to end: folds are trained, one is compiled, all scores make the threshold."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skrd4ad.calibration.folds import read_folds
from skrd4ad.calibration.threshold import conformal_rank
from skrd4ad.cli import main
from skrd4ad.engine.plan import load_plan
from skrd4ad.errors import CalibrationError, DataError
from skrd4ad.trainer.samples import Sample
from skrd4ad.trainer.split import fold_normals

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES, FOLDS = 20, 2


@given(
    st.lists(st.sampled_from(["", "a", "b", "c", "d", "e"]), min_size=12, max_size=40),
    st.integers(0, 5),
)
def test_every_part_is_held_out_in_exactly_one_fold_and_groups_stay_whole(names, seed):
    samples = [
        Sample(Path(f"{index}.png"), "train", group=name or None)
        for index, name in enumerate(names)
    ]
    groups = {name or f"#{index}" for index, name in enumerate(names)}
    folds = 3
    if len(groups) < folds:
        with pytest.raises(DataError, match="cannot be split into 3 folds"):
            fold_normals(samples, seed, 1, folds)
        return
    held: Counter[Path] = Counter()
    for fold in range(1, folds + 1):
        fit, held_out = fold_normals(samples, seed, fold, folds)
        assert len(fit) + len(held_out) == len(samples)
        assert not {s.group for s in fit if s.group} & {s.group for s in held_out if s.group}
        held.update(sample.path for sample in held_out)
    assert held == Counter(sample.path for sample in samples)


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds of a small network, and the plan of the second (`part.plan` beside them)."""
    root = tmp_path_factory.mktemp("crossfit")
    generator = np.random.default_rng(0)
    good = root / "data" / "part" / "train" / "good"
    good.mkdir(parents=True)
    for index in range(IMAGES):
        pixels = np.full((64, 64, 3), 90, np.uint8)
        y, x = generator.integers(4, 36, 2)
        pixels[y : y + 24, x : x + 24] = generator.integers(100, 255, (24, 24, 3))
        Image.fromarray(pixels).save(good / f"{index}.png")
    command = ["train", "--data", str(root / "data"), "--category", "part"]
    command += ["--backbone-weights", "random", "--image-size", "64", "--epochs", "1"]
    command += ["--batch", "4", "--out", str(root / "out"), "--folds", str(FOLDS)]
    assert main(command) == 0
    plan = root / "part.plan"
    assert main(["compile", "--run", str(root / "out" / "fold2"), "--out", str(plan)]) == 0
    return root / "out"


def test_the_threshold_comes_from_all_parts_each_scored_by_another_network(
    folds: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = folds.parent / "part.plan"
    command = ["calibrate", "threshold", "--plan", str(plan), "--folds", str(folds)]
    assert main([*command, "--false-reject-rate", "0.1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    stored = load_plan(plan).manifest.threshold
    assert stored is not None
    assert (stored.method, stored.n_normals) == ("cross-conformal", IMAGES)
    assert facts["source"] == f"{IMAGES} good parts of {FOLDS} folds in out"
    pooled = []
    for fold in (1, 2):
        with (folds / f"fold{fold}" / "held_out_scores.csv").open(newline="") as file:
            pooled += [float(row["score"]) for row in csv.DictReader(file)]
    expected = sorted(pooled)[conformal_rank(IMAGES, 0.1) - 1]
    assert stored.value == pytest.approx(expected, abs=1e-4)
    assert main([*command, "--images", str(folds)]) == 2
    assert "--folds brings its own images" in capsys.readouterr().err


def test_folds_that_do_not_belong_together_are_refused(folds: Path, tmp_path: Path) -> None:
    assert sum(len(fold.scores) for fold in read_folds(folds).folds) == IMAGES
    with pytest.raises(DataError, match="holds 0 finished folds"):
        read_folds(tmp_path)
    for fold in ("fold1", "fold2"):
        (tmp_path / fold).mkdir()
        for name in ("split.csv", "held_out_scores.csv"):
            (tmp_path / fold / name).write_bytes((folds / "fold1" / name).read_bytes())
    with pytest.raises(CalibrationError, match="held out twice"):
        read_folds(tmp_path)
    for name in ("split.csv", "held_out_scores.csv"):
        (tmp_path / "fold2" / name).write_bytes((folds / "fold2" / name).read_bytes())
    scores = (tmp_path / "fold2" / "held_out_scores.csv").read_text().splitlines()
    (tmp_path / "fold2" / "held_out_scores.csv").write_text("\n".join(scores[:-1]) + "\n")
    with pytest.raises(CalibrationError, match="name different images"):
        read_folds(tmp_path)
    # The image of one score was replaced since.
    path, sha256, score = scores[-1].split(",")
    other = f"{path},{'0' * len(sha256)},{score}"
    (tmp_path / "fold2" / "held_out_scores.csv").write_text("\n".join([*scores[:-1], other]) + "\n")
    with pytest.raises(CalibrationError, match="name different images"):
        read_folds(tmp_path)
    (tmp_path / "fold2" / "held_out_scores.csv").write_text("\n".join([*scores[:-1], path]) + "\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_folds(tmp_path)
    (tmp_path / "fold2" / "held_out_scores.csv").write_text("path,score\n")
    with pytest.raises(DataError, match="does not begin with path,sha256,score"):
        read_folds(tmp_path)


def test_a_plan_of_another_training_is_refused(
    folds: Path, tiny_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["calibrate", "threshold", "--plan", str(tiny_plan), "--folds", str(folds)]
    before = tiny_plan.read_bytes()
    assert main(command) == 5
    assert "was not compiled from one of the folds" in capsys.readouterr().err
    assert tiny_plan.read_bytes() == before
    assert main(["train", "--data", "x", "--out", "y", "--folds", "1"]) == 2
    assert "takes at least 2" in capsys.readouterr().err
