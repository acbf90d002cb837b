"""Several categories and several seeds in one command, with one table at the end.

Every combination is an ordinary run in `<out>/<category>/seed<k>`. Finished ones are kept and
interrupted ones resumed, so the same command continues a sweep that was stopped. Under torchrun
the first process decides, and it alone gets the rows.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from .checkpoint import METRICS, load_run
from .config import TrainConfig
from .distributed import team
from .train import choose_device, learn


class SweepRow(NamedTuple):
    category: str
    seed: int
    folder: Path
    held_out_cosine: float
    weights_sha256: str


def sweep(config: TrainConfig, categories: Sequence[str], seeds: Sequence[int]) -> list[SweepRow]:
    """Train every category with every seed, in that order. Raises as `train` does."""
    rows = []
    with team(choose_device(config.device), config.batch) as mates:
        for category in categories:
            for seed in seeds:
                out = Path(config.out) / category / f"seed{seed}"
                if mates.leaders_number(not out.is_dir()):
                    single = msgspec.structs.replace(
                        config, category=category or None, seed=seed, out=str(out)
                    )
                    learn(single, resume=out.with_name(out.name + ".partial").is_dir())
                if mates.leads:
                    rows.append(_row(category, seed, out))
    return rows


def _row(category: str, seed: int, out: Path) -> SweepRow:
    run = load_run(out)
    figures = json.loads((out / METRICS).read_text(encoding="utf-8"))["training"]
    loss = float(figures["held_out_cosine_loss"])
    return SweepRow(category, seed, out, loss, run.origin.weights_sha256)


def sweep_table(rows: Sequence[SweepRow]) -> str:
    """One line per run, then mean and sd over the seeds of each category.

    The loss on held-out good parts says whether training converged, not how well defects are
    found: that is `evaluate`'s job, on the test folder.
    """
    width = max(8, *(len(row.category) for row in rows))
    lines = [f"{'category':{width}}  seed  held-out cosine  weights"]
    lines += [
        f"{row.category:{width}}  {row.seed:4}  {row.held_out_cosine:15.4f}"
        f"  {row.weights_sha256[:12]}"
        for row in rows
    ]
    for category in dict.fromkeys(row.category for row in rows):
        losses = [row.held_out_cosine for row in rows if row.category == category]
        spread = f" ± {statistics.stdev(losses):.4f}" if len(losses) > 1 else ""
        lines.append(
            f"{category:{width}}  mean of {len(losses)}: {statistics.mean(losses):.4f}{spread}"
        )
    return "\n".join(lines)
