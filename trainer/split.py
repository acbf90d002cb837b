"""Which good parts are learned from and which are held out for the threshold.

The test folder has no part in this: it is never read during training.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ..errors import DataError
from .samples import Sample

CALIBRATION_SHARE = 0.2
MIN_CALIBRATION = 20
SPLIT_COLUMNS = ("path", "sha256", "role")

Role = Literal["fit", "calibration"]


class SplitRow(NamedTuple):
    """One good part: where it lies (absolute), the SHA-256 of the file, and its role."""

    path: Path
    sha256: str
    role: Role


def split_normals(
    samples: Sequence[Sample], seed: int, share: float = CALIBRATION_SHARE
) -> tuple[list[Sample], list[Sample]]:
    """Good parts -> (fit, calibration), both in the order given.

    A fifth is held out, at least 20 images when that leaves as many to learn from. Images of one
    group (the same part, lot or session) are never on both sides. Raises DataError below 2 groups.
    """
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.group or f"\0{index}", []).append(index)
    if len(groups) < 2:
        raise DataError(
            f"{len(samples)} image(s) of good parts in {len(groups)} group(s) cannot be split into"
            " learning and calibration",
            "at least 2 are needed to run at all, 100 or more for a useful threshold",
        )
    wanted = max(round(share * len(samples)), min(MIN_CALIBRATION, len(samples) // 2), 1)
    order = np.random.default_rng([seed, 0x5EED]).permutation(len(groups))
    names = list(groups)
    held_out: set[int] = set()
    for position in order[:-1]:  # one group always stays to learn from
        if len(held_out) >= wanted:
            break
        held_out.update(groups[names[position]])
    fit = [sample for index, sample in enumerate(samples) if index not in held_out]
    return fit, [samples[index] for index in sorted(held_out)]


def fold_normals(
    samples: Sequence[Sample], seed: int, fold: int, folds: int
) -> tuple[list[Sample], list[Sample]]:
    """Good parts -> (fit, held out) for fold 1 ... `folds`, both in the order given.

    The held-out parts of the folds are disjoint and together are all parts; folds differ in size by
    at most one group. Raises DataError for fewer groups than folds.
    """
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.group or f"\0{index}", []).append(index)
    if len(groups) < folds:
        raise DataError(
            f"{len(samples)} image(s) of good parts in {len(groups)} group(s) cannot be split into"
            f" {folds} folds",
            "use fewer folds, or more images",
        )
    order = np.random.default_rng([seed, 0xF01D]).permutation(len(groups))
    names = list(groups)
    held_out = {index for position in order[fold - 1 :: folds] for index in groups[names[position]]}
    fit = [sample for index, sample in enumerate(samples) if index not in held_out]
    return fit, [samples[index] for index in sorted(held_out)]


def hold_out(
    normals: Sequence[Sample],
    validation: Sequence[Sample],
    seed: int,
    *,
    share: float,
    fold: int,
    folds: int,
) -> tuple[list[Sample], list[Sample]]:
    """Good parts -> (fit, held out): by fold, else as the data set itself says, else at random."""
    if folds:
        return fold_normals(normals, seed, fold, folds)
    if validation:
        return list(normals), list(validation)
    return split_normals(normals, seed, share)


def split_rows(fit: Sequence[Sample], calibration: Sequence[Sample]) -> list[SplitRow]:
    """The split with the hash of every file, so that a later run can tell whether they changed."""
    parts: tuple[tuple[Sequence[Sample], Role], ...] = ((fit, "fit"), (calibration, "calibration"))
    rows = []
    for samples, role in parts:
        for sample in samples:
            digest = hashlib.sha256(sample.path.read_bytes()).hexdigest()
            rows.append(SplitRow(sample.path.resolve(), digest, role))
    return rows


def write_split(rows: Sequence[SplitRow]) -> str:
    """The text of split.csv."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(SPLIT_COLUMNS)
    writer.writerows((str(row.path), row.sha256, row.role) for row in rows)
    return buffer.getvalue()


def read_split(text: str, name: str) -> list[SplitRow]:
    """The rows of split.csv. Raises DataError naming the file when it is not one."""
    reader = csv.reader(io.StringIO(text))
    if tuple(next(reader, ())) != SPLIT_COLUMNS:
        raise DataError(f"{name} does not begin with {','.join(SPLIT_COLUMNS)}")
    rows = []
    for row in reader:
        if len(row) != len(SPLIT_COLUMNS) or row[2] not in ("fit", "calibration"):
            raise DataError(f"{name} has a row that is not path,sha256,role: {','.join(row)}")
        role: Role = "fit" if row[2] == "fit" else "calibration"
        rows.append(SplitRow(Path(row[0]), row[1], role))
    return rows
