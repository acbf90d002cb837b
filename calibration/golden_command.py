"""Start-of-shift check: golden good and bad parts must be judged as they are known to be.

Scores them through the plan; exit code 5 when any is judged wrongly. Nothing is changed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..engine.backends.base import BACKEND_CHOICES, open_engine
from ..engine.plan import Plan, load_plan
from ..engine.spec import Threshold
from ..errors import CalibrationError
from .drift import GoldenPart, golden_check
from .scoring import images_in, infer_images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, required=True, help="the plan the line runs")
    parser.add_argument("--good", type=Path, required=True, help="folder of golden good parts")
    parser.add_argument("--bad", type=Path, required=True, help="folder of golden bad parts")
    parser.add_argument("--backend", default="auto", choices=BACKEND_CHOICES, help="what scores")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Judge every golden part; raise CalibrationError when one is judged wrongly."""
    plan = load_plan(arguments.plan)
    threshold = calibrated(plan)
    good, bad = images_in(arguments.good), images_in(arguments.bad)
    with open_engine(plan, arguments.backend) as engine:
        parts = [
            GoldenPart(scored.path.name, is_defective, scored.score)
            for paths, is_defective in ((good, False), (bad, True))
            for scored in infer_images(paths, engine)
        ]
    alarms = golden_check(parts, threshold)
    if arguments.json:
        rows = [{"name": p.name, "bad": p.is_defective, "score": p.score} for p in parts]
        wrong = [alarm.text for alarm in alarms]
        print(json.dumps({"threshold": threshold.value, "parts": rows, "wrong": wrong}))
    else:
        print(f"{arguments.plan}: threshold {threshold.value:.6g}, revision {threshold.revision}")
        for part in parts:
            kind = "bad" if part.is_defective else "good"
            verdict = "ok" if part.score <= threshold.value else "ng"
            print(f"  {kind:4} {part.name:32} score {part.score:.6g}  {verdict}")
    if alarms:
        raise CalibrationError(
            f"{len(alarms)} of {len(parts)} golden parts are judged wrongly: {alarms[0].text}",
            "check light, focus and the part's place before the shift begins; then calibrate again",
        )
    return 0


def calibrated(plan: Plan) -> Threshold:
    """The plan's threshold. Raises CalibrationError when it has none yet."""
    threshold = plan.manifest.threshold
    if threshold is None:
        raise CalibrationError(
            f"{plan.path} has no threshold yet", "skrd4ad calibrate threshold stores one"
        )
    return threshold
