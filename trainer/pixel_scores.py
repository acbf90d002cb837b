"""Collects score maps and masks one image at a time, in bounded memory, without losing exactness.

Scores of defect pixels stay in memory (they are few). Scores of all other pixels are kept as
sorted chunks, in memory up to a limit and in an unnamed temporary file beyond it, and are counted
into a `Ranking` at the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .aupro import region_weights
from .ranking import Ranking, rank

CHUNK_VALUES = 1 << 22
DEFAULT_MEMORY_BYTES = 512 << 20


class PixelScores:
    """Scores of every pixel of a test set, split by the masks.

    Maps are kept in the dtype that they come in (float32 from the engines, float64 if given so;
    the first map decides), so nothing is rounded. NaN counts as +inf, as in the score contract.
    """

    def __init__(self, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._defect: list[NDArray[np.floating]] = []
        self._weights: list[NDArray[np.float64]] = []
        self._chunks: list[NDArray[np.floating]] = []
        self._spill: IO[bytes] | None = None
        self._spilled: list[int] = []
        self._open: NDArray[np.floating] | None = None
        self._filled = 0
        self.n_images = 0

    def add(self, scores: NDArray[np.floating], mask: NDArray[np.bool_] | None) -> None:
        """Add one map (h, w) with its mask, bool (h, w); None means that nothing is defective."""
        if mask is not None and mask.shape != scores.shape:
            raise ValueError(f"mask {mask.shape} and map {scores.shape} differ in shape")
        if self._open is None:
            self._open = np.empty(CHUNK_VALUES, scores.dtype)
        clean = scores.astype(self._open.dtype, copy=False)
        if np.isnan(clean).any():
            clean = np.where(np.isnan(clean), np.asarray(np.inf, clean.dtype), clean)
        if mask is None or not mask.any():
            self._add_normal(clean.ravel())
        else:
            self._defect.append(clean[mask])
            self._weights.append(region_weights(mask))
            self._add_normal(clean[~mask])
        self.n_images += 1

    def ranking(self) -> Ranking:
        """All pixels added so far, with the PRO weights of the defect pixels."""
        return ranking_of(self)

    def close(self) -> None:
        """Drop the temporary file, if there is one."""
        if self._spill is not None:
            self._spill.close()

    def _add_normal(self, values: NDArray[np.floating]) -> None:
        assert self._open is not None
        start = 0
        while start < len(values):
            count = min(len(values) - start, CHUNK_VALUES - self._filled)
            self._open[self._filled : self._filled + count] = values[start : start + count]
            self._filled += count
            start += count
            if self._filled == CHUNK_VALUES:
                self._store(np.sort(self._open))
                self._filled = 0

    def _store(self, chunk: NDArray[np.floating]) -> None:
        held = sum(kept.nbytes for kept in self._chunks)
        if held + chunk.nbytes <= self._memory_bytes:
            self._chunks.append(chunk)
            return
        if self._spill is None:
            self._spill = tempfile.TemporaryFile(prefix="skrd4ad-maps-")  # noqa: SIM115
        self._spill.seek(0, 2)
        self._spilled.append(self._spill.tell())
        chunk.tofile(self._spill)

    def _sorted_chunks(self) -> Iterator[NDArray[np.floating]]:
        yield from self._chunks
        if self._spill is not None and self._open is not None:
            self._spill.flush()
            for offset in self._spilled:
                self._spill.seek(offset)
                yield np.fromfile(self._spill, self._open.dtype, CHUNK_VALUES)
        if self._open is not None:
            yield np.sort(self._open[: self._filled])


def ranking_of(*parts: PixelScores) -> Ranking:
    """The ranking of several collections together, e.g. good images and one defect type."""
    empty = np.empty(0, np.float32)
    scores = np.concatenate([empty, *(values for part in parts for values in part._defect)])
    weights = np.concatenate([empty, *(values for part in parts for values in part._weights)])
    chunks = (chunk for part in parts for chunk in part._sorted_chunks())
    return rank(scores, chunks, weights.astype(np.float64))
