"""Banded matrices, and those of Pillow's antialiased bilinear resize, as both kernels read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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


def pillow_band(source_size: int, out_size: int) -> SparseRows:
    """Pillow's antialiased bilinear resize of one axis as 22-bit integers (Resample.c).

    A triangle filter, widened by the scale when shrinking, normalised per output pixel in float64.
    """
    scale = source_size / out_size
    support = max(scale, 1.0)
    centre = (np.arange(out_size) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + support + 0.5).astype(np.int64), source_size)
    columns = first[:, None] + np.arange(int((stop - first).max()))
    offsets = (columns - centre[:, None] + 0.5) * (1.0 / support)
    triangle = np.maximum(1.0 - np.abs(offsets), 0.0) * (columns < stop[:, None])
    # Pillow adds the taps from left to right; np.sum would add them in pairs.
    total = np.cumsum(triangle, axis=1)[:, -1:]
    weights = (triangle / total * (1 << WEIGHT_BITS) + 0.5).astype(np.int32)
    return SparseRows(first.astype(np.int32), np.where(columns < stop[:, None], weights, 0))
