"""Anomaly map and score in numpy float64: the reference every fast path is compared with.

RD4AD blurs a sum of bilinear upsamplings. Both steps are linear and separable, so
blur(sum_l up(A_l)) = sum_l R_l A_l R_l^T with R_l = Gaussian x bilinear, computed once per size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from ..errors import PlanError
from .spec import ScoreContract

Float64 = NDArray[np.float64]

TINY = 1e-12
"""Below this norm a feature vector counts as zero (the features of real images are about 1)."""


def check_contract(contract: ScoreContract) -> None:
    """Raise PlanError when the numbers of `contract` do not describe a map and a score."""
    if not (isfinite(contract.sigma_px) and contract.sigma_px > 0 and contract.radius_px >= 0):
        raise PlanError(
            f"score contract: sigma {contract.sigma_px} px and radius {contract.radius_px} px"
            " are not a Gaussian"
        )
    if contract.score == "top-mean" and not 0 < contract.top_fraction <= 1:
        raise PlanError(
            f"score contract: top_fraction {contract.top_fraction} is not in (0, 1]",
            'use score "max", or a top_fraction such as 0.001',
        )


@lru_cache(maxsize=64)
def resampling_matrix(level_size: int, out_size: int, contract: ScoreContract) -> Float64:
    """R_l: float64 (out_size, level_size), Gaussian blur after bilinear upsampling. Read-only.

    Rows sum to one. Bilinear with align_corners=True as torch.nn.functional.interpolate; Gaussian
    normalised over 2 * radius + 1 taps with half-sample symmetric borders, as
    scipy.ndimage.gaussian_filter(mode="reflect").
    """
    matrix = _gaussian(out_size, contract.sigma_px, contract.radius_px) @ _bilinear(
        level_size, out_size
    )
    matrix.setflags(write=False)
    return matrix


def cosine_distance(teacher: NDArray[np.generic], student: NDArray[np.generic]) -> Float64:
    """1 - cosine over channels: (n, c, h, w) and the same -> (n, h, w).

    Where both vectors have zero norm the distance is 0 (they agree), where one has it is 1.
    A pixel whose features are not finite gives NaN, which `combine` turns into +inf.
    """
    a, b = np.asarray(teacher, np.float64), np.asarray(student, np.float64)
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"expected two (n, c, h, w) of one shape, got {a.shape} and {b.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        norm_a, norm_b = np.sqrt(np.sum(a * a, axis=1)), np.sqrt(np.sum(b * b, axis=1))
        # np.maximum keeps NaN, so a poisoned pixel stays NaN.
        cosine = np.sum(a * b, axis=1) / (np.maximum(norm_a, TINY) * np.maximum(norm_b, TINY))
        return np.where((norm_a <= TINY) & (norm_b <= TINY), 0.0, 1.0 - cosine)


def combine(
    distances: Sequence[NDArray[np.generic]], contract: ScoreContract, size: tuple[int, int]
) -> Float64:
    """Sum over levels of R A R^T: each (n, h_l, w_l) -> (n, H, W) with size (H, W).

    Non-finite distances make their whole map +inf: such a part must be rejected, never passed.
    """
    height, width = size
    total = np.zeros((distances[0].shape[0], height, width))
    with np.errstate(invalid="ignore"):
        for distance in distances:
            level = np.asarray(distance, np.float64)
            rows = resampling_matrix(level.shape[1], height, contract)
            columns = resampling_matrix(level.shape[2], width, contract)
            total += rows @ level @ columns.T
            total[~np.isfinite(level).all(axis=(1, 2))] = np.inf
    total[np.isnan(total)] = np.inf
    return total


def top_count(contract: ScoreContract, n_pixels: int) -> int:
    """How many of the largest pixels the score averages: 1 for "max"."""
    if contract.score == "max":
        return 1
    return min(n_pixels, max(1, round(contract.top_fraction * n_pixels)))


def image_score(maps: NDArray[np.generic], contract: ScoreContract) -> Float64:
    """(n, H, W) -> (n,): the largest pixel, or the mean of the largest ones. NaN gives +inf."""
    flat = np.asarray(maps, np.float64).reshape(len(maps), -1)
    count = top_count(contract, flat.shape[1])
    poisoned = np.isnan(flat).any(axis=1)
    if count == 1:
        scores = flat.max(axis=1)
    else:
        scores = np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1)
    return np.where(poisoned, np.inf, scores)


def _bilinear(level_size: int, out_size: int) -> Float64:
    """Upsampling with align_corners=True: the first and last samples coincide."""
    matrix = np.zeros((out_size, level_size))
    if level_size == 1:
        matrix[:, 0] = 1.0
        return matrix
    position = np.arange(out_size) * ((level_size - 1) / max(out_size - 1, 1))
    left = np.minimum(position.astype(np.int64), level_size - 2)
    weight = position - left
    rows = np.arange(out_size)
    matrix[rows, left] = 1.0 - weight
    matrix[rows, left + 1] += weight
    return matrix


def _gaussian(size: int, sigma_px: float, radius_px: int) -> Float64:
    """The blur as a matrix; taps beyond the edge are mirrored at it: (c b a | a b c)."""
    taps = np.arange(-radius_px, radius_px + 1)
    weights = np.exp(-0.5 * (taps / sigma_px) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((size, size))
    for row in range(size):
        folded = (row + taps) % (2 * size)
        columns = np.where(folded >= size, 2 * size - 1 - folded, folded)
        np.add.at(matrix[row], columns, weights)
    return matrix
