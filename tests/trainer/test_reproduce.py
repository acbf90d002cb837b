"""Aggregates average only what belongs together; the tables mark what was not measured."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from skrd4ad.cli import main
from skrd4ad.engine.spec import RANDOM_LAYER4
from skrd4ad.trainer.aggregate import aggregate, aggregate_text, recipe_of, spread_text
from skrd4ad.trainer.poster_tables import NOT_MEASURED, TABLES, read_table, same_category


def result(seed: int, value: float, dataset: str = "transistor", **network: Any) -> dict[str, Any]:
    """An evaluation as metrics.json holds it."""
    rate = {"count": 1, "total": 60, "rate": 1 / 60, "low": 0.0, "high": 0.1}
    return {
        "schema": "skrd4ad-metrics/1",
        "dataset": dataset,
        "network": {"backbone": "resnet18", "fusion": "poster", **network},
        "teacher": {"kind": "file", "detail": "f", "sha256": "ab"},
        "origin": {"seed": seed, "epochs": 8, "n_fit": 170, "preset": "poster"},
        "map_size": [256, 256],
        "n_good": 60,
        "n_defective": 40,
        "mask_rule": "half",
        "image": {"auroc": value, "ap": value},
        "pixel": {"auroc": value, "aupro_30": value, "aupro_05": value, "aupro_rd4ad": value},
        "deployed": {"false_reject": rate, "escape": rate},
    }


def write_runs(folder: Path, results: list[dict[str, Any]]) -> Path:
    for index, evaluation in enumerate(results):
        path = folder / f"run{index}" / "metrics.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"training": {}, "evaluation": evaluation}), encoding="utf-8")
    return folder


def rows(markdown: str, first: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith(f"| {first} ")]


def test_seeds_become_mean_and_sample_deviation() -> None:
    values = [0.91, 0.95, 0.93]
    groups, notes = aggregate(result(seed, value) for seed, value in enumerate(values))
    assert (len(groups), notes) == (1, [])
    spread = groups[0].figures["image AUROC"]
    assert spread.mean == pytest.approx(statistics.fmean(values))
    assert spread.sd == pytest.approx(statistics.stdev(values))
    assert groups[0].seeds == (0, 1, 2)
    assert spread_text(spread) == "93.00 ± 2.00"
    assert "3 seeds [0, 1, 2]" in aggregate_text(groups)


def test_one_seed_has_no_deviation() -> None:
    groups, _ = aggregate([result(0, 0.9)])
    assert math.isnan(groups[0].figures["image AUROC"].sd)
    assert spread_text(groups[0].figures["image AUROC"]) == "90.00"


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "cable"},
        {"n_good": 59},
        {"mask_rule": "any"},
        {"map_size": [128, 128]},
        {"teacher": {"kind": "file", "detail": "f", "sha256": "other"}},
        {"origin": {"seed": 1, "epochs": 9, "n_fit": 170}},
    ],
)
def test_unlike_results_are_never_averaged(change: dict[str, Any]) -> None:
    groups, _ = aggregate([result(0, 0.9), {**result(1, 0.8), **change}])
    assert len(groups) == 2


def test_a_repeated_seed_is_noted_and_counts_once() -> None:
    groups, notes = aggregate([result(0, 0.9), result(0, 0.8)])
    assert groups[0].figures["image AUROC"].n == 1
    assert groups[0].figures["image AUROC"].mean == 0.8
    assert any("seed 0 is there twice" in note for note in notes)


def test_figures_that_one_seed_lacks_are_left_out() -> None:
    groups, _ = aggregate([result(0, 0.9), {**result(1, 0.8), "pixel": None}])
    assert "image AUROC" in groups[0].figures
    assert "pixel AUROC" not in groups[0].figures


@pytest.mark.parametrize(
    ("network", "preset", "recipe"),
    [
        ({}, "poster", "poster"),
        ({"fusion": "official"}, "official", "official"),
        ({"fusion": "none"}, "rd4ad", "rd4ad"),
        ({"fusion": "none"}, "poster", "no skip"),
        ({"fusion": "corresponding"}, "poster", "corresponding skip"),
        ({"bottleneck": False}, "poster", "bottleneck removal"),
        ({"additional_skip": True}, "poster", "additional skip"),
        ({"skip_gate": "cosine"}, "poster", "poster gated"),
    ],
)
def test_each_result_finds_its_ablation_row(
    network: dict[str, Any], preset: str, recipe: str
) -> None:
    document = result(0, 0.9, **network)
    document["origin"]["preset"] = preset
    assert recipe_of(document) == recipe


def test_folder_names_match_printed_categories() -> None:
    assert same_category("mvtec", "Metal Nut", "metal_nut")
    assert same_category("mvtec", "Transistor", "mvtec_transistor")
    assert same_category("visa", "Capsule", "capsules")
    assert not same_category("mvtec", "Capsule", "capsules")
    assert same_category("visa", "Chewing gum", "chewinggum")


def test_unmeasured_cells_say_so_and_measured_ones_stand_beside_the_poster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_runs(tmp_path / "runs", [result(seed, 0.9 + seed / 100) for seed in range(3)])
    out = tmp_path / "tables.md"
    assert main(["reproduce", "--runs", str(tmp_path / "runs"), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == text.strip()
    transistor = rows(text, "Transistor")[0]
    assert "93.2 / 80.1" in transistor
    assert "91.00 ± 1.00 / 91.00 ± 1.00 (resnet18, 3 seeds)" in transistor
    assert transistor.count(NOT_MEASURED) == 1  # rd4ad was not run
    assert rows(text, "Cable")[0].count(NOT_MEASURED) == 2
    assert "not measured (1 of 15 categories)" in rows(text, "All Total Average")[0]
    assert "91.00" in rows(text, "SK-RD4AD (Ours)")[0]
    for name in ("No Skip Connections", "Bottleneck Removal", "inference_time"):
        assert NOT_MEASURED in rows(text, name)[0]


def test_our_own_rows_follow_the_poster_s_and_a_random_layer4_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    borrowed = result(0, 0.8, additional_skip=True)
    borrowed["teacher"] |= {"detail": f"f.pth{RANDOM_LAYER4} (seed 0)"}
    again = result(1, 0.7, additional_skip=True)
    again["teacher"] |= {"detail": f"f.pth{RANDOM_LAYER4} (seed 1)"}
    results = [borrowed, again, result(0, 0.6, skip_gate="cosine")]
    assert main(["reproduce", "--runs", str(write_runs(tmp_path, results))]) == 0
    text = capsys.readouterr().out
    assert (
        "75.00 ± 7.07 / 75.00 ± 7.07 (resnet18, random layer4, 2 seeds)"
        in (rows(text, "Additional Skip")[0])
    )
    gated = rows(text, "poster gated (not in the poster)")[0]
    assert "60.00 / 60.00 (resnet18, 1 seed)" in gated
    assert rows(text, "SK-RD4AD (Ours)")[0].count(NOT_MEASURED) == 1


def test_a_run_with_a_loss_of_its_own_does_not_pass_for_its_preset() -> None:
    ours = result(0, 0.9)
    ours["origin"] |= {"loss": "0.01 recon + 1 cosine + 0.05 relative skip"}
    assert recipe_of(ours) == "poster"
    ours["origin"] |= {"loss": "1 cosine"}
    assert recipe_of(ours) == "poster, loss 1 cosine"


def test_every_printed_row_of_the_poster_is_there(tmp_path: Path) -> None:
    out = tmp_path / "tables.md"
    (tmp_path / "none").mkdir()
    assert main(["reproduce", "--runs", str(tmp_path / "none"), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    for table, column in (("mvtec", "category"), ("visa", "category"), ("ablation", "model")):
        for row in read_table(TABLES, table):
            assert row[column] in text
    assert "±" not in text.split("## MVTec")[1]


def test_an_average_appears_once_every_category_is_measured(tmp_path: Path) -> None:
    names = {row["category"] for row in read_table(TABLES, "mvtec") if row["group"] == "Textures"}
    results = [result(0, 0.9, dataset=name.lower()) for name in names - {"Average"}]
    out = tmp_path / "tables.md"
    runs = write_runs(tmp_path / "runs", results)
    assert main(["reproduce", "--runs", str(runs), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "90.00 / 90.00" in rows(text, "Textures Average")[0]
    assert "0 of 10 categories" in rows(text, "Objects Average")[0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("{", "cannot be read"), ('{"evaluation": {"schema": "x"}}', "of another version")],
)
def test_damaged_results_are_one_sentence(
    tmp_path: Path, content: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "metrics.json").write_text(content, encoding="utf-8")
    assert main(["reproduce", "--runs", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err
