"""Which images of good parts belong together, so that a split never parts them.

Thirty pictures of one part, lot or session are nearly copies: with some of them learned from and
some held out, the threshold would come out too low. A layout cannot know this, so the user says
it, by a pattern over file names or by a table.
"""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError, DataError
from .samples import Sample

log = logging.getLogger(__name__)

COLUMNS = ("image", "group")


def with_groups(
    samples: Sequence[Sample], pattern: str | None, table: str | None
) -> tuple[Sample, ...]:
    """The samples with `group` set by the pattern or the table, unchanged when neither is given.

    Raises DataError naming an image that has no group: one forgotten lot would spoil the split.
    """
    if pattern is None and table is None:
        return tuple(samples)
    find = _by_table(Path(table)) if table is not None else _by_pattern(pattern or "")
    grouped = [replace(sample, group=find(sample.path)) for sample in samples]
    without = [sample.path for sample in grouped if not sample.group]
    if without:
        source = table if table is not None else f"the group pattern '{pattern}'"
        raise DataError(
            f"{source} gives no group for {len(without)} of {len(grouped)} images, "
            f"the first is {without[0]}",
            "every image of a good part needs its group",
        )
    sizes = Counter(sample.group for sample in grouped)
    log.info(
        "%d images in %d groups, %d in the largest", len(grouped), len(sizes), max(sizes.values())
    )
    return tuple(grouped)


def check_group_pattern(pattern: str) -> None:
    """Raises ConfigError unless `pattern` is a regular expression with one group in parentheses."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"group_pattern '{pattern}' is no regular expression: {error}") from error
    if compiled.groups != 1:
        raise ConfigError(
            f"group_pattern '{pattern}' has {compiled.groups} groups in parentheses, expected one",
            r"such as '^(lot\d+)_'",
        )


def _by_pattern(pattern: str) -> Callable[[Path], str | None]:
    compiled = re.compile(pattern)

    def find(path: Path) -> str | None:
        match = compiled.search(path.name)
        return match.group(1) if match else None

    return find


def _by_table(table: Path) -> Callable[[Path], str | None]:
    """Columns image and group; an image is a path relative to the table's folder."""
    folder = table.resolve().parent
    groups: dict[Path, str] = {}
    for line, (image, group) in enumerate(_rows(table), start=2):
        path = (folder / image).resolve()
        if not image or not group:
            raise DataError(f"{table} line {line} has an empty cell")
        if groups.setdefault(path, group) != group:
            raise DataError(f"{table} line {line} puts {image} into a second group")
    return lambda path: groups.get(path.resolve())


def _rows(table: Path) -> list[tuple[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{table} has no column {' or '.join(sorted(missing))}",
                    "its first line must be image,group",
                )
            return [((row["image"] or "").strip(), (row["group"] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the table of groups {table} cannot be read: {error}") from error
