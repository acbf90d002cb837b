"""Images of one lot never land on both sides of the split, however the lots are named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skrd4ad.cli import main
from skrd4ad.errors import ConfigError, DataError
from skrd4ad.trainer.config import load_config
from skrd4ad.trainer.groups import with_groups
from skrd4ad.trainer.samples import Sample
from skrd4ad.trainer.split import split_normals
from skrd4ad.trainer.train import train

PATTERN = r"^(lot\d+)_"


def sample(path: Path | str) -> Sample:
    return Sample(Path(path), "train")


@given(
    lots=st.lists(st.integers(1, 30), min_size=2, max_size=12),
    seed=st.integers(0, 1000),
    share=st.floats(0.05, 0.6),
)
def test_no_lot_is_split_and_something_is_left_to_learn_from(
    lots: list[int], seed: int, share: float
) -> None:
    names = [f"lot{lot}_{i}.png" for lot, count in enumerate(lots) for i in range(count)]
    grouped = with_groups([sample(name) for name in names], PATTERN, None)
    fit, held_out = split_normals(grouped, seed, share)
    assert {s.group for s in fit}.isdisjoint(s.group for s in held_out)
    assert sorted([*fit, *held_out], key=lambda s: s.path) == sorted(grouped, key=lambda s: s.path)
    assert fit
    assert held_out


def test_nothing_given_changes_nothing() -> None:
    samples = (sample("a.png"),)
    assert with_groups(samples, None, None) == samples


def test_a_table_names_groups_by_paths_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    table = tmp_path / "lots.csv"
    table.write_text("group,image\nmonday,good/1.png\ntuesday,good/2.png\n")
    samples = [sample(tmp_path / "good" / name) for name in ("2.png", "1.png")]
    assert [s.group for s in with_groups(samples, None, str(table))] == ["tuesday", "monday"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,lot\n1.png,a\n", "no column group"),
        ("image,group\n1.png,\n", "line 2 has an empty cell"),
        ("image,group\n1.png,a\n1.png,b\n", "line 3 puts 1.png into a second group"),
        ("image,group\n1.png,a\n", "no group for 1 of 2 images, the first is .*2.png"),
    ],
)
def test_a_table_that_cannot_be_used_says_where(tmp_path: Path, text: str, words: str) -> None:
    table = tmp_path / "lots.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=words):
        with_groups([sample(tmp_path / f"{i}.png") for i in (1, 2)], None, str(table))
    with pytest.raises(DataError, match="cannot be read"):
        with_groups([sample(tmp_path / "1.png")], None, str(tmp_path / "absent.csv"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"group_pattern": "("}, "no regular expression"),
        ({"group_pattern": "lot"}, "0 groups in parentheses"),
        ({"group_pattern": "(a)", "group_table": "t.csv"}, "both given"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(
    values: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, {"data": "d", "out": "o", **values})


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., Path]:
    generator = np.random.default_rng(0)
    (tmp_path / "good").mkdir()
    for index in range(12):
        pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "good" / f"lot{index // 3}_{index}.png")

    def write(**more: object) -> Path:
        path = tmp_path / "config.yaml"
        values = {
            "data": str(tmp_path / "good"),
            "out": str(tmp_path / "run"),
            "backbone_weights": "random",
            "image_size": 32,
            "epochs": 1,
            "batch": 4,
            "tensorboard": False,
        }
        path.write_text(json.dumps(values | more))
        return path

    return write


def test_a_run_keeps_lots_together_in_its_split_file(
    options: Callable[..., Path], tmp_path: Path
) -> None:
    run = train(load_config(options(group_pattern=PATTERN, calibration_share=0.3), {}))
    with (run.folder / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    lots = {
        role: {Path(row["path"]).name.split("_")[0] for row in rows if row["role"] == role}
        for role in ("fit", "calibration")
    }
    assert len(rows) == 12
    assert lots["fit"].isdisjoint(lots["calibration"])
    assert lots["calibration"]


def test_an_image_without_a_lot_stops_the_training_before_it_writes(
    options: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--config", str(options()), "--group-pattern", r"^(lot[0-2])_"]
    assert main(command) == 2
    assert "no group for 3 of 12 images" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run.partial").exists()
