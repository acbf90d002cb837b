"""VisA as released: one table for all categories, `split_csv/1cls.csv`, read without any copying.

Columns: object, split (train | test), label (normal | anomaly), image, mask; paths are relative to
the folder that holds `split_csv`. The table decides what is trained on, not the folders.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import DataError
from .samples import GOOD, Dataset, Sample

TABLE = Path("split_csv") / "1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")
DEFECT = "anomaly"


def table_of(root: Path) -> Path | None:
    """The table of a VisA folder, None when `root` is not one."""
    return root / TABLE if (root / TABLE).is_file() else None


def visa_categories(table: Path) -> list[str]:
    """The objects that the table names, in its order."""
    return list(dict.fromkeys(row["object"] for row in _rows(table)))


def read_visa(table: Path, category: str) -> Dataset:
    """One category. Rows whose image is missing are left out with a note.

    Raises DataError naming the line for a row that is not one of the table's kinds.
    """
    root = table.parent.parent
    samples: list[Sample] = []
    problems: list[str] = []
    for line, row in enumerate(_rows(table), start=2):
        if row["object"] != category:
            continue
        split, label = row["split"], row["label"]
        if split not in ("train", "test") or label not in ("normal", DEFECT):
            raise DataError(
                f"{table} line {line}: split '{split}' and label '{label}' are not train or test "
                "and normal or anomaly"
            )
        path, mask = root / row["image"], root / row["mask"] if row["mask"] else None
        if not path.is_file():
            problems.append(f"{table} line {line}: there is no image {row['image']}")
            continue
        if split == "train" and label == DEFECT:
            problems.append(f"{table} line {line}: a defect in the training split is not used")
            continue
        if mask is not None and not mask.is_file():
            problems.append(f"{table} line {line}: there is no mask {row['mask']}")
            mask = None
        if label == "normal":
            samples.append(Sample(path, "train" if split == "train" else "test", GOOD))
        else:
            samples.append(Sample(path, "test", DEFECT, mask))
    return Dataset(
        name=category,
        root=root / category,
        layout="visa",
        train=tuple(sample for sample in samples if sample.split == "train"),
        test=tuple(sample for sample in samples if sample.split == "test"),
        problems=tuple(problems),
    )


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{table} has no column {', '.join(sorted(missing))}")
            return [{name: (row[name] or "").strip() for name in COLUMNS} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}") from error
