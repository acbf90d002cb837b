"""Choose the threshold from held-out good images and store it in the plan.

--run takes the images that training set aside (role `calibration`); --images takes your own, and
together with --run refuses any of them that the network was fitted on. --folds takes all good
images of a cross-fitted training (`train --folds`), each scored by a network that did not learn it.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from ..engine.atomic import write_atomically
from ..engine.backends.base import BACKEND_CHOICES, open_engine
from ..engine.images import read_rgb
from ..engine.plan import Plan, load_plan, replace_threshold
from ..engine.spec import ImageBaseline, Threshold
from ..errors import CalibrationError, ConfigError, DataError
from .folds import pooled_scores, read_folds
from .look import baseline_of, look_at
from .scoring import check_held_out, file_sha256, images_in, read_split, score_images
from .threshold import (
    check_rate,
    conformal_threshold,
    escape_limit,
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
        "--folds", type=Path, metavar="DIR", help="what `train --folds` wrote; --plan is of a fold"
    )
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
        "--escape-rate",
        type=float,
        metavar="E",
        help="lower the threshold until at most this share of defects like --defects escapes",
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
    parser.add_argument(
        "--camera",
        default="",
        help="identity of the camera the images come from; a line with another camera refuses",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Score, choose, report, store. Nothing is written unless everything before it succeeded."""
    _check_options(arguments)
    plan = load_plan(arguments.plan)
    defects = _labelled_defects(arguments.defects) if arguments.defects else []
    scores, defect_scores, source = _scores(arguments, plan, defects)
    before = plan.manifest.threshold
    chosen = choose(arguments, scores, defect_scores, source, before.revision if before else 0)
    chosen = structs.replace(
        chosen, images=_image_baseline(arguments, plan), camera=arguments.camera
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


def choose(
    arguments: argparse.Namespace,
    scores: NDArray[np.float64],
    defect_scores: NDArray[np.float64],
    source: str,
    revision_before: int,
) -> Threshold:
    """By hand, conformal or cross-conformal; lowered where the defects ask for it."""
    stamp: dict[str, Any] = {
        "review_band": arguments.review_band,
        "revision": revision_before + 1,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": source,
    }
    rate = arguments.false_reject_rate
    if arguments.value is not None:
        return manual_threshold(arguments.value, scores, rate, **stamp)
    method: Literal["conformal", "cross-conformal"] = (
        "conformal" if arguments.folds is None else "cross-conformal"
    )
    chosen = conformal_threshold(scores, rate, method=method, **stamp)
    if arguments.escape_rate is None:
        return chosen
    limit = escape_limit(defect_scores, arguments.escape_rate)
    if chosen.value <= limit:
        return chosen
    return manual_threshold(limit, scores, rate, method="escape", **stamp)


def _check_options(arguments: argparse.Namespace) -> None:
    check_rate(arguments.false_reject_rate)
    review_limit(1.0, arguments.review_band)
    if arguments.escape_rate is not None:
        check_rate(arguments.escape_rate)
        if arguments.defects is None or arguments.value is not None:
            raise ConfigError(
                "--escape-rate needs --defects DIR and goes without --value",
                "the labelled defects are what bounds the rate",
            )
    if arguments.folds is not None and (arguments.run or arguments.images):
        raise ConfigError(
            "--folds brings its own images", "leave out --run and --images, or leave out --folds"
        )


def _labelled_defects(folder: Path) -> list[Path]:
    """Images below `folder`. Raises DataError where good parts lie among them (`test/good`)."""
    paths = images_in(folder)
    good = [path for path in paths if "good" in path.relative_to(folder).parts[:-1]]
    if good:
        raise DataError(
            f"--defects {folder} holds good parts too: {len(good)} of its {len(paths)} images, "
            f"such as {good[0].relative_to(folder)}",
            "name a folder of defects alone; good parts among them would lower the threshold",
        )
    return paths


def _scores(
    arguments: argparse.Namespace, plan: Plan, defects: list[Path]
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Scores of the good images and of the defects, and where the good ones came from."""
    by_hand = arguments.value is not None and arguments.run is None and arguments.images is None
    with open_engine(plan, arguments.backend) as engine:
        defect_scores = score_images(defects, engine)
        if arguments.folds is not None:
            folds = read_folds(arguments.folds)
            return pooled_scores(folds, plan, engine), defect_scores, folds.source
        if by_hand:
            return np.empty(0), defect_scores, "no images: a value chosen by hand"
        paths, source = held_out_images(arguments.run, arguments.images, plan)
        return score_images(paths, engine), defect_scores, source


def _image_baseline(arguments: argparse.Namespace, plan: Plan) -> ImageBaseline | None:
    """How the good images look, for drift; None for a threshold that came without images."""
    if arguments.folds is not None:
        paths = [path for fold in read_folds(arguments.folds).folds for path in fold.scores]
    elif arguments.run is not None or arguments.images is not None:
        paths, _ = held_out_images(arguments.run, arguments.images, plan)
    else:
        return None
    return baseline_of([look_at(read_rgb(path)) for path in paths])


def held_out_images(run: Path | None, images: Path | None, plan: Plan) -> tuple[list[Path], str]:
    """The images to calibrate on and a phrase saying where they came from.

    Raises ConfigError without a source, CalibrationError for too few images, images of the fit
    split or a run that is not the plan's.
    """
    if run is None and images is None:
        raise ConfigError(
            "calibrate threshold needs good images that training did not see",
            "give --run DIR (its calibration split), --images DIR or --folds DIR",
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
