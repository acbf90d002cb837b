"""Print the poster's tables beside what was measured here; every other cell says "not measured".

Measured values come from the metrics.json that `evaluate --run` leaves in each run folder. The
poster's numbers are read from docs/tables; docs/method.md says how far to trust them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ..engine.atomic import write_atomically
from ..engine.spec import RANDOM_LAYER4
from ..errors import ConfigError
from .aggregate import Group, aggregate, spread_text
from .checkpoint import METRICS
from .evaluation_json import METRICS_SCHEMA
from .poster_tables import (
    ABLATION,
    METHODS,
    NOT_MEASURED,
    TABLES,
    best_measured,
    markdown,
    read_table,
    same_category,
)

MIN_SEEDS = 3
PRINTED = ("pixel AUROC", "aupro_rd4ad")
"""What the poster's two columns are."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `skrd4ad reproduce`."""
    parser.add_argument("--runs", type=Path, required=True, help="folder with run folders below it")
    parser.add_argument("--tables", type=Path, default=TABLES, help="the poster's tables as CSV")
    parser.add_argument("--out", type=Path, help="write the tables to this Markdown file as well")


def run(arguments: argparse.Namespace) -> int:
    """Collect, aggregate, print."""
    documents = list(collect(arguments.runs))
    groups, notes = aggregate(documents)
    text = reproduction(groups, notes, arguments.tables)
    print(text)
    if arguments.out is not None:
        write_atomically(arguments.out, (text + "\n").encode())
    return 0


def collect(runs: Path) -> Iterator[dict[str, Any]]:
    """The evaluation of every run below `runs`. Raises ConfigError for a damaged file or folder."""
    if not runs.is_dir():
        raise ConfigError(f"there is no folder {runs}", "give the folder that holds the runs")
    for path in sorted(runs.rglob(METRICS)):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} cannot be read: {error}", "evaluate the run again"
            ) from error
        evaluation = document.get("evaluation") if isinstance(document, dict) else None
        if evaluation is None:
            continue  # trained, not evaluated yet
        if evaluation.get("schema") != METRICS_SCHEMA:
            raise ConfigError(f"{path} is of another version", "evaluate the run again")
        yield evaluation


def reproduction(groups: Sequence[Group], notes: Sequence[str], tables: Path) -> str:
    """All tables as Markdown."""
    parts = ["# The poster's tables beside ours", _preface(groups)]
    for benchmark, title in (("mvtec", "MVTec AD"), ("visa", "VisA")):
        parts += [f"## {title}: pixel AUROC / AUPRO", benchmark_table(benchmark, groups, tables)]
    parts += ["## VAD: image AUROC", vad_table(groups, tables)]
    parts += ["## Ablation: pixel AUROC / AUPRO", ablation_table(groups, tables)]
    parts += ["## Efficiency", efficiency_table(tables)]
    if groups:
        parts += ["## What was measured", measured_table(groups)]
    parts += [f"note: {note}" for note in notes]
    return "\n\n".join(parts)


def benchmark_table(benchmark: str, groups: Sequence[Group], tables: Path) -> str:
    """Per category, then the averages: the poster's RD4AD and SK-RD4AD, and ours."""
    printed = read_table(tables, benchmark)
    sections: dict[str, list[dict[str, Group | None]]] = {}
    rows = []
    for category in dict.fromkeys(row["category"] for row in printed if row["is_average"] == "0"):
        here = [g for g in groups if same_category(benchmark, category, g.kind.dataset)]
        stated = [r for r in printed if r["category"] == category]
        ours = {method: best_measured(here, recipe) for method, recipe in METHODS.items()}
        sections.setdefault(stated[0].get("group", ""), []).append(ours)
        rows.append((category, *_stated(stated), *(_ours(group) for group in ours.values())))
    averages = [row for row in printed if row["is_average"] == "1"]
    for section, category in dict.fromkeys((r.get("group", ""), r["category"]) for r in averages):
        stated = [r for r in averages if (r.get("group", ""), r["category"]) == (section, category)]
        members = sections.get(section) or [one for part in sections.values() for one in part]
        ours_cells = (_average([member[method] for member in members]) for method in METHODS)
        rows.append((f"{section} {category}".strip(), *_stated(stated), *ours_cells))
    return markdown(("category", *_heads(METHODS)), rows)


def ablation_table(groups: Sequence[Group], tables: Path) -> str:
    """The poster averages over MVTec AD; ours is one line per data set that was measured."""
    datasets = list(dict.fromkeys(group.kind.dataset for group in groups))
    head = ["row", "poster", *(f"ours, {name}" for name in datasets)] if datasets else []

    def ours(recipe: str) -> list[str]:
        here = ([g for g in groups if g.kind.dataset == name] for name in datasets)
        return [_ours(best_measured(found, recipe)) for found in here] or [NOT_MEASURED]

    rows = [
        (row["model"], f"{row['auroc']} / {row['aupro']}", *ours(ABLATION[row["model"]]))
        for row in read_table(tables, "ablation")
    ]
    more = sorted({group.kind.recipe for group in groups} - set(ABLATION.values()))
    rows += [(f"{recipe} (not in the poster)", "-", *ours(recipe)) for recipe in more]
    return markdown(head or ["row", "poster", "ours"], rows)


def vad_table(groups: Sequence[Group], tables: Path) -> str:
    """The README's VAD table (the poster has none)."""
    here = [group for group in groups if same_category("", "vad", group.kind.dataset)]
    rows = []
    for row in read_table(tables, "vad"):
        group = best_measured(here, METHODS[row["method"]])
        figure = group.figures.get("image AUROC") if group else None
        rows.append(
            (row["method"], row["image_auroc"], spread_text(figure) if figure else NOT_MEASURED)
        )
    return markdown(("method", "stated", "ours"), rows)


def efficiency_table(tables: Path) -> str:
    """Time and memory depend on the machine: `bench` measures them, this verb never does."""
    rows = [
        (f"{row['factor']} [{row['unit']}]", row["RD4AD"], row["SK-RD4AD"], NOT_MEASURED)
        for row in read_table(tables, "efficiency")
    ]
    return markdown(("factor", "poster RD4AD", "poster SK-RD4AD", "ours"), rows)


def measured_table(groups: Sequence[Group]) -> str:
    """Everything that `ours` was taken from, with what the poster does not report."""
    head = ("data set", "recipe", "backbone", "teacher", "epochs", "seeds", "test images")
    columns = ("image AUROC", "pixel AUROC", "AUPRO@0.3", "aupro_rd4ad")
    rows = [
        (
            group.kind.dataset,
            group.kind.recipe,
            group.kind.backbone,
            group.kind.teacher,
            str(group.kind.epochs),
            str(len(group.seeds)),
            f"{group.kind.n_good} good, {group.kind.n_defective} defective",
            *(
                spread_text(group.figures[name]) if name in group.figures else NOT_MEASURED
                for name in columns
            ),
        )
        for group in groups
    ]
    return markdown((*head, *columns), rows)


def _preface(groups: Sequence[Group]) -> str:
    few = sum(len(group.seeds) < MIN_SEEDS for group in groups)
    return (
        "All figures in percent. Ours: mean ± sample standard deviation over seeds, final weights, "
        "no choice made on test images; AUPRO here is `aupro_rd4ad`, the per-image variant that "
        "the poster's lineage reports (the exact one is in the last table). The poster reports the "
        "best test epoch of one seed, so the columns are not on equal terms."
        + (f" {few} of {len(groups)} groups have fewer than {MIN_SEEDS} seeds." if few else "")
    )


def _stated(rows: Sequence[dict[str, str]]) -> list[str]:
    by_method = {r["method"]: f"{r['pixel_auroc'] or '-'} / {r['aupro'] or '-'}" for r in rows}
    return [by_method.get(method, "") for method in METHODS]


def _ours(group: Group | None) -> str:
    if group is None:
        return NOT_MEASURED
    figures = [group.figures.get(name) for name in PRINTED]
    if not any(figures):
        return NOT_MEASURED
    cells = " / ".join(spread_text(f) if f else NOT_MEASURED for f in figures)
    seeds = "1 seed" if len(group.seeds) == 1 else f"{len(group.seeds)} seeds"
    borrowed = ", random layer4" if group.kind.teacher.endswith(RANDOM_LAYER4) else ""
    return f"{cells} ({group.kind.backbone}{borrowed}, {seeds})"


def _average(groups: Sequence[Group | None]) -> str:
    """Mean over categories, only when every one of them was measured."""
    known = [g for g in groups if g is not None and set(PRINTED) <= set(g.figures)]
    if len(known) < len(groups):
        return f"{NOT_MEASURED} ({len(known)} of {len(groups)} categories)"
    means = [fmean(group.figures[name].mean for group in known) for name in PRINTED]
    return " / ".join(f"{100 * mean:.2f}" for mean in means)


def _heads(methods: dict[str, str]) -> list[str]:
    return [*(f"poster {name}" for name in methods), *(f"ours, {r}" for r in methods.values())]
