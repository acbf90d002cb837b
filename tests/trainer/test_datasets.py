"""Layouts are read from tiny copies written to disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skrd4ad.errors import DataError
from skrd4ad.trainer.datasets import find_dataset, read_mask


def write_image(path: Path, value: int = 90, mode: str = "RGB", size: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size, size), value if mode != "RGB" else (value, value, value)).save(path)
    return path


def write_mask(path: Path, value: int = 255) -> Path:
    mask = np.zeros((20, 20), np.uint8)
    mask[3:6, 4:9] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    for index in range(12):
        write_image(tmp_path / f"bottle/train/good/{index}.png")
    write_image(tmp_path / "bottle/test/good/000.png")
    for name in ("000", "001"):
        write_image(tmp_path / f"bottle/test/crack/{name}.png")
        write_mask(tmp_path / f"bottle/ground_truth/crack/{name}_mask.png")
    return tmp_path


def test_mvtec_layout_gives_splits_labels_and_masks_by_stem(mvtec: Path) -> None:
    dataset = find_dataset(mvtec, "bottle")
    assert (dataset.name, dataset.layout) == ("bottle", "mvtec")
    assert [sample.path.name for sample in dataset.train] == [f"{i}.png" for i in range(12)]
    assert [(s.defect, s.is_defective) for s in dataset.test] == [
        ("crack", True),
        ("crack", True),
        ("good", False),
    ]
    assert [s.mask and s.mask.name for s in dataset.test] == ["000_mask.png", "001_mask.png", None]
    assert dataset.problems == ()


def test_the_category_folder_itself_may_be_given(mvtec: Path) -> None:
    assert find_dataset(mvtec / "bottle", None) == find_dataset(mvtec, "bottle")
    assert find_dataset(mvtec / "bottle", "bottle") == find_dataset(mvtec, "bottle")
    assert find_dataset(mvtec, None) == find_dataset(mvtec, "bottle")


def test_a_missing_mask_is_reported_and_does_not_change_the_label(mvtec: Path) -> None:
    (mvtec / "bottle/ground_truth/crack/000_mask.png").unlink()
    write_mask(mvtec / "bottle/ground_truth/crack/777_mask.png")
    dataset = find_dataset(mvtec, "bottle")
    first = dataset.test[0]
    assert first.path.name == "000.png"
    assert first.is_defective
    assert first.mask is None
    assert any("1 of 2 images have no mask" in problem for problem in dataset.problems)
    assert any("777_mask.png" in problem for problem in dataset.problems)


def test_defects_below_train_are_never_trained_on(mvtec: Path) -> None:
    write_image(mvtec / "bottle/train/bad/0.png")
    dataset = find_dataset(mvtec, "bottle")
    assert all(sample.path.parent.name == "good" for sample in dataset.train)
    assert any("not used for training" in problem for problem in dataset.problems)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "PNG"])
def test_a_plain_folder_of_good_images_is_all_training(tmp_path: Path, suffix: str) -> None:
    for index in range(3):
        write_image(tmp_path / f"part{index}.{suffix}")
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = find_dataset(tmp_path, None)
    assert (dataset.layout, len(dataset.train), dataset.test) == ("plain", 3, ())


def test_an_unknown_category_names_the_nearest(mvtec: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_dataset(mvtec, "botle")
    assert "botle" in caught.value.sentence
    assert "did you mean 'bottle'?" in caught.value.hint


def test_several_categories_ask_for_a_choice(mvtec: Path) -> None:
    write_image(mvtec / "cable/train/good/0.png")
    with pytest.raises(DataError, match="2 categories: bottle, cable"):
        find_dataset(mvtec, None)


def test_missing_and_empty_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data folder"):
        find_dataset(tmp_path / "nowhere", None)
    with pytest.raises(DataError, match="no images"):
        find_dataset(tmp_path, None)
    (tmp_path / "bottle/train/good").mkdir(parents=True)
    with pytest.raises(DataError, match="no training images"):
        find_dataset(tmp_path, "bottle")


def test_every_value_but_zero_is_a_defect(tmp_path: Path) -> None:
    for value in (1, 128, 255):
        mask = read_mask(write_mask(tmp_path / f"{value}.png", value))
        assert mask.dtype == np.bool_
        assert mask.sum() == 15
    deep = np.zeros((20, 20), np.uint16)
    deep[0, 0] = 256  # a >>8 conversion to eight bits would keep it, a truncation would lose it
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert read_mask(tmp_path / "deep.png").sum() == 1
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[2, 2, 1] = 9
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    assert read_mask(tmp_path / "rgba.png").sum() == 1


def test_a_folder_of_masks_is_their_union(tmp_path: Path) -> None:
    write_mask(tmp_path / "m/000.png")
    other = np.zeros((20, 20), np.uint8)
    other[0, 0] = 7
    Image.fromarray(other).save(tmp_path / "m/001.png")
    assert read_mask(tmp_path / "m").sum() == 16


def test_an_unreadable_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match=r"broken\.png"):
        read_mask(tmp_path / "broken.png")


def test_real_transistor_folder(shared_data: Path) -> None:
    dataset = find_dataset(shared_data / "mvtec_transistor", None)
    assert dataset.layout == "mvtec"
    assert all(s.mask is not None for s in dataset.test if s.is_defective)
    assert {s.defect for s in dataset.test} >= {"good", "bent_lead", "cut_lead", "misplaced"}


def test_an_image_whose_name_is_not_utf8_is_refused_at_once(mvtec: Path) -> None:
    """It was found out after the training, when the split was written."""
    folder = mvtec / "bottle" / "train" / "good"
    (folder / "0.png").rename(folder / os.fsdecode(b"0\xff.png"))
    with pytest.raises(DataError, match="is not UTF-8"):
        find_dataset(mvtec, "bottle")
