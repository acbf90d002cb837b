"""Choose the threshold from held-out good images and store it in the plan.

--run takes the images that training set aside (role `calibration`); --images takes your own, and
together with --run refuses any of them that the network was fitted on.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..engine.atomic import write_atomically
from ..engine.backends.base import BACKEND_CHOICES, open_engine
from ..engine.plan import Plan, load_plan, replace_threshold
from ..errors import CalibrationError, ConfigError
from .scoring import check_held_out, file_sha256, images_in, read_split, score_images
from .threshold import (
    check_rate,
    conformal_threshold,
    images_needed,
    manual_threshold,
    review_limit,
)
from .threshold_report import as_html, as_table, threshold_facts

MINIMUM_NORMALS = 10
"""Fewer good images are refused: the smallest attainable false-reject rate would exceed 9 %."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, required=True, help="the plan to store it in")
    parser.add_argument("--run", type=Path, help="run folder: its calibration images")
    parser.add_argument("--images", type=Path, help="folder of good images training did not see")
    parser.add_argument(
        "--false-reject-rate", type=float, default=0.01, help="target share of good parts rejected"
    )
    parser.add_argument(
        "--review-band", type=float, help="width of the review band, as a fraction of the threshold"
    )
    parser.add_argument("--value", type=float, help="a threshold chosen by hand instead")
    parser.add_argument(
        "--defects", type=Path, help="folder of labelled defects: reports how many would escape"
    )
    parser.add_argument(
        "--backend",
        default="auto",
        choices=BACKEND_CHOICES,
        help="what computes the scores",
    )
    parser.add_argument(
        "--report", type=Path, metavar="OUT.html", help="write a page with the scores' histogram"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Score, choose, report, store. Nothing is written unless everything before it succeeded."""
    check_rate(arguments.false_reject_rate)
    review_limit(1.0, arguments.review_band)
    plan = load_plan(arguments.plan)
    if arguments.value is not None and arguments.run is None and arguments.images is None:
        paths: list[Path] = []
        source = "no images: a value chosen by hand"
    else:
        paths, source = held_out_images(arguments.run, arguments.images, plan)
    defects = images_in(arguments.defects) if arguments.defects else []
    with open_engine(plan, arguments.backend) as engine:
        scores = score_images(paths, engine)
        defect_scores = score_images(defects, engine)
    before = plan.manifest.threshold
    stamp: dict[str, Any] = {
        "review_band": arguments.review_band,
        "revision": before.revision + 1 if before else 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": source,
    }
    rate = arguments.false_reject_rate
    chosen = (
        conformal_threshold(scores, rate, **stamp)
        if arguments.value is None
        else manual_threshold(arguments.value, scores, rate, **stamp)
    )
    facts = {
        "plan": str(arguments.plan),
        "digest": plan.digest,
        "previous": before.value if before else None,
        **threshold_facts(chosen, scores, defect_scores),
    }
    if load_plan(arguments.plan).digest != plan.digest:
        raise CalibrationError(
            f"{arguments.plan} was replaced while its images were scored; nothing was stored",
            "run the same command again",
        )
    if arguments.report is not None:
        page = as_html(facts, scores, defect_scores).encode("utf-8")
        write_atomically(arguments.report, page)
    replace_threshold(arguments.plan, chosen)
    print(json.dumps(facts) if arguments.json else as_table(facts))
    return 0


def held_out_images(run: Path | None, images: Path | None, plan: Plan) -> tuple[list[Path], str]:
    """The images to calibrate on and a phrase saying where they came from.

    Raises ConfigError without a source, CalibrationError for too few images, images of the fit
    split or a run that is not the plan's.
    """
    if run is None and images is None:
        raise ConfigError(
            "calibrate threshold needs good images that training did not see",
            "give --run DIR (its calibration split) or --images DIR",
        )
    paths: list[Path] = []
    source = ""
    if images is not None:
        paths, source = images_in(images), f"folder {images.resolve().name}"
    if run is not None:
        check_run_is_the_plans(run, plan)
        split = read_split(run)
        if images is None:
            paths = sorted(split.calibration)
            source = f"calibration images of run {run.resolve().name}"
        check_held_out(paths, split)
    if len(paths) < MINIMUM_NORMALS:
        raise CalibrationError(
            f"{len(paths)} good images are too few to calibrate on; at least {MINIMUM_NORMALS} "
            "are needed",
            f"a false-reject rate of 1 % needs {images_needed(0.01)} held-out images",
        )
    return paths, source


def check_run_is_the_plans(run: Path, plan: Plan) -> None:
    """Refuse a run folder whose split is not the one recorded in the plan."""
    origin = plan.manifest.run
    actual = file_sha256(run / "split.csv")
    if origin.split_sha256.removeprefix("sha256:").lower() != actual:
        raise CalibrationError(
            f"{run} is not the run that this plan was compiled from (run {origin.name}: the "
            "images were split differently)",
            "give that run, or held-out images with --images",
        )
