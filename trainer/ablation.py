"""Every row of the ablation table on one category: train, judge, tabulate, compare by seed.

Each cell is an ordinary run in `<out>/<row>/seed<k>`. Finished ones are kept and interrupted ones
resumed; seed by seed all rows are trained, so that a table stopped early still compares like with
like. Nothing is chosen by the figures: they are of the test folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..engine.atomic import write_atomically
from ..errors import ConfigError
from . import evaluate
from .aggregate import aggregate, figures_of, spread, spread_text
from .checkpoint import METRICS
from .config import TrainConfig, check_config, load_config, parse_image_size, parse_seeds
from .poster_tables import markdown
from .reproduce import collect, measured_table
from .train import train

ROWS: dict[str, dict[str, Any]] = {
    "poster": {"preset": "poster"},
    "rd4ad": {"preset": "rd4ad"},
    "official": {"preset": "official"},
    "gated": {"preset": "poster", "skip_gate": "cosine"},
    "cosine_only": {"preset": "poster", "loss_reconstruction": 0.0, "loss_skip": 0.0},
    "no_skip": {"preset": "poster", "fusion": "none"},
    "corresponding": {"preset": "poster", "fusion": "corresponding"},
    "additional": {"preset": "poster", "additional_skip": True, "random_layer4": True},
    "no_bottleneck": {"preset": "poster", "bottleneck": False, "random_layer4": True},
}
"""Row -> what it changes. The last two read E4: random where the teacher's file has no layer4."""
BASE = "poster"
COMPARED = ("image AUROC", "pixel AUROC", "AUPRO@0.3", "aupro_rd4ad")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `skrd4ad ablate`."""
    parser.add_argument("--data", required=True, help="data set with a test folder", metavar="DIR")
    parser.add_argument("--category", help="category below --data")
    parser.add_argument("--out", required=True, help="folder of all the runs", metavar="DIR")
    parser.add_argument("--config", type=Path, help="YAML with any key of TrainConfig, for all")
    parser.add_argument("--backbone", help="resnet18, resnet34, resnet50 or wide_resnet50_2")
    parser.add_argument("--backbone-weights", metavar="FILE", help="teacher state dict")
    parser.add_argument("--image-size", metavar="H[,W]", help="multiples of 32")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", default="0,1,2", metavar="A,B,...", help="one run of each row")
    parser.add_argument("--rows", metavar="A,B,...", help="some of " + ", ".join(ROWS))
    parser.add_argument("--table", type=Path, help="write the tables to this Markdown file as well")


def run(arguments: argparse.Namespace) -> int:
    """Train what is missing, then print both tables."""
    options = {
        "data": arguments.data,
        "category": arguments.category,
        "out": arguments.out,
        "backbone": arguments.backbone,
        "backbone_weights": arguments.backbone_weights,
        "epochs": arguments.epochs,
    }
    if arguments.image_size is not None:
        options["image_size"] = parse_image_size(arguments.image_size)
    config = load_config(arguments.config, options)
    rows = _rows(arguments.rows)
    for row in rows:  # a configuration that does not fit some row must not stop it hours later
        check_config(_config_of(config, row, 0))
    text = ""
    for seed in parse_seeds(arguments.seeds, config.seed):
        for row in rows:
            measure(_config_of(config, row, seed))
        text = tables(Path(config.out))
        if arguments.table is not None:  # after every seed: hours lie between them
            write_atomically(arguments.table, (text + "\n").encode())
    print(text)
    return 0


def measure(config: TrainConfig) -> None:
    """Train the run unless it is there, and judge it unless that was done."""
    out = Path(config.out)
    if not out.is_dir():
        train(config, resume=out.with_name(out.name + ".partial").is_dir())
    if "evaluation" not in json.loads((out / METRICS).read_text(encoding="utf-8")):
        evaluate.run(
            argparse.Namespace(
                run=[out],
                plan=None,
                data=Path(config.data),
                category=config.category,
                report=None,
                json=None,
                mask_rule="half",
                false_reject_rate=evaluate.FALSE_REJECT_RATE,
                backend="auto",
            )
        )


def tables(out: Path) -> str:
    """Means and deviations of every row below `out`, and what it differs from `poster` by."""
    groups, notes = aggregate(collect(out))
    by_row = {
        folder.name: {one["origin"]["seed"]: figures_of(one) for one in collect(folder)}
        for folder in sorted(out.iterdir())
        if folder.name in ROWS
    }
    parts = [
        "Percent, mean ± sample standard deviation over seeds; the weights of the last epoch.",
        measured_table(groups),
        f"Difference to `{BASE}` in points, seed by seed (same split, same teacher), mean ± sd:",
        differences_table(by_row),
        *(f"note: {note}" for note in notes),
    ]
    return "\n\n".join(parts)


def differences_table(by_row: dict[str, dict[int, dict[str, float]]]) -> str:
    """`by_row[row][seed]` are figures; only seeds that a row has in common with BASE count."""
    base = by_row.get(BASE, {})
    rows = []
    for row, seeds in by_row.items():
        common = sorted(seeds.keys() & base.keys())
        if row != BASE and common:
            cells = (
                _difference([(seeds[seed], base[seed]) for seed in common], name)
                for name in COMPARED
            )
            rows.append((row, str(len(common)), *cells))
    return markdown(("row", "seeds", *COMPARED), rows)


def _difference(pairs: Iterable[tuple[dict[str, float], dict[str, float]]], name: str) -> str:
    values = [
        ours[name] - theirs[name] for ours, theirs in pairs if name in ours and name in theirs
    ]
    if not values:
        return "-"
    text = spread_text(spread(values))
    return text if text.startswith("-") else f"+{text}"


def _config_of(config: TrainConfig, row: str, seed: int) -> TrainConfig:
    out = str(Path(config.out) / row / f"seed{seed}")
    return msgspec.structs.replace(config, **ROWS[row], seed=seed, out=out)


def _rows(text: str | None) -> Sequence[str]:
    rows = list(ROWS) if text is None else text.split(",")
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise ConfigError(f"there is no row '{unknown[0]}'", "the rows are: " + ", ".join(ROWS))
    return rows
