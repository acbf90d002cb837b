"""Reads a run's log.csv for its convergence curve."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from .charts import Axis, Line, line_chart

LOSS_WORDS = ("loss", "cosine", "skip", "reconstruction")


def read_log(path: Path) -> dict[str, list[float]]:
    """The numeric columns of log.csv by name; cells that are empty are NaN.

    Raises ConfigError when the file cannot be read. A column with words in it is left out.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "train again") from error
    columns: dict[str, list[float]] = {}
    for name in rows[0] if rows else ():
        try:
            columns[name] = [float(row[name] or "nan") for row in rows]
        except (TypeError, ValueError):
            continue
    return columns


def convergence_chart(columns: dict[str, list[float]]) -> str | None:
    """Loss terms over epochs on a logarithmic axis as SVG; None when the log has none."""
    names = [name for name in columns if any(word in name for word in LOSS_WORDS)]
    lines = []
    for name in names:
        y = np.array(columns[name])
        x = np.array(columns.get("epoch", range(1, len(y) + 1)), dtype=np.float64)
        kept = np.isfinite(y) & (y > 0)
        if kept.any():
            lines.append(Line(name, x[kept], y[kept]))
    if not lines:
        return None
    values = np.concatenate([line.y for line in lines])
    epochs = np.concatenate([line.x for line in lines])
    low, high = float(values.min()), float(values.max())
    y_axis = Axis("loss", low * 0.9, high * 1.1, log=True)
    last = float(max(epochs.max(), epochs.min() + 1))
    x_axis = Axis("epoch", float(epochs.min()), last, whole=True)
    return line_chart("Convergence", x_axis, y_axis, lines)
