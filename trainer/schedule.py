"""What happens at which step: learning rate, averaging and the images of a batch.

Everything is a function of the step number and the seed, so a resumed run needs no hidden state.
"""

from __future__ import annotations

from math import ceil, cos, pi

import numpy as np
from numpy.typing import NDArray


def steps_per_epoch(n_images: int, batch: int) -> int:
    """Full batches that show every image at least once."""
    return ceil(n_images / batch)


def learning_rate(
    step: int, total_steps: int, warmup_steps: int, peak: float, final_share: float
) -> float:
    """Linear warm-up from peak/warmup_steps, then half a cosine down to final_share * peak.

    RD4AD's 5e-3 with beta1 = 0.5 is hot: without the warm-up the first steps, and without the
    decay the last ones, show spikes of the loss.
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    return peak * (final_share + (1.0 - final_share) * 0.5 * (1.0 + cos(pi * min(1.0, progress))))


def averaging_decay(step: int, decay: float) -> float:
    """The weight of the old average at `step` (0-based): min(decay, (1 + t) / (10 + t)).

    The average thus spans about the last tenth of a short run, and 1/(1 - decay) steps of a long
    one; with a fixed 0.999 a run of 130 steps would still be mostly its random initialisation.
    """
    return min(decay, (1.0 + step) / (10.0 + step))


def batch_indices(step: int, n_images: int, batch: int, seed: int) -> NDArray[np.int64]:
    """The images of `step`, int64 (batch,): pieces of an endless row of shuffled passes.

    Every batch is full (a tail of one image would set a tenth of the batch statistics used for
    scoring), and every image is used equally often; fewer images than `batch` repeat.
    """
    positions = np.arange(step * batch, (step + 1) * batch)
    passes = positions // n_images
    indices = np.empty(batch, np.int64)
    for number in np.unique(passes):
        order = np.random.default_rng([seed, 1, int(number)]).permutation(n_images)
        here = passes == number
        indices[here] = order[positions[here] % n_images]
    return indices


def even_chunks(n_images: int, batch: int) -> list[NDArray[np.int64]]:
    """0..n-1 in order, in pieces of nearly one size, none larger than 1.5 batches."""
    return np.array_split(np.arange(n_images, dtype=np.int64), max(1, round(n_images / batch)))
