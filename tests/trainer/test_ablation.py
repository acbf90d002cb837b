"""The ablation command: rows become runs, runs become a table that compares seed by seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skrd4ad.cli import main
from skrd4ad.trainer.ablation import ROWS, differences_table
from skrd4ad.trainer.checkpoint import read_run_file
from skrd4ad.trainer.config import load_config


def cells(table: str, row: str) -> list[str]:
    line = next(line for line in table.splitlines() if line.startswith(f"| {row} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_differences_are_taken_within_seeds_that_both_have() -> None:
    figures = {
        "poster": {0: {"image AUROC": 0.90}, 1: {"image AUROC": 0.95}},
        "rd4ad": {0: {"image AUROC": 0.91}, 1: {"image AUROC": 0.98}, 7: {"image AUROC": 0.1}},
        "gated": {1: {"image AUROC": 0.94}},
        "official": {5: {"image AUROC": 1.0}},
    }
    table = differences_table(figures)
    # +1 and +3 points: the spread between the seeds themselves does not enter.
    assert cells(table, "rd4ad")[1:3] == ["2", "+2.00 ± 1.41"]
    assert cells(table, "gated")[1:3] == ["1", "-1.00"]
    assert "official" not in table
    assert "poster" not in table


@pytest.mark.parametrize("row", ROWS)
def test_every_row_is_a_configuration_of_its_own(row: str) -> None:
    config = load_config(None, {"data": "d", "out": "o", **ROWS[row]})
    others = [
        load_config(None, {"data": "d", "out": "o", **v}) for k, v in ROWS.items() if k != row
    ]
    mine = (config.network_spec(), config.loss_weights())
    assert all(mine != (other.network_spec(), other.loss_weights()) for other in others)


@pytest.fixture
def part(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for folder, count in (("train/good", 8), ("test/good", 3), ("test/spot", 3)):
        (tmp_path / "part" / folder).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            if folder.endswith("spot"):
                pixels[8:24, 8:24] = 255
            Image.fromarray(pixels).save(tmp_path / "part" / folder / f"{index}.png")
    return tmp_path / "part"


def test_rows_are_trained_judged_kept_and_compared(
    part: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path / "ablation"
    options = tmp_path / "options.yaml"
    options.write_text("batch: 4\ntensorboard: false\n")
    command = ["ablate", "--data", str(part), "--out", str(out), "--config", str(options)]
    command += ["--backbone-weights", "random", "--image-size", "32", "--epochs", "1"]
    command += ["--seeds", "0", "--table", str(tmp_path / "table.md")]
    try:
        assert main([*command, "--rows", "poster,no_bottleneck"]) == 0
        text = (tmp_path / "table.md").read_text(encoding="utf-8")
        assert capsys.readouterr().out.rstrip().endswith(text.strip())
        assert "bottleneck removal" in text
        assert cells(text, "no_bottleneck")[1] == "1"
        assert not read_run_file(out / "no_bottleneck" / "seed0").network.bottleneck
        times = [path.stat().st_mtime_ns for path in sorted(out.rglob("*.*"))]
        assert main([*command, "--rows", "poster"]) == 0  # nothing is trained or judged again
        assert (tmp_path / "table.md").read_text(encoding="utf-8") == text
        assert times == [path.stat().st_mtime_ns for path in sorted(out.rglob("*.*"))]
    finally:
        torch.set_num_threads(threads)


def test_an_unknown_row_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--data", "d", "--out", "o", "--rows", "poster,best"]) == 2
    assert "there is no row 'best'" in capsys.readouterr().err
