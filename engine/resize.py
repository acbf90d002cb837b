"""Pillow's antialiased bilinear resize in uint8, in a fixed order of its two passes.

Across first, then down, rounded to 8 bits between, as in the CUDA kernel. Each pass is asked for by
itself, because Pillow 13 begins with whichever pass is cheaper, and then single grey levels of
pictures that are much higher than wide differ from what earlier versions give.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .native_resize import library, resize_natively


def resize(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """uint8 RGB (h, w, 3) -> (height, width, 3). May return `pixels` when nothing is to be done."""
    if pixels.shape[:2] == (height, width):
        return pixels
    functions = library()
    if functions is None:
        return resize_by_pillow(pixels, height, width)
    return resize_natively(functions, np.ascontiguousarray(pixels), height, width)


def resize_by_pillow(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The definition: what `resize` gives on every machine."""
    bilinear = Image.Resampling.BILINEAR
    across = Image.fromarray(pixels).resize((width, pixels.shape[0]), bilinear)
    return np.asarray(across.resize((width, height), bilinear))
