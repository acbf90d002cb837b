"""Look at a data set before training: what was found, what would be refused, and why.

Every image and mask is opened and decoded, so nothing that this accepts can stop a training run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..engine.atomic import write_atomically
from ..engine.images import read_rgb
from ..errors import DataError
from .datasets import find_dataset, read_mask
from .samples import Dataset, Sample


@dataclass(frozen=True)
class DataReport:
    """Counts by folder, by pixel size and by file kind; `refused` and `notes` are sentences."""

    name: str
    layout: str
    counts: dict[str, int]
    sizes: dict[str, int]
    kinds: dict[str, int]
    refused: tuple[str, ...]
    """Files that cannot be used: training or evaluation would stop at them."""
    notes: tuple[str, ...]
    """What is used but deserves a look, and what was left out on purpose."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `skrd4ad data`."""
    parser.add_argument("--data", type=Path, required=True, help="data set or category folder")
    parser.add_argument("--category", help="category below --data")
    parser.add_argument("--json", type=Path, help="write the report here as well")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; exit code 2 when a file would be refused."""
    report = look_at(find_dataset(arguments.data, arguments.category))
    print(report_text(report))
    if arguments.json is not None:
        document = json.dumps(vars(report), indent=2) + "\n"
        write_atomically(arguments.json, document.encode())
    if report.refused:
        raise DataError(
            f"{len(report.refused)} files of {report.name} cannot be used",
            "repair or remove the files listed as refused",
        )
    return 0


def look_at(dataset: Dataset) -> DataReport:
    """Decode everything once. Raises nothing for bad files: they are the result."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    refused: list[str] = []
    notes: list[str] = list(dataset.problems)
    digests: dict[str, Sample] = {}
    for sample in (*dataset.train, *dataset.validation, *dataset.test):
        counts[f"{sample.split}/{sample.defect}"] += 1
        try:
            height, width = read_rgb(sample.path).shape[:2]
        except DataError as error:
            refused.append(error.sentence)
            continue
        sizes[f"{width} x {height}"] += 1
        kinds[_kind(sample.path)] += 1
        notes += _copies(sample, digests)
        if sample.mask is not None:
            problem = _mask_problem(sample, sample.mask, (height, width))
            refused += [problem[1]] if problem and problem[0] else []
            notes += [problem[1]] if problem and not problem[0] else []
    if len(sizes) > 1:
        notes.append(f"the images have {len(sizes)} different sizes; all are resized to one")
    return DataReport(
        name=dataset.name,
        layout=dataset.layout,
        counts=dict(counts),
        sizes=dict(sizes.most_common()),
        kinds=dict(kinds.most_common()),
        refused=tuple(refused),
        notes=tuple(notes),
    )


def report_text(report: DataReport) -> str:
    """The report for a terminal."""
    lines = [f"{report.name}: {report.layout} layout"]
    width = max((len(name) for name in report.counts), default=0)
    lines += [f"  {name:{width}}  {count:6}" for name, count in report.counts.items()]
    lines.append("sizes:   " + ", ".join(f"{n} of {size}" for size, n in report.sizes.items()))
    lines.append("kinds:   " + ", ".join(f"{n} of {kind}" for kind, n in report.kinds.items()))
    lines += [f"refused: {sentence}" for sentence in report.refused]
    lines += [f"note:    {sentence}" for sentence in report.notes]
    lines.append(f"{len(report.refused)} refused, {len(report.notes)} notes")
    return "\n".join(lines)


def _kind(path: Path) -> str:
    """File format and pixel mode, e.g. "PNG 16-bit grey"; the file is known to be readable."""
    names = {"RGB": "colour", "L": "grey", "RGBA": "colour with alpha", "P": "palette"}
    with Image.open(path) as image:
        mode = "16-bit grey" if image.mode.startswith("I") else names.get(image.mode, image.mode)
        return f"{image.format} {mode}"


def _copies(sample: Sample, digests: dict[str, Sample]) -> Iterator[str]:
    """A held-out or test image that is a byte-for-byte copy of another split's proves nothing."""
    digest = hashlib.sha256(sample.path.read_bytes()).hexdigest()
    first = digests.setdefault(digest, sample)
    if first is not sample:
        home = "training" if first.split == "train" else first.split
        leak = f": the {sample.split} set leaks into {home}" if first.split != sample.split else ""
        yield f"{sample.path} is a copy of {first.path}{leak}"


def _mask_problem(
    sample: Sample, mask_path: Path, size: tuple[int, int]
) -> tuple[bool, str] | None:
    """(is it refused, sentence), or None when the mask fits."""
    try:
        mask = read_mask(mask_path)
    except DataError as error:
        return True, error.sentence
    if mask.shape != size:
        return True, (
            f"{mask_path} is {mask.shape[1]} x {mask.shape[0]} but its image {sample.path.name} "
            f"is {size[1]} x {size[0]}"
        )
    if not mask.any():
        return False, f"{mask_path} marks nothing, though its folder says '{sample.defect}'"
    if mask.all():
        return False, f"{mask_path} marks the whole image"
    return None
