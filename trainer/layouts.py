"""How each public folder layout is read. One function per layout: category folder -> Dataset.

Only listing happens here; no image is opened. Folders of good images are `good` (MVTec AD and
most others) or `ok` (BTAD). Nothing but good images ever reaches the training split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .samples import Dataset, Sample, folders_in, images_in

GOOD_FOLDERS = ("good", "ok")
MASK_ENDINGS = ("_mask", "_gt", "_seg", "")
"""Mask of `000.png`: `000_mask.png` (MVTec AD, MPDD) or `000.png` (VisA 1cls, BTAD)."""
UNSEEN_ENDING = "_unseen_defects"
"""VAD keeps defects that its training folder does not show in `test/bad_unseen_defects`."""


def read_split_folders(root: Path) -> Dataset | None:
    """`train/good`, `test/<good|defect>`, `ground_truth/<defect>`; None without `train/good`.

    Covers MVTec AD, MVTec LOCO (a folder of masks per image, `validation/good`), VisA's 1cls copy,
    VAD (`train/bad`, `test/bad_unseen_defects`), BTAD (`ok`, `ko`) and MPDD.
    """
    good_folder = next((name for name in GOOD_FOLDERS if (root / "train" / name).is_dir()), None)
    if good_folder is None:
        return None
    train = tuple(Sample(path, "train") for path in images_in(root / "train" / good_folder))
    problems = list(_left_out(root, good_folder))
    test: list[Sample] = []
    for folder in folders_in(root / "test"):
        samples, notes = _test_folder(folder, root / "ground_truth" / folder.name)
        test += samples
        problems += notes
    layout = _style(root, good_folder)
    set_aside = images_in(root / "validation" / good_folder)
    validation = tuple(Sample(path, "validation") for path in set_aside)
    return Dataset(root.name, root, layout, train, tuple(test), tuple(problems), validation)


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


def _style(root: Path, good_folder: str) -> str:
    if good_folder == "ok":
        return "btad"
    if any(folder.name.endswith(UNSEEN_ENDING) for folder in folders_in(root / "test")):
        return "vad"
    if (root / "validation" / "good").is_dir():
        return "loco"
    return "mvtec"


def _left_out(root: Path, good_folder: str) -> Iterator[str]:
    """Sentences about folders whose images are used for nothing."""
    for folder in folders_in(root / "train"):
        if folder.name != good_folder:
            count = len(images_in(folder))
            yield f"{folder}: {count} images of defects are not used for training"
    for folder in folders_in(root / "validation"):
        if folder.name != good_folder:
            count = len(images_in(folder))
            yield f"{folder}: {count} images are kept out of training and testing"


def _test_folder(folder: Path, mask_folder: Path) -> tuple[list[Sample], list[str]]:
    """The samples of one test folder and what is wrong with them."""
    images = images_in(folder)
    if folder.name in GOOD_FOLDERS:
        return [Sample(path, "test") for path in images], []
    masks, problems = _masks_by_stem(mask_folder)
    group = _vad_group(folder)
    samples = [
        Sample(path, "test", folder.name, masks.pop(_stem(path), None), group) for path in images
    ]
    without = sum(sample.mask is None for sample in samples)
    if without and mask_folder.parent.is_dir():
        problems.append(f"{folder}: {without} of {len(images)} images have no mask")
    problems += [f"{mask}: no image has this stem" for mask in masks.values()]
    return samples, problems


def _vad_group(folder: Path) -> str | None:
    """ "seen" or "unseen" in VAD's test folder, None elsewhere."""
    if folder.name.endswith(UNSEEN_ENDING):
        return "unseen"
    return "seen" if (folder.parent / f"{folder.name}{UNSEEN_ENDING}").is_dir() else None


def _stem(path: Path) -> str:
    return path.stem.casefold()


def _masks_by_stem(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Masks, files or folders of files (LOCO), by the stem of the image that they belong to."""
    masks: dict[str, Path] = {}
    problems: list[str] = []
    for path in [*images_in(folder), *(f for f in folders_in(folder) if images_in(f))]:
        name = _stem(path) if path.is_file() else path.name.casefold()
        stem = name.removesuffix(next(end for end in MASK_ENDINGS if name.endswith(end)))
        if stem in masks:
            problems.append(f"{path}: a second mask for {stem} is not read")
        else:
            masks[stem] = path
    return masks, problems
