"""Yield by the minute, and the scores of many thousand parts as a few hundred points. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..topics import VERDICTS
from .part_log import JudgedParts

_MINUTE_NS = 60_000_000_000


def yield_by_minute(parts: JudgedParts, minutes: int = 60) -> list[dict[str, int]]:
    """Counts of each verdict for the last `minutes` that saw a part, oldest first.

    `t` is the beginning of the minute in Unix seconds. Minutes without parts are left out.
    """
    if not len(parts):
        return []
    minute = parts.t_ns // _MINUTE_NS
    found = np.unique(minute)[-minutes:]
    place = np.searchsorted(found, minute)
    inside = minute >= found[0]
    table = np.zeros((found.size, len(VERDICTS)), np.int64)
    np.add.at(table, (place[inside], parts.verdict[inside]), 1)
    return [
        {"t": int(when) * 60, **dict(zip(VERDICTS, row.tolist(), strict=True))}
        for when, row in zip(found, table, strict=True)
    ]


def score_history(parts: JudgedParts, points: int = 240) -> list[dict[str, Any]]:
    """At most `points` groups of equally many parts in a row, oldest first.

    Each has its first and last time (Unix seconds), how many parts, how many of them were not ok,
    the median, highest and lowest score, the threshold at its end, and the median and slowest
    latency in ms. A group without a finite score has null ones.
    """
    groups = np.array_split(np.arange(len(parts)), min(points, max(len(parts), 1)))
    return [_group(parts, index) for index in groups if index.size]


def _group(parts: JudgedParts, index: Any) -> dict[str, Any]:
    scores = parts.score[index]
    scores = scores[np.isfinite(scores)]
    threshold = float(parts.threshold[index[-1]])
    latency = parts.latency_ms[index]
    return {
        "t0": int(parts.t_ns[index[0]]) / 1e9,
        "t1": int(parts.t_ns[index[-1]]) / 1e9,
        "n": int(index.size),
        "not_ok": int(np.count_nonzero(parts.verdict[index])),
        "median": float(np.median(scores)) if scores.size else None,
        "max": float(scores.max()) if scores.size else None,
        "min": float(scores.min()) if scores.size else None,
        "thr": threshold if np.isfinite(threshold) else None,
        "ms": float(np.median(latency)),
        "ms_max": float(latency.max()),
    }
