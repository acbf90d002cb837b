"""`skrd4ad data` finds what would stop or spoil a training run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skrd4ad.cli import main
from skrd4ad.trainer.data_report import look_at
from skrd4ad.trainer.datasets import find_dataset


def noise(path: Path, seed: int, size: tuple[int, int] = (24, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (24, 24), marked: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros(size, np.uint8)
    values[2:5, 2:5] = 255 * marked
    Image.fromarray(values).save(path)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    root = tmp_path / "part"
    for index in range(4):
        noise(root / f"train/good/{index}.png", index)
    noise(root / "test/good/0.png", 10)
    for index in range(3):
        noise(root / f"test/dent/{index}.png", 20 + index)
        mask(root / f"ground_truth/dent/{index}.png")
    return root


def test_a_sound_data_set_has_nothing_refused(
    part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "--data", str(part), "--json", str(tmp_path / "report.json")]) == 0
    text = capsys.readouterr().out
    assert "part: mvtec layout" in text
    assert "0 refused, 0 notes" in text
    document = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert document["counts"] == {"train/good": 4, "test/dent": 3, "test/good": 1}
    assert document["kinds"] == {"PNG colour": 8}


def test_what_would_stop_a_run_is_refused_with_its_reason(
    part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (part / "train/good/0.png").read_bytes()
    (part / "train/good/0.png").write_bytes(whole[: len(whole) // 2])
    noise(part / "train/good/1.png", 1, size=(8, 8))
    mask(part / "ground_truth/dent/0.png", size=(12, 24))
    (part / "ground_truth/dent/1.png").write_bytes(b"not a picture")
    assert main(["data", "--data", str(part)]) == 2
    captured = capsys.readouterr()
    refused = [line for line in captured.out.splitlines() if line.startswith("refused")]
    assert len(refused) == 4
    assert any("0.png cannot be read" in line for line in refused)
    assert any("8 x 8" in line for line in refused)
    assert any("24 x 12 but its image 0.png is 24 x 24" in line for line in refused)
    assert "4 files of part cannot be used" in captured.err


def test_leaks_and_doubtful_masks_are_notes(part: Path) -> None:
    shutil.copy(part / "train/good/2.png", part / "test/good/copy.png")
    mask(part / "ground_truth/dent/0.png", marked=False)
    noise(part / "train/good/9.png", 9, size=(30, 40))
    report = look_at(find_dataset(part))
    assert report.refused == ()
    text = "\n".join(report.notes)
    assert "the test set leaks into training" in text
    assert "marks nothing, though its folder says 'dent'" in text
    assert "2 different sizes" in text
