"""A live camera that repeats one image is broken, and looks perfectly healthy while it is.

Sensor noise makes two real images differ; the same bytes again and again mean a hung sensor,
driver or encoder, and every verdict on them would be about a part that has long gone.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

_STEP_PX = 8


def fingerprint(pixels: NDArray[np.uint8]) -> int:
    """A checksum over every 8th pixel of every 8th row: cheap, and noise changes it."""
    return zlib.crc32(pixels[::_STEP_PX, ::_STEP_PX].tobytes())


class FrozenCheck:
    """Counts equal images in a row; `limit` 0 turns it off."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last: int | None = None
        self.repeats = 0

    def is_frozen(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether this image is the `limit`-th equal one after the first, or a later one.

        Not forgotten when the camera is opened again: a camera that comes back with the same
        image is frozen still.
        """
        if not self._limit:
            return False
        mark = fingerprint(pixels)
        self.repeats = self.repeats + 1 if mark == self._last else 0
        self._last = mark
        return self.repeats >= self._limit
