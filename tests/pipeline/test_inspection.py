"""`skrd4ad inspect`: every file a row, overlays on the fixed scale, documented exit codes."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skrd4ad import cli
from skrd4ad.engine.images import read_rgb
from skrd4ad.pipeline.defects import Place, describe, grow_areas
from skrd4ad.pipeline.inspection import list_files
from skrd4ad.pipeline.overlay import draw_overlay, map_on_image
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    calm = np.full((80, 100, 3), (124, 116, 104), np.uint8)
    spot = calm.copy()
    spot[30:60, 40:70] = 255
    root = tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    Image.fromarray(calm).save(root / "calm.png")
    Image.fromarray(spot).save(root / "deep" / "spot.png")
    return root


def test_each_file_gets_a_row_an_overlay_and_a_place_in_the_table(
    tiny_plan: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = cli.main(["inspect", "--plan", str(tiny_plan), str(folder), "--out", str(out)])
    assert code == 0, "an ng part is an answer, not a failure"
    assert "2 images: 1 ok, 1 ng, 0 review, 0 err" in capsys.readouterr().out
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["verdict"]) for row in rows] == [
        ("calm.png", "ok"),
        ("deep/spot.png", "ng"),
    ]
    assert int(rows[1]["defects"]) >= 1
    for row in rows:
        # 100 pixels wide is enlarged four times for the label.
        assert read_rgb(row["overlay"]).shape[1] == 400


def test_a_name_that_is_not_utf8_keeps_its_bytes_in_the_table(
    tiny_plan: Path, folder: Path, tmp_path: Path
) -> None:
    (folder / "calm.png").rename(folder / os.fsdecode(b"calm\xff.png"))
    out = tmp_path / "out"
    assert cli.main(["inspect", "--plan", str(tiny_plan), str(folder), "--out", str(out)]) == 0
    assert b"calm\xff.png" in (out / "results.csv").read_bytes()


def test_unreadable_files_are_err_rows_and_exit_code_2(
    tiny_plan: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.png").write_bytes(b"nothing")
    code = cli.main(["inspect", "--plan", str(tiny_plan), str(folder), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == 2
    assert [row["verdict"] for row in rows] == ["err", "ok", "ng"]
    assert rows[0]["score"] is None
    assert "broken.png" in rows[0]["detail"]
    assert rows[2]["defects"][0]["area_px"] > 100


def test_csv_on_the_terminal_has_a_header_and_one_line_a_file(
    tiny_plan: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", "--plan", str(tiny_plan), str(folder), "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["verdict"] for row in rows] == ["ok", "ng"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere"], 2, "nowhere does not exist"),
        (["."], 2, "holds no images"),
    ],
)
def test_a_wrong_path_is_one_sentence(
    tiny_plan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["inspect", "--plan", str(tiny_plan), *arguments]) == code
    assert says in capsys.readouterr().err


def test_a_plan_without_threshold_says_how_to_get_one(
    write_tiny_plan: Callable[..., Path],
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = write_tiny_plan(tmp_path / "raw.plan", threshold=None)
    assert cli.main(["inspect", "--plan", str(plan), str(folder)]) == 5
    assert "skrd4ad calibrate threshold" in capsys.readouterr().err


def test_equal_names_of_two_folders_stay_apart(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "calm.png").write_bytes((folder / "calm.png").read_bytes())
    names = [name for _, name in list_files([folder, other])]
    assert len(set(names)) == 3


def result(verdict: Verdict, anomaly_map: np.ndarray | None) -> Result:
    return Result(
        camera="c",
        camera_seq=1,
        frame_id=1,
        captured_ns=0,
        captured_mono_ns=0,
        captured_source="file",
        captured_error_ns=0,
        part=Part(),
        name="x",
        verdict=verdict,
        reasons=("unreadable",) if verdict is Verdict.ERR else (),
        evaluated=verdict is not Verdict.ERR,
        score=0.0 if anomaly_map is None else float(anomaly_map.max()),
        threshold=0.5,
        defects=(),
        latency=Latency(),
        anomaly_map=anomaly_map,
        map_to_image=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    )


def test_one_colour_is_one_score_whatever_else_the_image_holds() -> None:
    pixels = np.full((400, 400, 3), 100, np.uint8)
    alone = np.zeros((400, 400), np.float32)
    alone[100, 100] = 0.25
    beside = alone.copy()
    beside[300:320, 300:320] = 5.0
    first = draw_overlay(pixels, result(Verdict.OK, alone))
    second = draw_overlay(pixels, result(Verdict.NG, beside))
    label_px = first.shape[0] - 400
    spot = (label_px + 100, 100)
    assert np.array_equal(first[spot], second[spot])
    assert not np.array_equal(first[spot], pixels[0, 0])
    # No evidence, no colour.
    assert np.array_equal(first[label_px + 200, 200], pixels[0, 0])


def test_defects_are_outlined_and_an_uninspected_part_has_only_its_label() -> None:
    pixels = np.full((400, 400, 3), 100, np.uint8)
    values = np.zeros((400, 400), np.float32)
    values[100:150, 100:150] = 0.8
    values[300:320, 300:320] = 0.8  # in an area that is ignored
    place = Place((1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (400, 400))
    areas = grow_areas(values, 0.5, 0.5)
    defects = describe(areas, np.array([True, False]), values, place, "image", 0.5)
    drawn = draw_overlay(pixels, replace(result(Verdict.NG, values), defects=defects))
    label_px = drawn.shape[0] - 400
    assert drawn[label_px + 100, 125].tolist() == [255, 255, 255]
    assert drawn[label_px + 300, 310].tolist() == drawn[label_px + 310, 310].tolist()
    err = draw_overlay(pixels, result(Verdict.ERR, None))
    assert np.array_equal(err[label_px:], pixels)
    assert not np.array_equal(err[:label_px, :50], drawn[:label_px, :50])


def test_the_map_lies_on_its_region_of_interest_only() -> None:
    values = np.ones((8, 8), np.float32)
    placed = map_on_image(values, (4.0, 0.0, 20 + 1.5, 0.0, 2.0, 10 + 0.5), (60, 80))
    expected = np.zeros((60, 80), np.float32)
    expected[10:26, 20:52] = 1.0
    assert np.allclose(placed, expected)
