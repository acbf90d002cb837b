"""Maps on the wire: one byte per pixel at a fixed scale, so that a value means the same each time.

value = raw * scale, with scale = 2 * threshold / 255: the threshold lies at mid scale (127.5), all
above twice the threshold saturates at 255. Half a step, 0.4 % of the threshold, is the error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .topics import Topic
from .wire_messages import BlobFields, MapHeader
from .wire_record import DecodeError

FULL_SCALE_WITHOUT_THRESHOLD = 6.0
"""The largest sum of three cosine distances: used when the threshold is not a positive number."""


@dataclass(frozen=True, slots=True)
class MapMessage:
    """A decoded `map`; `blobs[i]` are the bytes that `header.blobs[i]` describes."""

    topic: Topic
    header: MapHeader
    blobs: tuple[bytes, ...]

    def raw(self, index: int = 0) -> NDArray[np.uint8]:
        """uint8 (h, w), read-only, as sent."""
        blob = self.header.blobs[index]
        return np.frombuffer(self.blobs[index], dtype=np.uint8).reshape(blob.h, blob.w)

    def values(self, index: int = 0) -> NDArray[np.float32]:
        """float32 (h, w) on the scale of the score and the threshold."""
        blob = self.header.blobs[index]
        scaled = self.raw(index).astype(np.float64) * blob.scale + blob.offset
        return scaled.astype(np.float32)


def quantise(values: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.uint8], float]:
    """(uint8 map, scale) of a float32 (h, w) map. NaN and +inf become 255, -inf becomes 0."""
    usable = math.isfinite(threshold) and threshold > 0
    scale = (2.0 * threshold if usable else FULL_SCALE_WITHOUT_THRESHOLD) / 255.0
    with np.errstate(over="ignore"):
        steps = np.clip(np.nan_to_num(values / np.float32(scale), nan=255.0), 0.0, 255.0)
    return np.rint(steps).astype(np.uint8), scale


def check_blobs(described: Sequence[BlobFields], blobs: Sequence[bytes]) -> None:
    """Raise DecodeError unless every blob came and has the size its description says."""
    if len(described) != len(blobs):
        raise DecodeError(f"{len(described)} blobs are described, {len(blobs)} came")
    for blob, raw in zip(described, blobs, strict=True):
        if not blob.h * blob.w == blob.bytes == len(raw):
            raise DecodeError(f"blob {blob.name[:40]!r} has {len(raw)} bytes, not h * w")
