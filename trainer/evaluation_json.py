"""An evaluation as plain JSON values: what metrics.json, `--json` and `reproduce` read."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from . import metrics
from .evaluation import Evaluation, PixelFigures
from .scorer import Scorer

METRICS_SCHEMA = "skrd4ad-metrics/1"


def to_json(evaluation: Evaluation, with_scores: bool = False) -> dict[str, Any]:
    """Plain values for metrics.json; NaN and infinity become null (JSON has neither)."""
    labels = evaluation.labels
    document: dict[str, Any] = {
        "schema": METRICS_SCHEMA,
        "n_good": int((~labels).sum()),
        "n_defective": int(labels.sum()),
        "mask_rule": evaluation.mask_rule,
        "image": {
            "auroc": _finite(evaluation.image_auroc),
            "auroc_low": _finite(evaluation.image_auroc_interval.low),
            "auroc_high": _finite(evaluation.image_auroc_interval.high),
            "ap": _finite(evaluation.image_ap),
        },
        "pixel": _pixel_json(evaluation.pixel),
        "deployed": _deployed_json(evaluation.deployed),
        "oracle": {
            "best_f1": _finite(evaluation.oracle_f1),
            "at_score": _finite(evaluation.oracle_f1_score),
        },
        "by_defect": [
            {
                "defect": row.defect,
                "group": row.group,
                "n_images": row.n_images,
                "image_auroc": _finite(row.image_auroc),
                "median_score": _finite(row.median_score),
                "escape": None if row.escape is None else _rate_json(row.escape),
                "pixel": _pixel_json(row.pixel),
            }
            for row in evaluation.by_defect
        ],
        "problems": list(evaluation.problems),
    }
    if with_scores:
        document["scores"] = [
            {"path": str(entry.path), "defect": entry.defect, "score": _finite(entry.score)}
            for entry in evaluation.scores
        ]
    return document


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def scorer_json(scorer: Scorer) -> dict[str, Any]:
    """What was judged: enough to tell two results apart."""
    return {
        "name": scorer.name,
        "scorer": scorer.description,
        "network": msgspec.to_builtins(scorer.network),
        "teacher": msgspec.to_builtins(scorer.teacher),
        "origin": msgspec.to_builtins(scorer.origin),
        "map_size": [scorer.input.height, scorer.input.width],
    }


def _rate_json(rate: metrics.Rate) -> dict[str, Any]:
    return {
        "count": rate.count,
        "total": rate.total,
        "rate": _finite(rate.rate),
        "low": _finite(rate.interval.low),
        "high": _finite(rate.interval.high),
    }


def _pixel_json(figures: PixelFigures | None) -> dict[str, Any] | None:
    if figures is None:
        return None
    return {name: _finite(value) for name, value in vars(figures).items()}


def _deployed_json(rates: metrics.DeployedRates | None) -> dict[str, Any] | None:
    if rates is None:
        return None
    return {
        "threshold": _finite(rates.threshold),
        "confidence": rates.confidence,
        "false_reject": _rate_json(rates.false_reject),
        "escape": _rate_json(rates.escape),
        "precision": _finite(rates.precision),
        "f1": _finite(rates.f1),
    }
