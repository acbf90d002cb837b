"""Score a labelled test set with a run or a plan: table, metrics JSON and a self-contained report.

Image labels come from folder names, never from masks. A plan is judged at the threshold stored in
it; a run at a conformal threshold computed from its own held-out normal images.
"""

from __future__ import annotations

import argparse
import json
import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from ..engine.atomic import write_atomically
from ..engine.spec import Threshold
from ..errors import ConfigError
from .aggregate import aggregate, aggregate_json, aggregate_text
from .checkpoint import LOG, read_run_split, write_metrics
from .datasets import find_dataset
from .evaluation import Evaluation, evaluate_scored
from .evaluation_json import scorer_json, to_json
from .evaluation_table import text_table
from .mask_rule import MASK_RULES, MaskRule
from .report import report_html, seeds_html
from .samples import Dataset, Sample
from .scorer import Scorer, plan_scorer, run_scorer, score_samples

logger = logging.getLogger(__name__)

FALSE_REJECT_RATE = 0.01
Figures = dict[str, Any]
NOT_LEARNED = {
    "random": "random: the teacher was never trained, figures say nothing about the method",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `skrd4ad evaluate`."""
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        help="run folder; several (seeds) for mean and deviation; beside --plan its log",
    )
    parser.add_argument("--plan", type=Path, help="plan file: the product path")
    parser.add_argument("--data", type=Path, required=True, help="data set or category folder")
    parser.add_argument("--category", help="category below --data")
    parser.add_argument("--report", type=Path, help="write a self-contained HTML report here")
    parser.add_argument("--json", type=Path, help="write figures and all image scores here")
    parser.add_argument(
        "--mask-rule", choices=MASK_RULES, default="half", help="how masks are reduced to maps"
    )
    parser.add_argument(
        "--false-reject-rate",
        type=float,
        default=FALSE_REJECT_RATE,
        help="target of the threshold computed for a run; a plan has its own",
    )
    parser.add_argument("--backend", default="auto", help="backend that runs the plan")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and write what was asked for."""
    runs: list[Path] = arguments.run or []
    if not runs and arguments.plan is None:
        raise ConfigError("nothing to evaluate", "give --run DIR or --plan FILE")
    if len(runs) > 1 and arguments.plan:
        raise ConfigError("a plan goes with one run", "give one --run at a time")
    dataset = find_dataset(arguments.data, arguments.category)
    if not dataset.test:
        raise ConfigError(
            f"{dataset.root} has no test images", "evaluation needs test/good and test/<defect>"
        )
    for problem in dataset.problems:
        print(f"note: {problem}")
    targets: list[Path | None] = [*runs] or [None]
    judged = [_one(arguments, target, dataset) for target in targets]
    documents = [one.figures for one in judged]
    whole, seeds = documents[0], ""
    if len(documents) > 1:
        groups, notes = aggregate(documents)
        print("\n".join([aggregate_text(groups), *notes]))
        whole = {"runs": documents, "aggregate": aggregate_json(groups)}
        seeds = seeds_html(documents, groups)
    if arguments.report is not None:
        first = judged[0]
        text = report_html(
            first.evaluation, first.scorer, dataset, first.threshold, first.log, seeds
        )
        write_atomically(arguments.report, text.encode())
        print(f"report:  {arguments.report}")
    if arguments.json is not None:
        write_atomically(arguments.json, (json.dumps(whole, indent=2) + "\n").encode())
        print(f"figures: {arguments.json}")
    return 0


class Judged(NamedTuple):
    """One run or plan with everything that the report shows of it."""

    figures: Figures
    evaluation: Evaluation
    scorer: Scorer
    """Closed: only its descriptions are of use."""
    threshold: Threshold | None
    log: Path | None


def _one(arguments: argparse.Namespace, run_folder: Path | None, dataset: Dataset) -> Judged:
    """Score one run or the plan, print its table, store a run's figures with it."""
    with _scorer(arguments, run_folder) as scorer:
        announce(scorer)
        threshold = scorer.threshold
        if threshold is None and arguments.plan is None and run_folder is not None:
            threshold = _calibrated(scorer, run_folder, arguments.false_reject_rate)
        evaluation = evaluate_dataset(scorer, dataset, threshold, arguments.mask_rule)
    print(text_table(evaluation))
    head = {"dataset": dataset.name, "layout": dataset.layout, **scorer_json(scorer)}
    head["data_problems"] = list(dataset.problems)
    if run_folder is not None and arguments.plan is None:
        write_metrics(run_folder, "evaluation", {**head, **to_json(evaluation)})
    log = None if run_folder is None else run_folder / LOG
    known_log = log if log is not None and log.is_file() else None
    figures = {**head, **to_json(evaluation, with_scores=True)}
    return Judged(figures, evaluation, scorer, threshold, known_log)


def evaluate_dataset(
    scorer: Scorer, dataset: Dataset, threshold: Threshold | None, mask_rule: MaskRule
) -> Evaluation:
    """One pass over the test images of `dataset`."""
    return evaluate_scored(
        score_samples(scorer, dataset.test, f"testing {dataset.name}"),
        scorer.input,
        None if threshold is None else threshold.value,
        mask_rule,
    )


def announce(scorer: Scorer) -> None:
    """Say what is being judged, and when its teacher is not a learned one."""
    print(f"{scorer.name}: {scorer.description}")
    warning = NOT_LEARNED.get(scorer.teacher.kind)
    print(f"teacher {warning or f'{scorer.teacher.kind}: {scorer.teacher.detail}'}")


def _scorer(arguments: argparse.Namespace, run: Path | None) -> AbstractContextManager[Scorer]:
    if arguments.plan is not None:
        return plan_scorer(arguments.plan, arguments.backend)
    assert run is not None
    return run_scorer(run)


def _calibrated(scorer: Scorer, run_folder: Path, false_reject_rate: float) -> Threshold | None:
    """The conformal threshold of the run's held-out normals, scored by the same scorer."""
    # Imported here: the only use of calibration, and only for runs.
    from ..calibration.threshold import conformal_threshold

    paths = [row.path for row in read_run_split(run_folder) if row.role == "calibration"]
    if not paths:
        logger.warning("%s held no images out: there is no threshold to judge by", run_folder)
        return None
    samples = [Sample(path, "train") for path in paths]
    scores = [item.score for item in score_samples(scorer, samples, "calibrating")]
    return conformal_threshold(scores, false_reject_rate, source=f"{len(paths)} held-out images")
