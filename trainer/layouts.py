"""How each public folder layout is read. One function per layout: category folder -> Dataset.

Only listing happens here; no image is opened. Folders that hold good images are `good` (MVTec AD
and most others) or `ok` (BTAD). Nothing but good images ever reaches the training split.
"""

from __future__ import annotations

from pathlib import Path

from .samples import GOOD, Dataset, Sample, folders_in, images_in

GOOD_FOLDERS = ("good", "ok")
MASK_ENDINGS = ("_mask", "_gt", "_seg", "")
"""Mask of `000.png`: `000_mask.png` (MVTec AD, MPDD) or `000.png` (VisA, BTAD)."""


def read_split_folders(root: Path) -> Dataset | None:
    """`train/good`, `test/<good|defect>`, `ground_truth/<defect>`: MVTec AD, MPDD, BTAD, VisA 1cls.

    Returns None when `root` has no `train/good` (or `train/ok`) folder. Other folders below
    `train` hold defects (VAD ships `train/bad`) and are left out with a note.
    """
    good_folder = next((name for name in GOOD_FOLDERS if (root / "train" / name).is_dir()), None)
    if good_folder is None:
        return None
    problems: list[str] = []
    train = tuple(Sample(path, "train") for path in images_in(root / "train" / good_folder))
    for folder in folders_in(root / "train"):
        if folder.name != good_folder:
            problems.append(
                f"{folder}: {len(images_in(folder))} images of defects are not used for training"
            )
    test: list[Sample] = []
    for folder in folders_in(root / "test"):
        defect = GOOD if folder.name in GOOD_FOLDERS else folder.name
        masks = _masks_by_stem(root / "ground_truth" / folder.name)
        images = images_in(folder)
        for path in images:
            mask = None if defect == GOOD else masks.pop(_stem(path), None)
            test.append(Sample(path, "test", defect, mask))
        if defect != GOOD:
            without = sum(1 for s in test if s.defect == defect and s.mask is None)
            if without > 0 and (root / "ground_truth").is_dir():
                problems.append(f"{folder}: {without} of {len(images)} images have no mask")
            problems += [f"{mask}: no image has this stem" for mask in masks.values()]
    return Dataset(root.name, root, "mvtec", train, tuple(test), tuple(problems))


def read_plain_folder(root: Path) -> Dataset | None:
    """A folder with nothing but images of good parts: all of them are for training."""
    images = images_in(root)
    if not images:
        return None
    problems = tuple(
        f"{folder}: a folder beside the images is not read" for folder in folders_in(root)
    )
    train = tuple(Sample(path, "train") for path in images)
    return Dataset(root.name, root, "plain", train, (), problems)


def _stem(path: Path) -> str:
    return path.stem.casefold()


def _masks_by_stem(folder: Path) -> dict[str, Path]:
    """Masks by the stem of the image that they belong to."""
    masks: dict[str, Path] = {}
    for path in images_in(folder):
        ending = next(end for end in MASK_ENDINGS if _stem(path).endswith(end))
        masks[_stem(path).removesuffix(ending)] = path
    return masks
