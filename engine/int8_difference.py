"""What int8 changes, measured before a plan is written: maps, scores, and above all verdicts.

Each precision is judged as the product would use it: with a threshold of its own, taken from the
same held-out good parts by the same rule. Every second one sets the threshold; the others, and
labelled images where there are some, are judged by both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .backends.onnxruntime_cpu import open_session
from .export import INPUT, OUTPUTS
from .images import read_rgb
from .preprocess import to_network_input
from .spec import InputSpec, Quantisation
from .threads import machine_threads

MIN_GOOD = 8
"""Held-out good parts that are needed at the least: half of them set the threshold."""
MAX_RANGE_IMAGES = 32
SCORE_LIMIT = 0.1
"""Largest change of a score, as a share of the float32 threshold, that is accepted."""
TOLERANCE_FACTOR = 1.5
"""Another CPU rounds some sums to the neighbouring step; its maps may be this much further off."""
_SPEED_RUNS = 5


@dataclass(frozen=True, slots=True, eq=False)
class JudgedImages:
    """The pictures that int8 is made from and judged by."""

    spec: InputSpec
    fitted: Sequence[Path]
    """Good parts that were learned from: they fix the ranges of the activations."""
    held_out: Sequence[Path]
    """Good parts that training did not see."""
    labelled: Sequence[tuple[Path, bool]] = ()
    """Further images and whether they are defective."""

    def check(self) -> None:
        """Raise EngineError when there are too few pictures for int8."""
        if not self.fitted:
            raise EngineError(
                "the run names no images that it was fitted on, so int8 has no ranges",
                "train again, or use --precision fp32",
            )
        if len(self.held_out) < MIN_GOOD:
            raise EngineError(
                f"int8 needs {MIN_GOOD} good parts that training did not see to judge it by; the"
                f" run holds out {len(self.held_out)}",
                "train with more images, or use --precision fp32",
            )

    @property
    def range_inputs(self) -> NDArray[np.float32]:
        """float32 (n, 3, H, W) of at most MAX_RANGE_IMAGES fitted parts, evenly spread."""
        count = min(len(self.fitted), MAX_RANGE_IMAGES)
        chosen = [self.fitted[index * len(self.fitted) // count] for index in range(count)]
        return np.stack([to_network_input(read_rgb(path), self.spec) for path in chosen])


def measure_difference(
    float32: bytes, int8: bytes, check_inputs: NDArray[np.float32], images: JudgedImages
) -> Quantisation:
    """Run both graphs (map form) on the same pictures. Raises DataError for an unreadable one."""
    pair = _Pair(float32, int8)
    # The extremes count as well: patched copies, whose maps reach further than any good part's.
    pair.scores(iter(check_inputs))
    good = pair.scores(_read(images.held_out, images.spec))
    labelled = pair.scores(_read([path for path, _ in images.labelled], images.spec))
    defective = np.array([label for _, label in images.labelled], bool)

    thresholds = good[:, ::2].max(axis=1)
    judged = np.concatenate([good[:, 1::2], labelled], axis=1)
    rejected = judged > thresholds[:, None]
    areas = [_auroc(scores, defective, spare) for scores, spare in zip(labelled, good, strict=True)]
    return Quantisation(
        range_images=min(len(images.fitted), MAX_RANGE_IMAGES),
        threshold_images=good[:, ::2].shape[1],
        judged_good=int(judged.shape[1] - defective.sum()),
        judged_defective=int(defective.sum()),
        map_max_abs=pair.map_max_abs,
        score_max_abs=pair.score_max_abs,
        verdict_flips=int(np.count_nonzero(rejected[0] != rejected[1])),
        float32_threshold=float(thresholds[0]),
        int8_threshold=float(thresholds[1]),
        float32_auroc=areas[0],
        int8_auroc=areas[1],
        speed_ratio=pair.speed_ratio(check_inputs),
    )


def refuse_if_changed(found: Quantisation) -> None:
    """Raise EngineError when a verdict flips, or a score moves so far that one surely would."""
    judged = found.judged_good + found.judged_defective
    limit = SCORE_LIMIT * found.float32_threshold
    moved = f"scores move by up to {found.score_max_abs:.2g}, the map by {found.map_max_abs:.2g}"
    if found.verdict_flips:
        raise EngineError(
            f"int8 changes {found.verdict_flips} of {judged} verdicts ({moved}), so the plan was"
            " not written",
            "use --precision fp32",
        )
    if not found.score_max_abs <= limit:
        raise EngineError(
            f"int8 changes this network too much: {moved}; a tenth of the threshold is {limit:.2g}",
            "use --precision fp32",
        )


def tolerances(found: Quantisation) -> tuple[float, float]:
    """(map, score) tolerances against float32 that the plan is held to from now on."""
    return TOLERANCE_FACTOR * found.map_max_abs, TOLERANCE_FACTOR * found.score_max_abs


class _Pair:
    """Both sessions, and the largest differences seen so far."""

    def __init__(self, float32: bytes, int8: bytes) -> None:
        self._sessions = [open_session(model, machine_threads()) for model in (float32, int8)]
        self._batch = int(self._sessions[0].get_inputs()[0].shape[0])
        self.map_max_abs = self.score_max_abs = 0.0

    def scores(self, pictures: Iterator[NDArray[np.float32]]) -> NDArray[np.float64]:
        """(2, n): the scores of float32 and of int8 for each picture (3, H, W)."""
        found = [np.zeros((2, 0))]
        for batch, count in self._batches(pictures):
            results = [session.run(OUTPUTS["map"], {INPUT: batch}) for session in self._sessions]
            maps = np.stack([result[0][:count] for result in results])
            scores = np.stack([result[1][:count] for result in results])
            self.map_max_abs = max(self.map_max_abs, _max_abs(maps))
            self.score_max_abs = max(self.score_max_abs, _max_abs(scores))
            found.append(scores.astype(np.float64))
        return np.concatenate(found, axis=1)

    def speed_ratio(self, inputs: NDArray[np.float32]) -> float:
        """Median time of float32 over that of int8; they take turns."""
        batch = np.resize(inputs, (self._batch, *inputs.shape[1:]))
        samples: list[list[float]] = [[], []]
        for _ in range(_SPEED_RUNS):
            for session, taken in zip(self._sessions, samples, strict=True):
                start = time.perf_counter()
                session.run(None, {INPUT: batch})
                taken.append(time.perf_counter() - start)
        return float(np.median(samples[0]) / np.median(samples[1]))

    def _batches(
        self, pictures: Iterator[NDArray[np.float32]]
    ) -> Iterator[tuple[NDArray[np.float32], int]]:
        """Batches of the graph's size, the last one filled up, and how many are real."""
        pending: list[NDArray[np.float32]] = []
        for picture in pictures:
            pending.append(picture)
            if len(pending) == self._batch:
                yield np.stack(pending), self._batch
                pending = []
        if pending:
            yield np.resize(np.stack(pending), (self._batch, *pending[0].shape)), len(pending)


def _read(paths: Sequence[Path], spec: InputSpec) -> Iterator[NDArray[np.float32]]:
    return (to_network_input(read_rgb(path), spec) for path in paths)


def _max_abs(pair: NDArray[np.float32]) -> float:
    """Largest difference of the two; a NaN counts as infinite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(pair[1].astype(np.float64) - pair[0])
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


def _auroc(
    labelled: NDArray[np.float64], defective: NDArray[np.bool_], held_out: NDArray[np.float64]
) -> float | None:
    """Image AUROC of the defective labelled images against every good one; ties count half."""
    bad, good = labelled[defective], np.concatenate([labelled[~defective], held_out])
    if not bad.size:
        return None
    wins = (bad[:, None] > good).sum() + 0.5 * (bad[:, None] == good).sum()
    return float(wins / (bad.size * good.size))
