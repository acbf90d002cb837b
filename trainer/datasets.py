"""Finds the data set behind `--data DIR --category NAME`, whichever layout it has.

The layouts themselves are read in `layouts.py`; this file resolves the category, refuses what
cannot be used with a sentence, and reads masks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import DataError, nearest
from .layouts import read_plain_folder, read_split_folders
from .samples import Dataset, Sample, folders_in
from .visa_csv import read_visa, table_of, visa_categories

__all__ = ["Dataset", "Sample", "find_dataset", "read_mask"]

LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg"})


def find_dataset(root: Path, category: str | None = None) -> Dataset:
    """Read the category `category` below `root`, or `root` itself when it is the category.

    Raises DataError when the folder is missing, holds no images of good parts, or the category is
    unknown (the sentence names the nearest one) or ambiguous.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise DataError(f"there is no data folder {root}", "check the path given with --data")
    table = table_of(root)
    if category:
        return _from_table(table, category) if table else _named(root, category)
    dataset = None if table else _read(root)
    if dataset is not None:
        return _checked(dataset)
    categories = visa_categories(table) if table else _categories(root)
    if len(categories) == 1:
        return find_dataset(root, categories[0])
    if categories:
        raise DataError(
            f"{root} holds {len(categories)} categories: {', '.join(categories)}",
            "choose one with --category",
        )
    raise DataError(
        f"{root} holds no images in a layout that we know",
        "expected DIR/train/good/*.png (MVTec AD), or DIR/*.png with images of good parts only",
    )


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a defect mask, bool (h, w): every value but zero is a defect.

    Index masks (VisA) and 16-bit masks work as they are; in JPEG files, where zero does not
    survive, values above 127 count. A folder means the union of the masks inside (LOCO).
    Raises DataError naming the file.
    """
    if path.is_dir():
        masks = [read_mask(file) for file in sorted(path.iterdir()) if file.is_file()]
        if not masks or len({mask.shape for mask in masks}) != 1:
            raise DataError(f"{path} holds no masks of one size")
        union: NDArray[np.bool_] = np.logical_or.reduce(masks)
        return union
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"the mask {path} cannot be read: {error}") from error
    if values.ndim == 3:
        channels = values.shape[2] - (values.shape[2] in (2, 4))  # alpha says nothing
        values = values[:, :, :channels].max(axis=2)
    return values > 127 if path.suffix.lower() in LOSSY_SUFFIXES else values != 0


def _read(root: Path) -> Dataset | None:
    for read in (read_split_folders, read_plain_folder):
        dataset = read(root)
        if dataset is not None:
            return dataset
    return None


def _from_table(table: Path, category: str) -> Dataset:
    categories = visa_categories(table)
    if category not in categories:
        raise _unknown(category, table.parent.parent, categories)
    return _checked(read_visa(table, category))


def _named(root: Path, category: str) -> Dataset:
    folder = root / category
    if folder.is_dir():
        dataset = _read(folder)
        if dataset is None:
            raise DataError(
                f"{folder} holds no images in a layout that we know",
                "expected train/good/*.png below it, or images of good parts directly inside",
            )
        return _checked(dataset)
    itself = _read(root)
    if itself is not None and category == root.resolve().name:
        return _checked(itself)
    if itself is not None:
        raise DataError(
            f"there is no category '{category}' in {root}",
            "the folder given with --data is itself a category: leave --category out",
        )
    raise _unknown(category, root, _categories(root))


def _unknown(category: str, root: Path, categories: list[str]) -> DataError:
    known = f"the categories are: {', '.join(categories)}"
    otherwise = known if categories else "check the path given with --data"
    return DataError(
        f"there is no category '{category}' in {root}", nearest(category, categories, otherwise)
    )


def _categories(root: Path) -> list[str]:
    return [folder.name for folder in folders_in(root) if _read(folder) is not None]


def _checked(dataset: Dataset) -> Dataset:
    if not dataset.train:
        raise DataError(
            f"{dataset.root} holds no training images of good parts",
            "images must be png, jpg, bmp or tif files",
        )
    return dataset
