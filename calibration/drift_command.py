"""Have scores, brightness or sharpness moved since the calibration? Exit code 5 when they have.

Compares a folder of recent pictures of the line, most of them good parts, with the plan's score
quantiles and with the calibration's own pictures. Nothing is changed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..engine.backends.base import BACKEND_CHOICES, open_engine
from ..engine.images import read_rgb
from ..engine.plan import load_plan
from ..errors import CalibrationError
from .drift import brightness, drift, image_baseline, sharpness
from .golden_command import calibrated
from .scoring import images_in, score_images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, required=True, help="the plan the line runs")
    parser.add_argument("--recent", type=Path, required=True, help="30 or more recent pictures")
    parser.add_argument(
        "--baseline", type=Path, required=True, help="the pictures the plan was calibrated on"
    )
    parser.add_argument("--backend", default="auto", choices=BACKEND_CHOICES, help="what scores")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measure, compare, report; raise CalibrationError when something drifted."""
    plan = load_plan(arguments.plan)
    threshold = calibrated(plan)
    recent = images_in(arguments.recent)
    baseline = image_baseline([measure(path) for path in images_in(arguments.baseline)])
    with open_engine(plan, arguments.backend) as engine:
        scores = score_images(recent, engine)
    found = drift(
        [float(score) for score in scores],
        [measure(path) for path in recent],
        threshold,
        baseline,
    )
    if arguments.json:
        print(json.dumps({**asdict(found), "baseline_brightness": baseline.brightness}))
    else:
        median = threshold.score_quantiles[3]
        print(f"{arguments.plan}: {found.n_parts} recent parts against the calibration")
        print(f"  {'median score':14} {found.score_median:<10.4g} was {median:.4g}")
        print(f"  {'brightness':14} {found.brightness:<10.4g} was {baseline.brightness:.4g}")
        print(f"  {'sharpness':14} {found.sharpness:<10.4g} was {baseline.sharpness:.4g}")
    if found.alarms:
        raise CalibrationError(
            "the line has drifted: " + "; ".join(alarm.text for alarm in found.alarms),
            "check light, lens, focus and fixture; calibrate again once they are right",
        )
    return 0


def measure(path: Path) -> tuple[float, float]:
    """(brightness, sharpness) of one picture file."""
    pixels = read_rgb(path)
    return brightness(pixels), sharpness(pixels)
