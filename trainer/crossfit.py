"""Cross-fitted training: K networks, each held out from another K-th of the good parts.

For small sets: one split leaves too few parts for a threshold. Every fold is an ordinary run in
`<out>/fold<k>` with `held_out_scores.csv` beside its files; any of them can be compiled, and
`calibrate threshold --folds <out>` then uses the scores of all good parts (calibration/folds.py).
Finished folds are kept and interrupted ones resumed.
"""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path
from typing import NamedTuple

import msgspec

from ..calibration.folds import COLUMNS, SCORES_FILE
from ..engine.atomic import write_atomically
from ..errors import ConfigError
from .checkpoint import load_run
from .config import TrainConfig
from .samples import Sample
from .scorer import run_scorer, score_samples
from .train import train


class FoldRow(NamedTuple):
    fold: int
    folder: Path
    n_fit: int
    n_held_out: int
    median_score: float
    largest_score: float


def crossfit(config: TrainConfig, folds: int) -> list[FoldRow]:
    """Train and score every fold. Raises ConfigError below two folds, and as `train` does."""
    if folds < 2:
        raise ConfigError(f"--folds {folds}: cross-fitting takes at least 2", "5 is usual")
    rows = []
    for fold in range(1, folds + 1):
        out = Path(config.out) / f"fold{fold}"
        if not out.is_dir():
            single = msgspec.structs.replace(config, folds=folds, fold=fold, out=str(out))
            train(single, resume=out.with_name(out.name + ".partial").is_dir())
        rows.append(_score_held_out(out, fold))
    return rows


def crossfit_table(rows: list[FoldRow]) -> str:
    """One line per fold; large differences between folds mean that the set is too small."""
    lines = ["fold  learned from  held out  median score  largest score"]
    lines += [
        f"{row.fold:4}  {row.n_fit:12}  {row.n_held_out:8}  {row.median_score:12.4f}"
        f"  {row.largest_score:13.4f}"
        for row in rows
    ]
    return "\n".join(lines)


def _score_held_out(out: Path, fold: int) -> FoldRow:
    run = load_run(out)
    held_out = [row for row in run.split if row.role == "calibration"]
    with run_scorer(out) as scorer:
        samples = [Sample(row.path, "train") for row in held_out]
        scores = [one.score for one in score_samples(scorer, samples, f"fold {fold}")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(
        (str(row.path), row.sha256, repr(score))
        for row, score in zip(held_out, scores, strict=True)
    )
    write_atomically(out / SCORES_FILE, buffer.getvalue().encode("utf-8"))
    return FoldRow(
        fold=fold,
        folder=out,
        n_fit=len(run.split) - len(held_out),
        n_held_out=len(held_out),
        median_score=statistics.median(scores),
        largest_score=max(scores),
    )
