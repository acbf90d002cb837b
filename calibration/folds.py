"""Scores of a cross-fitted training: every good part, by a network that did not learn it.

`skrd4ad train --folds K` trains K networks in OUT/fold1 ... OUT/foldK; their held-out parts are
disjoint and together are all good parts. Each fold's `held_out_scores.csv` has the scores of its
own parts by its own network. Pooled, they are scores of new parts under networks trained in one way
(cross-conformal prediction, Vovk 2015): many more than one split's, which is what small sets lack.
The networks differ, so the guarantee of one split's quantile becomes an approximation here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.backends.base import Engine
from ..engine.plan import Plan
from ..errors import CalibrationError, DataError
from .scoring import Split, bare_hex, file_sha256, read_split, score_images

SCORES_FILE = "held_out_scores.csv"
COLUMNS = ("path", "sha256", "score")
LARGEST_DIFFERENCE = 1e-3
"""Of a plan's scores of its own fold from the ones stored there, beyond the plan's tolerance."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold: its run folder, and the score of each of its held-out images."""

    run: Path
    split: Split
    scores: dict[Path, float]


@dataclass(frozen=True, slots=True)
class Folds:
    """All folds of one training."""

    folder: Path
    folds: tuple[Fold, ...]

    @property
    def source(self) -> str:
        n = sum(len(fold.scores) for fold in self.folds)
        return f"{n} good parts of {len(self.folds)} folds in {self.folder.resolve().name}"


def read_folds(folder: Path) -> Folds:
    """Read and check what `train --folds` wrote.

    Raises DataError for missing or malformed files, CalibrationError when the folds do not belong
    together: a part held out twice or never, or one that its own network learned.
    """
    runs = sorted(path for path in folder.glob("fold*") if (path / "split.csv").is_file())
    if len(runs) < 2:
        raise DataError(
            f"{folder} holds {len(runs)} finished folds; at least 2 are needed",
            "skrd4ad train --folds K --out DIR makes them",
        )
    splits = [read_split(run) for run in runs]
    folds = tuple(
        Fold(run, split, _read_scores(run, split)) for run, split in zip(runs, splits, strict=True)
    )
    held_out: dict[str, Path] = {}
    for fold in folds:
        for path, sha256 in fold.split.calibration.items():
            if sha256 in held_out:
                raise CalibrationError(
                    f"{path} and {held_out[sha256]} are the same image, held out twice",
                    "these folds are not of one training, or the data holds an image twice",
                )
            held_out[sha256] = path
    for fold in folds:
        own = set(fold.split.calibration.values())
        if fold.split.fit_hashes != set(held_out) - own:
            raise CalibrationError(
                f"{fold.run} did not learn from exactly the parts that the other folds held out",
                "these folds are not of one training; train them again",
            )
    return Folds(folder, folds)


def pooled_scores(folds: Folds, plan: Plan, engine: Engine) -> NDArray[np.float64]:
    """Scores (n,) of all good parts. The plan must be of one of the folds.

    That fold's parts are scored by the plan itself, and must come out as stored: this is the check
    that the stored scores are of networks like the plan's. Raises CalibrationError otherwise.
    """
    wanted = bare_hex(plan.manifest.run.split_sha256)
    mine = [fold for fold in folds.folds if file_sha256(fold.run / "split.csv") == wanted]
    if len(mine) != 1:
        raise CalibrationError(
            f"{plan.path} was not compiled from one of the folds in {folds.folder}",
            f"skrd4ad compile --run {folds.folds[0].run} --out F.plan makes such a plan",
        )
    own = mine[0]
    paths = sorted(own.scores)
    scores = score_images(paths, engine)
    difference = float(np.max(np.abs(scores - [own.scores[path] for path in paths])))
    tolerance = LARGEST_DIFFERENCE + max(one.score_tolerance for one in plan.manifest.proof.parity)
    if not difference <= tolerance:
        raise CalibrationError(
            f"the plan scores parts of its own fold up to {difference:.3g} differently from "
            f"{own.run / SCORES_FILE} (at most {tolerance:.3g} is allowed)",
            "the images have changed, or the plan is of other weights; compile it again",
        )
    others = [score for fold in folds.folds if fold is not own for score in fold.scores.values()]
    return np.concatenate([scores, np.array(others, np.float64)])


def _read_scores(run: Path, split: Split) -> dict[Path, float]:
    """The score of each held-out image; exactly those of the split, by name and content."""
    source = run / SCORES_FILE
    try:
        with source.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DataError(f"{source} does not begin with {','.join(COLUMNS)}")
            rows = list(reader)
        found = {run / row["path"]: float(row["score"]) for row in rows}
        hashes = {run / row["path"]: bare_hex(row["sha256"]) for row in rows}
    except (OSError, csv.Error, ValueError, TypeError, AttributeError) as error:
        # A line that was cut off has None for what is missing.
        raise DataError(
            f"{source} cannot be read: {error}", "skrd4ad train --folds writes it"
        ) from error
    if hashes != split.calibration:
        raise CalibrationError(
            f"{source} and its split.csv name different images", "train the folds again"
        )
    return found
