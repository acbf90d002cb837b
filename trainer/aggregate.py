"""Several seeds of one recipe become mean and standard deviation; nothing unlike is averaged."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..engine.spec import RANDOM_LAYER4
from .preset import PRESETS

FIGURES: dict[str, tuple[str, ...]] = {
    "image AUROC": ("image", "auroc"),
    "pixel AUROC": ("pixel", "auroc"),
    "AUPRO@0.3": ("pixel", "aupro_30"),
    "AUPRO@0.05": ("pixel", "aupro_05"),
    "aupro_rd4ad": ("pixel", "aupro_rd4ad"),
    "false rejects": ("deployed", "false_reject", "rate"),
    "escapes": ("deployed", "escape", "rate"),
}
"""Column -> where it lies in a metrics document (trainer/evaluation_json.py)."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; sd is NaN for one seed."""

    mean: float
    sd: float
    n: int


class Kind(NamedTuple):
    """Everything that two results must share before they may be averaged."""

    dataset: str
    recipe: str
    backbone: str
    teacher: str
    epochs: int
    map_size: tuple[int, int]
    n_good: int
    n_defective: int
    mask_rule: str
    teacher_sha256: str
    n_fit: int
    loss: str


@dataclass(frozen=True)
class Group:
    """Results that differ in nothing but the seed; `figures` are those that every seed has."""

    kind: Kind
    seeds: tuple[int, ...]
    figures: dict[str, Spread]


def recipe_of(document: dict[str, Any]) -> str:
    """The row of an ablation table that a result belongs to; a loss of its own is a row of its own.

    Otherwise a run with other loss weights would pass for the preset that it started from.
    """
    loss, preset = document["origin"].get("loss", ""), document["origin"].get("preset", "")
    standard = PRESETS.get(preset)
    if not loss or standard is None or loss == standard.loss().text():
        return _row_of(document)
    return f"{_row_of(document)}, loss {loss}"


def _row_of(document: dict[str, Any]) -> str:
    network, preset = document["network"], document["origin"].get("preset", "")
    if not network.get("bottleneck", True):
        return "bottleneck removal"
    if network.get("additional_skip", False):
        return "additional skip"
    fusion = network.get("fusion", "poster")
    if fusion == "none":
        return "rd4ad" if preset == "rd4ad" else "no skip"
    if fusion == "corresponding":
        return "corresponding skip"
    return f"{fusion} gated" if network.get("skip_gate", "none") != "none" else str(fusion)


def aggregate(documents: Iterable[dict[str, Any]]) -> tuple[list[Group], list[str]]:
    """Group metrics documents by everything but the seed -> groups, notes about repeats.

    Of several results with one seed the last counts, and a note says so.
    """
    grouped: dict[Kind, dict[int, dict[str, Any]]] = {}
    notes: list[str] = []
    for document in documents:
        kind, seed = _kind(document), document["origin"]["seed"]
        seeds = grouped.setdefault(kind, {})
        if seed in seeds:
            notes.append(f"{kind.dataset}, {kind.recipe}: seed {seed} is there twice")
        seeds[seed] = document
    groups = [
        Group(kind, tuple(sorted(seeds)), _figures(list(seeds.values())))
        for kind, seeds in grouped.items()
    ]
    return sorted(groups, key=lambda group: group.kind), notes


def _kind(document: dict[str, Any]) -> Kind:
    origin, teacher = document["origin"], document["teacher"]
    height, width = document["map_size"]
    return Kind(
        dataset=document["dataset"],
        recipe=recipe_of(document),
        backbone=document["network"]["backbone"],
        teacher=teacher["kind"] + (RANDOM_LAYER4 if RANDOM_LAYER4 in teacher["detail"] else ""),
        epochs=origin["epochs"],
        map_size=(height, width),
        n_good=document["n_good"],
        n_defective=document["n_defective"],
        mask_rule=document["mask_rule"],
        # The seed makes a random teacher; a file must be the same for all.
        teacher_sha256="" if teacher["kind"] == "random" else teacher["sha256"],
        n_fit=origin["n_fit"],
        loss=origin.get("loss", ""),
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of one or more values."""
    sd = statistics.stdev(values) if len(values) > 1 else math.nan
    return Spread(statistics.fmean(values), sd, len(values))


def spread_text(value: Spread, percent: bool = True) -> str:
    """`97.31 ± 0.12` in percent, without ± for one seed."""
    scale = 100.0 if percent else 1.0
    mean = f"{scale * value.mean:.2f}"
    return mean if math.isnan(value.sd) else f"{mean} ± {scale * value.sd:.2f}"


def aggregate_text(groups: Sequence[Group]) -> str:
    """One line per group, figures in percent."""
    lines = ["mean ± sample standard deviation over seeds, in percent"]
    for group in groups:
        kind = group.kind
        lines.append(
            f"{kind.dataset}, {kind.recipe}, {kind.backbone}, teacher {kind.teacher}, "
            + (f"loss {kind.loss}, " if kind.loss else "")
            + f"{kind.epochs} epochs, {kind.map_size[0]} x {kind.map_size[1]}, "
            f"{len(group.seeds)} seeds {list(group.seeds)}"
        )
        lines += [f"  {name:14} {spread_text(value)}" for name, value in group.figures.items()]
    return "\n".join(lines)


def aggregate_json(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Plain values for `evaluate --json`; the sd of one seed is null."""
    return [
        {
            **group.kind._asdict(),
            "seeds": list(group.seeds),
            "figures": {
                name: {
                    "mean": value.mean,
                    "sd": None if math.isnan(value.sd) else value.sd,
                    "n": value.n,
                }
                for name, value in group.figures.items()
            },
        }
        for group in groups
    ]


def figures_of(document: dict[str, Any]) -> dict[str, float]:
    """The figures that one result has, by the names of FIGURES."""
    values = {name: _at(document, path) for name, path in FIGURES.items()}
    return {name: value for name, value in values.items() if value is not None}


def _figures(documents: Sequence[dict[str, Any]]) -> dict[str, Spread]:
    each = [figures_of(document) for document in documents]
    return {
        name: spread([figures[name] for figures in each])
        for name in FIGURES
        if all(name in figures for figures in each)
    }


def _at(document: Any, path: Sequence[str]) -> float | None:
    for step in path:
        if document is None:
            return None
        document = document.get(step)
    return None if document is None else float(document)
