"""The rendered data set and the belt video: layout, counts, ground truth, refusals."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skrd4ad.cli import main
from skrd4ad.errors import ConfigError, DataError
from skrd4ad.trainer.belt import write_belt_video
from skrd4ad.trainer.datasets import find_dataset, read_mask
from skrd4ad.trainer.rendering import render_part
from skrd4ad.trainer.synthetic import DEFECTS, write_dataset


def test_data_set_is_found_again_with_its_masks(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, "part", n_train=5, n_good=3, n_per_defect=2, size=96, seed=4)
    assert folder == tmp_path / "part"
    dataset = find_dataset(tmp_path, "part")
    assert not dataset.problems
    assert len(dataset.train) == 5
    assert [s.defect for s in dataset.test].count("good") == 3
    defective = [s for s in dataset.test if s.is_defective]
    assert sorted({s.defect for s in defective}) == sorted(DEFECTS)
    assert len(defective) == 2 * len(DEFECTS)
    for sample in defective:
        assert sample.mask is not None
        assert read_mask(sample.mask).any()
    first = render_part(4_000_000, "good", 96).pixels
    stored = cv2.imread(str(folder / "train" / "good" / "000.png"))
    assert np.array_equal(stored[..., ::-1], first)


def test_no_image_occurs_twice(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, n_train=4, n_good=4, n_per_defect=1, size=64)
    other = write_dataset(tmp_path / "2", n_train=4, n_good=4, n_per_defect=1, size=64, seed=1)
    files = [
        p.read_bytes()
        for f in (folder, other)
        for s in ("train", "test")
        for p in f.rglob(f"{s}/**/*.png")
    ]
    assert len(files) == 28
    assert len(set(files)) == 28


def test_an_existing_data_set_is_not_mixed_with_another(tmp_path: Path) -> None:
    write_dataset(tmp_path, n_train=1, n_good=0, n_per_defect=0, size=64)
    with pytest.raises(DataError, match="not empty"):
        write_dataset(tmp_path, n_train=1, n_good=0, n_per_defect=0, size=64)


@pytest.mark.parametrize("counts", [(0, 1, 1), (1, -1, 1), (1, 0, 1_000_000)])
def test_impossible_counts_are_refused(tmp_path: Path, counts: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError):
        write_dataset(tmp_path, "x", *counts)
    assert not (tmp_path / "x").exists()


def test_belt_shows_every_part_where_the_truth_says(tmp_path: Path) -> None:
    video, truth_csv = tmp_path / "belt.avi", tmp_path / "truth.csv"
    rows = write_belt_video(video, truth_csv, parts=4, size=96, speed_px=8, defect_rate=0.5, seed=2)
    frames = read_frames(video)
    assert len(frames) == -(-(240 + 3 * 144 + 96) // 8)
    with truth_csv.open() as file:
        table = list(csv.DictReader(file))
    assert [row["defect"] for row in table] == [row.defect for row in rows]
    assert {row.defect != "good" for row in rows} == {True, False}
    for row in rows:
        shown = frames[row.centre_frame][row.y : row.y + row.height, row.x : row.x + row.width]
        part = render_part(row.seed, row.defect, 96).pixels[..., ::-1]
        # Motion JPEG is lossy; another part of the same kind differs several times as much.
        assert np.abs(shown.astype(int) - part.astype(int)).mean() < 7
        assert 0 <= row.first_frame < row.centre_frame < row.last_frame < len(frames)
        assert (row.defect_width > 0) == (row.defect != "good")
        if row.defect != "good":
            assert row.x <= row.defect_x < row.defect_x + row.defect_width <= row.x + row.width


def test_belt_is_entirely_visible_from_first_to_last_frame_only(tmp_path: Path) -> None:
    rows = write_belt_video(
        tmp_path / "b.avi", tmp_path / "b.csv", parts=3, size=96, speed_px=7, defect_rate=0.0
    )
    for row in rows:
        left = [row.x + (row.centre_frame - f) * 7 for f in (row.first_frame, row.last_frame)]
        assert left[0] + 96 <= 240 < left[0] + 7 + 96
        assert left[1] >= 0 > left[1] - 7
        assert abs(row.x + 48 - 120) <= 3.5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("b.wmv", {}),
        ("b.avi", {"parts": 0}),
        ("b.avi", {"fps": 0.0}),
        ("b.avi", {"speed_px": 0}),
        ("b.avi", {"defect_rate": 1.5}),
        ("b.avi", {"seed": -1}),
    ],
)
def test_impossible_belts_are_refused(tmp_path: Path, name: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        write_belt_video(tmp_path / name, tmp_path / "b.csv", **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_render_verb_writes_both_and_reports_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = ["--n-train", "2", "--n-good", "1", "--n-per-defect", "1", "--size", "64"]
    assert main(["render", "--out", str(tmp_path), *counts]) == 0
    assert "2 for training" in capsys.readouterr().out
    assert main(["render", "--out", str(tmp_path), *counts]) == 2
    assert "not empty" in capsys.readouterr().err
    belt = str(tmp_path / "belt.avi")
    assert main(["render", "--video", "--out", belt, "--parts", "2", "--size", "64"]) == 0
    assert len((tmp_path / "belt.csv").read_text().splitlines()) == 3


def read_frames(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        grabbed, frame = capture.read()
        if not grabbed:
            break
        frames.append(frame)
    capture.release()
    return frames


NO_ROOM = """
import resource, sys
from skrd4ad.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
sys.exit(main(sys.argv[1:]))
"""
"""A disk on which no file gets longer than 3,000 bytes: what a write on a full one meets."""


@pytest.mark.parametrize(
    "options",
    [("--n-train", "3", "--n-good", "0", "--n-per-defect", "0"), ("--video", "--parts", "1")],
)
def test_without_room_nothing_is_left_and_one_sentence_says_so(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    out = tmp_path / ("belt.avi" if "--video" in options else "data")
    command = [sys.executable, "-c", NO_ROOM, "render", "--out", str(out), "--size", "128"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert "cannot write" in ended.stderr
    assert "has room" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
