"""What every data set layout becomes: a list of samples with a split, a label and maybe a mask."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..engine.images import IMAGE_SUFFIXES
from ..errors import DataError

GOOD = "good"
"""The label of an image without a defect, whatever its folder was called."""

SUFFIXES = frozenset(IMAGE_SUFFIXES)
"""File suffixes that count as images, compared in lower case."""


@dataclass(frozen=True)
class Sample:
    """One labelled image. The label comes from its folder (or CSV row), never from its mask.

    `mask` is a file, or a folder of masks that are united (LOCO), or None when there is none.
    `group` ties images of one part, lot or defect family together when the layout tells.
    """

    path: Path
    split: Literal["train", "validation", "test"]
    defect: str = GOOD
    mask: Path | None = None
    group: str | None = None

    @property
    def is_defective(self) -> bool:
        return self.defect != GOOD


@dataclass(frozen=True)
class Dataset:
    """One category, ready to use; `problems` are sentences about what was left out and why."""

    name: str
    root: Path
    layout: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    problems: tuple[str, ...] = ()
    validation: tuple[Sample, ...] = ()
    """Good parts that the layout itself holds out: they serve the threshold."""


def natural_key(path: Path) -> tuple[object, ...]:
    """Sort key in which 2.png precedes 10.png, the same on every file system and locale."""
    parts = re.split(r"(\d+)", path.name.casefold())
    return (*((1, int(part)) if part.isdigit() else (0, part) for part in parts), path.name)


def images_in(folder: Path) -> list[Path]:
    """The image files directly inside `folder`, sorted; hidden files are skipped.

    Raises DataError for a path that is not UTF-8: no split, table or report could name the image.
    """
    if not folder.is_dir():
        return []
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    for path in files:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{os.fsencode(path)!r}: the name of this image is not UTF-8",
                "rename it, and others in that folder",
            ) from None
    return sorted(files, key=natural_key)


def folders_in(folder: Path) -> list[Path]:
    """The visible folders directly inside `folder`, sorted."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(found, key=natural_key)
