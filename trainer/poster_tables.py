"""The poster's tables as data, and which measured result belongs to which of their cells."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import ConfigError
from .aggregate import Group

NOT_MEASURED = "not measured"
TABLES = Path(__file__).resolve().parent.parent / "docs" / "tables"
ABLATION = {
    "RD4AD (Baseline)": "rd4ad",
    "SK-RD4AD (Ours)": "poster",
    "Corresponding Skip Connections": "corresponding skip",
    "No Skip Connections": "no skip",
    "Bottleneck Removal": "bottleneck removal",
    "Additional Skip Connection": "additional skip",
}
"""Poster row -> recipe (trainer/aggregate.py)."""
FOLDER_NAMES = {"visa": {"capsule": "capsules"}}
"""Where the poster's category and the data set's folder differ by more than case and spaces."""
METHODS = {"RD4AD": "rd4ad", "SK-RD4AD": "poster"}


def read_table(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of `name`.csv. Raises ConfigError when it is missing."""
    path = folder / f"{name}.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"the table {path} cannot be read: {error}",
            "give the folder docs/tables of the source tree with --tables",
        ) from error


def same_category(benchmark: str, printed: str, dataset: str) -> bool:
    """Whether the poster's `printed` category is the data set folder `dataset`."""
    key = _key(printed)
    key = FOLDER_NAMES.get(benchmark, {}).get(key, key)
    return _key(dataset).removeprefix(benchmark) == key


def best_measured(groups: Iterable[Group], recipe: str) -> Group | None:
    """The group to show for a recipe: most seeds, then most epochs. Never chosen by its figures."""
    fitting = [group for group in groups if group.kind.recipe == recipe]
    return max(fitting, key=lambda g: (len(g.seeds), g.kind.epochs, g.kind.backbone), default=None)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that is readable as text too: columns padded to their widest cell."""
    every = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in every) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in every
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _key(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
