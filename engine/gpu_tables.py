"""The constant tables the CUDA kernels read, computed once on the host in float64 or integers.

Geometry is data, not code: another image size, blur or contract changes tables and never a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .preprocess import normalisation_table
from .score_map import resampling_matrix
from .spec import InputSpec, ScoreContract

TILE = 32
"""Output pixels per block and side in anomaly_map.cu."""
MAX_SPAN = 40
"""Level pixels a tile may reach over per side in anomaly_map.cu (its shared memory)."""
WEIGHT_BITS = 22
"""Pillow's fixed-point resize: 32 bits, less 8 for the pixel and 2 for overshoot."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """A banded matrix: row i is `weights[i]` at columns `first[i]`, `first[i] + 1`, ..."""

    first: NDArray[np.int32]
    """(rows,), never decreasing."""
    weights: NDArray[np.float32] | NDArray[np.int32]
    """(rows, taps), C-contiguous."""

    @property
    def taps(self) -> int:
        return int(self.weights.shape[1])


def map_band(level_size: int, out_size: int, contract: ScoreContract) -> SparseRows:
    """R_l of engine/score_map.py as float32 bands; every tap lies inside the level.

    Raises EngineError when one output tile reaches over more level pixels than the kernel holds.
    """
    matrix = resampling_matrix(level_size, out_size, contract)
    used = [np.flatnonzero(row) for row in matrix]
    taps = max(int(columns[-1] - columns[0]) + 1 for columns in used)
    first = np.array([min(int(columns[0]), level_size - taps) for columns in used], np.int32)
    weights = np.stack([row[at : at + taps] for row, at in zip(matrix, first, strict=True)])
    starts = first[::TILE]
    ends = first[TILE - 1 :: TILE] + taps
    span = int((ends - starts).max())
    if span > MAX_SPAN or bool((np.diff(first) < 0).any()):
        raise EngineError(
            f"score contract: a blur of radius {contract.radius_px} px makes a {TILE}-pixel tile"
            f" reach over {span} of {level_size} level pixels; the CUDA kernel holds {MAX_SPAN}",
            "use a smaller radius_px, or the onnxruntime backend",
        )
    return SparseRows(first, np.ascontiguousarray(weights, np.float32))


def pillow_band(source_size: int, out_size: int) -> SparseRows:
    """Pillow's antialiased bilinear resize of one axis as 22-bit integers (Resample.c).

    A triangle filter, widened by the scale when shrinking, normalised per output pixel in float64.
    """
    scale = source_size / out_size
    support = max(scale, 1.0)
    first, rows = np.empty(out_size, np.int32), []
    for index in range(out_size):
        centre = (index + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        stop = min(int(centre + support + 0.5), source_size)
        offsets = (np.arange(start, stop) - centre + 0.5) * (1.0 / support)
        triangle = np.maximum(1.0 - np.abs(offsets), 0.0)
        # Pillow adds the taps from left to right; np.sum would add them in pairs.
        total = np.cumsum(triangle)[-1]
        rows.append((triangle / total * (1 << WEIGHT_BITS) + 0.5).astype(np.int32))
        first[index] = start
    weights = np.zeros((out_size, max(map(len, rows))), np.int32)
    for index, row in enumerate(rows):
        weights[index, : len(row)] = row
    return SparseRows(first, weights)


def half_table(spec: InputSpec) -> NDArray[np.float16]:
    """(3, 256) fp16: the float32 table of engine/preprocess.py, rounded once."""
    return np.ascontiguousarray(normalisation_table(spec.mean, spec.std).astype(np.float16))
