"""Try the guarantee on your own good images: repeated random splits, realised against promised.

Scores the images once through the plan, then splits them at random again and again: one half sets
the threshold, the other counts false rejects. The plan is not changed.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.backends.base import BACKEND_CHOICES, open_engine
from ..engine.plan import load_plan
from ..errors import CalibrationError, ConfigError
from .scoring import check_held_out, images_in, read_split, score_images
from .threshold import check_rate, conformal_rank, conformal_threshold, sorted_scores

CONFIDENCE = 0.95
MINIMUM_IMAGES = 20


@dataclass(frozen=True, slots=True)
class Coverage:
    """What repeated random splits of one set of normal scores showed."""

    n_calibration: int
    n_judged: int
    splits: int
    target: float
    promised_rate: float
    """The bound of the rule: (n + 1 - k)/(n + 1)."""
    realised_mean: float
    realised_standard_error: float
    """As if the splits were independent; they share images, so take it as a lower bound."""
    within_interval: float
    """Share of splits whose count of false rejects lies in the exact central 95 % interval."""


def coverage(
    scores: NDArray[np.float64], rate: float, splits: int, seed: int, share: float = 0.5
) -> Coverage:
    """Realised false-reject rates over random splits of `scores` (n,), deterministic in `seed`.

    `share` of the scores calibrates, the rest is judged. Raises CalibrationError for too few.
    """
    ordered = sorted_scores(scores)
    n = round(ordered.size * share)
    judged = ordered.size - n
    if ordered.size < MINIMUM_IMAGES or n < 1 or judged < 1:
        raise CalibrationError(
            f"{ordered.size} good images are too few to split; at least {MINIMUM_IMAGES} are needed"
        )
    rank = min(conformal_rank(n, rate), n)
    low, high = false_reject_count_interval(n, rank, judged, CONFIDENCE)
    generator = np.random.default_rng(seed)
    counts = np.empty(splits, np.int64)
    for split in range(splits):
        mixed = generator.permutation(ordered)
        value = conformal_threshold(mixed[:n], rate).value
        counts[split] = np.count_nonzero(mixed[n:] > value)
    realised = counts / judged
    return Coverage(
        n_calibration=n,
        n_judged=judged,
        splits=splits,
        target=rate,
        promised_rate=(n + 1 - rank) / (n + 1),
        realised_mean=float(realised.mean()),
        realised_standard_error=float(realised.std(ddof=1) / math.sqrt(splits)),
        within_interval=float(np.mean((low <= counts) & (counts <= high))),
    )


def false_reject_count_interval(
    n: int, rank: int, judged: int, confidence: float
) -> tuple[int, int]:
    """Smallest and largest plausible false rejects among `judged` parts (both inclusive).

    Without ties the count is beta-binomial(judged, n + 1 - rank, rank); each tail outside holds at
    most (1 - confidence)/2, so that the interval covers with at least `confidence`.
    """
    a, b = n + 1 - rank, rank
    log_mass = [
        math.lgamma(judged + 1)
        - math.lgamma(count + 1)
        - math.lgamma(judged - count + 1)
        + math.lgamma(count + a)
        + math.lgamma(judged - count + b)
        - math.lgamma(judged + a + b)
        + math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        for count in range(judged + 1)
    ]
    cumulative = np.cumsum(np.exp(log_mass))
    tail = (1.0 - confidence) / 2
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1.0 - tail, side="left"))
    return low, min(high, judged)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, required=True, help="the plan that scores the images")
    parser.add_argument("--run", type=Path, help="run folder: its calibration images")
    parser.add_argument(
        "--images", type=Path, nargs="*", default=[], help="folders of more held-out good images"
    )
    parser.add_argument(
        "--false-reject-rate", type=float, nargs="+", default=[0.01, 0.05, 0.1], help="targets"
    )
    parser.add_argument("--splits", type=int, default=200, help="how many random splits")
    parser.add_argument("--share", type=float, default=0.5, help="share of the images to calibrate")
    parser.add_argument("--seed", type=int, default=0, help="of the random splits")
    parser.add_argument("--backend", default="auto", choices=BACKEND_CHOICES, help="what scores")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Score every image once, then print one row for each target."""
    for rate in arguments.false_reject_rate:
        check_rate(rate)
    if arguments.splits < 2 or not 0 < arguments.share < 1:
        raise ConfigError("--splits must be at least 2 and --share between 0 and 1")
    plan = load_plan(arguments.plan)
    paths = [path for folder in arguments.images for path in images_in(folder)]
    if arguments.run is not None:
        split = read_split(arguments.run)
        paths = sorted(split.calibration) + paths
        check_held_out(paths, split)
    if not paths:
        raise ConfigError("there are no images to score", "give --run DIR or --images DIR")
    with open_engine(plan, arguments.backend) as engine:
        scores = score_images(paths, engine)
    rows = [
        coverage(scores, rate, arguments.splits, arguments.seed, arguments.share)
        for rate in arguments.false_reject_rate
    ]
    if arguments.json:
        print(json.dumps({"n_images": len(paths), "rows": [asdict(row) for row in rows]}))
        return 0
    print(
        f"{len(paths)} good images, {arguments.splits} random splits, "
        f"{rows[0].n_calibration} calibrate and {rows[0].n_judged} are judged"
    )
    print("  target  promised  realised mean (± se)   splits inside the exact 95 % interval")
    for row in rows:
        print(
            f"  {row.target:6.2%}  {row.promised_rate:8.2%}  {row.realised_mean:7.2%} ± "
            f"{row.realised_standard_error:.2%}        {row.within_interval:.1%}"
        )
    return 0
