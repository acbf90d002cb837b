"""The resize of engine/kernels/resize.c, where it was compiled when skrd4ad was installed.

The same bits as Pillow's in a third of the time. Without a C compiler at installation there is no
library, and engine/resize.py asks Pillow; `skrd4ad doctor` says which of the two runs.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .resize_band import pillow_band

_TYPES: dict[str, type[ctypes.c_void_p] | type[ctypes.c_int64]] = {
    "p": ctypes.c_void_p,
    "n": ctypes.c_int64,
}
VERSION = 1
"""Of the functions' parameters; `skrd4ad_resize_version` in the library says its own."""


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled functions, which run without the interpreter lock; None where there are none.

    A library of another version, left by an update that could not compile, is not used.
    """
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_resize{suffix}")
        if not path.is_file():
            continue
        try:
            found = ctypes.CDLL(str(path))
            version = ctypes.c_int.in_dll(found, "skrd4ad_resize_version").value
        except (OSError, ValueError):  # of another processor, or no library of ours
            continue
        if version == VERSION:
            found.skrd4ad_resize_across.argtypes = [_TYPES[letter] for letter in "pnnpnpppnpp"]
            found.skrd4ad_resize_down.argtypes = [_TYPES[letter] for letter in "pnpnpppnp"]
            found.skrd4ad_resize_across.restype = found.skrd4ad_resize_down.restype = None
            return found
    return None


def resize_natively(
    functions: ctypes.CDLL, pixels: NDArray[np.uint8], height: int, width: int
) -> NDArray[np.uint8]:
    """uint8 RGB (h, w, 3), C-contiguous -> (height, width, 3)."""
    from_height, from_width = pixels.shape[:2]
    across, down = _table(from_width, width), _table(from_height, height)
    between = np.empty((from_height, width, 3), np.uint8)
    resized = np.empty((height, width, 3), np.uint8)
    # A pixel is read and summed with its right neighbour's first channel.
    wide, sums = np.empty(3 * from_width + 1, np.int32), np.empty(3 * width + 1, np.int32)
    functions.skrd4ad_resize_across(
        *(pixels.ctypes.data, from_height, from_width, between.ctypes.data, width),
        *(*across.addresses, across.taps, wide.ctypes.data, sums.ctypes.data),
    )
    functions.skrd4ad_resize_down(
        *(between.ctypes.data, 3 * width, resized.ctypes.data, height),
        *(*down.addresses, down.taps, sums.ctypes.data),
    )
    return resized


class _Table:
    """The band of one axis as the functions read it."""

    def __init__(self, from_size: int, size: int) -> None:
        band = pillow_band(from_size, size)
        count = np.minimum(band.taps, from_size - band.first).astype(np.int32)
        self._kept = (band.first, count, band.weights)
        self.addresses = tuple(array.ctypes.data for array in self._kept)
        self.taps = band.taps


@lru_cache(maxsize=32)
def _table(from_size: int, size: int) -> _Table:
    return _Table(from_size, size)
