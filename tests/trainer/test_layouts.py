"""Tiny copies of every public layout, written to disk and read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skrd4ad.engine.images import read_rgb
from skrd4ad.errors import DataError
from skrd4ad.trainer.datasets import find_dataset, read_mask


def image(path: Path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        Image.fromarray(np.full((20, 24), 40_000, np.uint16)).save(path)
    else:
        Image.new(mode, (24, 20), 120 if mode == "L" else (120, 110, 100)).save(path)


def mask(path: Path, value: int = 255, at: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((20, 24), np.uint8)
    values[at : at + 2, 4:8] = value
    Image.fromarray(values).save(path)


def test_loco_unites_the_masks_of_an_image_and_holds_its_validation_out(tmp_path: Path) -> None:
    root = tmp_path / "splicing_connectors"
    image(root / "train/good/000.png")
    image(root / "validation/good/000.png")
    image(root / "test/good/000.png")
    for kind in ("logical_anomalies", "structural_anomalies"):
        image(root / f"test/{kind}/000.png")
        mask(root / f"ground_truth/{kind}/000/000.png", at=1)
        mask(root / f"ground_truth/{kind}/000/001.png", at=10)
    dataset = find_dataset(tmp_path, "splicing_connectors")
    assert (dataset.layout, len(dataset.train), len(dataset.test)) == ("loco", 1, 3)
    defective = [sample for sample in dataset.test if sample.is_defective]
    assert {s.defect for s in defective} == {"logical_anomalies", "structural_anomalies"}
    assert all(s.mask is not None and read_mask(s.mask).sum() == 16 for s in defective)
    assert [sample.path.parent.parent.name for sample in dataset.validation] == ["validation"]
    assert not dataset.problems


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    root = tmp_path / "VisA"
    rows = ["object,split,label,image,mask"]
    for name in ("candle", "pcb1"):
        for index in range(3):
            picture = f"{name}/Data/Images/Normal/{index:04}.JPG"
            image(root / picture)
            rows.append(f"{name},{'test' if index == 2 else 'train'},normal,{picture},")
        picture = f"{name}/Data/Images/Anomaly/000.JPG"
        image(root / picture)
        mask(root / f"{name}/Data/Masks/Anomaly/000.png", value=1)
        rows.append(f"{name},test,anomaly,{picture},{name}/Data/Masks/Anomaly/000.png")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def test_visa_raw_follows_its_table(visa: Path) -> None:
    dataset = find_dataset(visa, "candle")
    assert (dataset.name, dataset.layout) == ("candle", "visa")
    assert (len(dataset.train), len(dataset.test), dataset.problems) == (2, 2, ())
    defect = next(sample for sample in dataset.test if sample.is_defective)
    assert defect.mask is not None
    assert read_mask(defect.mask).sum() == 8  # index masks: every value but zero
    with pytest.raises(DataError, match="2 categories: candle, pcb1"):
        find_dataset(visa)
    with pytest.raises(DataError) as caught:
        find_dataset(visa, "candel")
    assert "did you mean 'candle'?" in caught.value.hint


def test_visa_rows_that_cannot_be_used_are_named(visa: Path) -> None:
    table = visa / "split_csv/1cls.csv"
    (visa / "candle/Data/Images/Normal/0000.JPG").unlink()
    (visa / "candle/Data/Masks/Anomaly/000.png").unlink()
    bad = "candle,train,anomaly,candle/Data/Images/Anomaly/000.JPG,\n"
    table.write_text(table.read_text(encoding="utf-8") + bad, encoding="utf-8")
    dataset = find_dataset(visa, "candle")
    assert (len(dataset.train), len(dataset.test)) == (1, 2)
    text = "\n".join(dataset.problems)
    assert "line 2: there is no image" in text
    assert "there is no mask" in text
    assert "a defect in the training split is not used" in text
    table.write_text("object,split,label,image,mask\ncandle,train,fine,x.png,\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        find_dataset(visa, "candle")
    table.write_text("object,split\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column image, label, mask"):
        find_dataset(visa, "candle")


def test_visa_1cls_copy_is_the_folder_layout(tmp_path: Path) -> None:
    root = tmp_path / "1cls"
    image(root / "candle/train/good/0000.JPG")
    image(root / "candle/test/good/0001.JPG")
    image(root / "candle/test/bad/000.JPG")
    mask(root / "candle/ground_truth/bad/000.png", value=3)
    dataset = find_dataset(root, "candle")
    defect = next(sample for sample in dataset.test if sample.is_defective)
    assert (dataset.layout, defect.defect) == ("mvtec", "bad")
    assert defect.mask is not None
    assert read_mask(defect.mask).any()


def test_vad_never_trains_on_bad_and_tells_seen_from_unseen(tmp_path: Path) -> None:
    for folder in ("train/good", "train/bad", "test/good", "test/bad", "test/bad_unseen_defects"):
        for index in range(2):
            image(tmp_path / f"vad/{folder}/{index}.png")
    dataset = find_dataset(tmp_path / "vad")
    assert dataset.layout == "vad"
    assert {sample.path.parent.name for sample in dataset.train} == {"good"}
    groups = {(sample.defect, sample.group) for sample in dataset.test}
    assert groups == {("good", None), ("bad", "seen"), ("bad_unseen_defects", "unseen")}
    assert any("train/bad: 2 images of defects" in problem for problem in dataset.problems)


def test_btad_folders_are_called_ok_and_ko(tmp_path: Path) -> None:
    image(tmp_path / "01/train/ok/0000.bmp")
    image(tmp_path / "01/test/ok/0000.bmp")
    image(tmp_path / "01/test/ko/0000.bmp")
    mask(tmp_path / "01/ground_truth/ko/0000.png")
    dataset = find_dataset(tmp_path, "01")
    assert dataset.layout == "btad"
    assert [(s.defect, s.mask is not None) for s in dataset.test] == [("ko", True), ("good", False)]


def test_mpdd_masks_end_in_mask(tmp_path: Path) -> None:
    image(tmp_path / "tubes/train/good/000.png")
    image(tmp_path / "tubes/test/anomalous/000.png")
    mask(tmp_path / "tubes/ground_truth/anomalous/000_mask.png")
    assert find_dataset(tmp_path, "tubes").test[0].mask is not None


def test_a_second_mask_for_one_image_is_reported(tmp_path: Path) -> None:
    image(tmp_path / "a/train/good/0.png")
    image(tmp_path / "a/test/dent/0.png")
    mask(tmp_path / "a/ground_truth/dent/0.png")
    mask(tmp_path / "a/ground_truth/dent/0_mask.png")
    dataset = find_dataset(tmp_path, "a")
    assert dataset.test[0].mask == tmp_path / "a/ground_truth/dent/0.png"
    assert any("second mask" in problem for problem in dataset.problems)


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("I;16", "png"), ("I;16", "tif")])
def test_grey_and_sixteen_bit_images_are_read_as_rgb(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    image(tmp_path / f"part.{suffix}", mode)
    sample = find_dataset(tmp_path).train[0]
    pixels = read_rgb(sample.path)
    assert (pixels.shape, pixels.dtype) == ((20, 24, 3), np.uint8)
    assert (pixels == (120 if mode == "L" else 40_000 >> 8)).all()
