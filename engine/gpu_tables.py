"""The constant tables the CUDA kernels read, computed once on the host in float64 or integers.

Geometry is data, not code: another image size, blur or contract changes tables and never a kernel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from .preprocess import normalisation_table
from .resize_band import SparseRows
from .score_map import resampling_matrix
from .spec import InputSpec, ScoreContract

TILE = 32
"""Output pixels per block and side in anomaly_map.cu."""
MAX_SPAN = 40
"""Level pixels a tile may reach over per side in anomaly_map.cu (its shared memory)."""


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


def half_table(spec: InputSpec) -> NDArray[np.float16]:
    """(3, 256) fp16: the float32 table of engine/preprocess.py, rounded once."""
    return np.ascontiguousarray(normalisation_table(spec.mean, spec.std).astype(np.float16))
