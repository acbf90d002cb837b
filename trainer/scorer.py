"""Images in, maps and scores out, from a run folder (torch reference) or a plan (product path)."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.images import read_rgb
from ..engine.preprocess import to_network_input
from ..engine.spec import InputSpec, NetworkSpec, RunOrigin, ScoreContract, TeacherOrigin, Threshold
from ..errors import ConfigError, DataError, MissingExtra
from .samples import Sample

logger = logging.getLogger(__name__)

RUN_BATCH = 8
LINE_EVERY_S = 10.0
Infer = Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Scorer:
    """Anything that turns float32 (n, 3, H, W), n <= batch, into maps (n, H, W) and scores (n,)."""

    infer: Infer
    batch: int
    name: str
    description: str
    input: InputSpec
    score: ScoreContract
    network: NetworkSpec
    teacher: TeacherOrigin
    origin: RunOrigin
    threshold: Threshold | None
    """The one stored in the plan; a run has none of its own."""


@dataclass(frozen=True)
class Scored:
    """One image with its map float32 (H, W) and score; not finite means uninspected."""

    sample: Sample
    map: NDArray[np.float32]
    score: float
    image_size: tuple[int, int]
    """Height and width of the image file, before any region of interest."""


@contextmanager
def plan_scorer(path: Path, backend: str = "auto") -> Iterator[Scorer]:
    """The plan's own engine: exactly the path that a part on the line takes."""
    from ..engine.backends.base import BACKEND_CHOICES, open_engine
    from ..engine.plan import load_plan

    choice = next((known for known in BACKEND_CHOICES if known == backend), None)
    if choice is None:
        raise ConfigError(f"there is no backend '{backend}'", f"one of {BACKEND_CHOICES}")
    with open_engine(load_plan(path), choice) as engine:
        manifest = engine.manifest
        yield Scorer(
            infer=engine.infer,
            batch=manifest.batch,
            name=manifest.name,
            description=f"plan {path.name}, {engine.description}",
            input=manifest.input,
            score=manifest.score,
            network=manifest.network,
            teacher=manifest.teacher,
            origin=manifest.run,
            threshold=manifest.threshold,
        )


@contextmanager
def run_scorer(folder: Path) -> Iterator[Scorer]:
    """The torch reference with the run's exported weights, on a GPU when there is one."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "train", "evaluating a run folder") from error
    from .checkpoint import load_run
    from .map_head import Inspector

    run = load_run(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    inspector = Inspector(run.network, run.input, run.score).eval().to(device)

    def infer(batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            maps, scores = inspector(torch.from_numpy(batch).to(device))
        return maps.cpu().numpy(), scores.cpu().numpy()

    yield Scorer(
        infer=infer,
        batch=RUN_BATCH,
        name=run.origin.name,
        description=f"run folder {folder}, torch {torch.__version__} fp32 on {device}",
        input=run.input,
        score=run.score,
        network=run.spec,
        teacher=run.teacher,
        origin=run.origin,
        threshold=None,
    )


def score_samples(
    scorer: Scorer, samples: Sequence[Sample], label: str = "scoring"
) -> Iterator[Scored]:
    """Score `samples` in order, a batch at a time. Raises DataError naming an unusable file."""
    batches = [samples[at : at + scorer.batch] for at in range(0, len(samples), scorer.batch)]
    for batch in show_progress(batches, label):
        pictures = [read_rgb(sample.path) for sample in batch]
        inputs = [_network_input(p, s, scorer.input) for p, s in zip(pictures, batch, strict=True)]
        maps, scores = scorer.infer(np.stack(inputs))
        for index, sample in enumerate(batch):
            height, width = pictures[index].shape[:2]
            yield Scored(sample, maps[index], float(scores[index]), (height, width))


def show_progress(batches: Sequence[Sequence[Sample]], label: str) -> Iterable[Sequence[Sample]]:
    """A bar on a terminal; elsewhere a log line every ten seconds."""
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            logger.debug("tqdm is not installed: progress as lines")
        else:
            bar: Iterable[Sequence[Sample]] = tqdm(batches, desc=label, unit="batch")
            return bar
    return _progress_lines(batches, label)


def _progress_lines(batches: Sequence[Sequence[Sample]], label: str) -> Iterator[Sequence[Sample]]:
    total, done, said = sum(map(len, batches)), 0, time.monotonic()
    for batch in batches:
        yield batch
        done += len(batch)
        if time.monotonic() - said >= LINE_EVERY_S:
            said = time.monotonic()
            logger.info("%s %d/%d images", label, done, total)


def _network_input(
    pixels: NDArray[np.uint8], sample: Sample, spec: InputSpec
) -> NDArray[np.float32]:
    try:
        return to_network_input(pixels, spec)
    except ConfigError as error:
        raise DataError(f"{sample.path}: {error.sentence}", error.hint) from error
