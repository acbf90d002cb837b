"""How far an image figure could move with another draw of test images: a stratified bootstrap.

Good and defective images are resampled apart, each to its own number, so that every resample has
both classes. The percentile interval covers the choice of images, not of seeds, lots or light.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..calibration.intervals import Interval

RESAMPLES = 2000
Figure = Callable[[NDArray[np.bool_], NDArray[np.float64]], float]


def bootstrap_interval(
    labels: NDArray[np.bool_],
    scores: NDArray[np.float64],
    figure: Figure,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of `figure(labels, scores)`; the same for the same scores and seed.

    `labels` (n,) true for defective, `scores` (n,). NaN ends when a class has fewer than two
    images: one image resampled is always itself.
    """
    good, defective = scores[~labels], scores[labels]
    if min(len(good), len(defective)) < 2:
        return Interval(float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    every = np.concatenate([np.zeros(len(good), bool), np.ones(len(defective), bool)])
    values = [
        figure(
            every,
            np.concatenate(
                [
                    good[random.integers(0, len(good), len(good))],
                    defective[random.integers(0, len(defective), len(defective))],
                ]
            ),
        )
        for _ in range(RESAMPLES)
    ]
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Interval(float(low), float(high))
