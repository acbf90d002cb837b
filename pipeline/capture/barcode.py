"""A clock that is seen by the camera: time and number as black and white cells in the image.

Whoever reads a frame later, through any camera, encoder and network, learns how old it truly is,
and sees repeats and gaps. 80 cells of 16 pixels (large enough to survive H.264), read by their
middles: 40 bits of milliseconds, 24 of a counter, 16 of a checksum. Pure.
"""

from __future__ import annotations

import binascii

import numpy as np
from numpy.typing import NDArray

CELL_PX = 16
COLUMNS, ROWS = 16, 5
WIDTH_PX, HEIGHT_PX = COLUMNS * CELL_PX, ROWS * CELL_PX
"""What the code covers, from the image's upper left corner."""
_TIME_BITS, _COUNTER_BITS = 40, 24
_MIDDLE = slice(CELL_PX // 4, -CELL_PX // 4)


def draw(pixels: NDArray[np.uint8], time_ms: int, counter: int) -> None:
    """Into `pixels` (height, width[, 3]) of at least WIDTH_PX x HEIGHT_PX, in place.

    Time and counter are taken modulo 2**40 (34 years) and 2**24. Raises ValueError when too small.
    """
    if pixels.shape[0] < HEIGHT_PX or pixels.shape[1] < WIDTH_PX:
        raise ValueError(f"the code needs {WIDTH_PX} x {HEIGHT_PX} pixels")
    message = _message(time_ms, counter)
    bits = np.unpackbits(np.frombuffer(message + _checksum(message), np.uint8))
    cells = np.where(bits, 235, 16).astype(np.uint8).reshape(ROWS, COLUMNS)
    code = np.kron(cells, np.ones((CELL_PX, CELL_PX), np.uint8))
    area = pixels[:HEIGHT_PX, :WIDTH_PX]
    area[...] = code if pixels.ndim == 2 else code[..., None]


def read(pixels: NDArray[np.uint8]) -> tuple[int, int] | None:
    """(time_ms, counter) of an image that was drawn on; None when there is no whole code."""
    if pixels.shape[0] < HEIGHT_PX or pixels.shape[1] < WIDTH_PX:
        return None
    area = pixels[:HEIGHT_PX, :WIDTH_PX]
    grey = area if area.ndim == 2 else area.mean(axis=2)
    cells = grey.reshape(ROWS, CELL_PX, COLUMNS, CELL_PX)[:, _MIDDLE, :, _MIDDLE]
    data = np.packbits(cells.mean(axis=(1, 3)).reshape(-1) > 127).tobytes()
    message, checksum = data[:-2], data[-2:]
    if _checksum(message) != checksum:
        return None
    value = int.from_bytes(message, "big")
    return value >> _COUNTER_BITS, value & ((1 << _COUNTER_BITS) - 1)


def _message(time_ms: int, counter: int) -> bytes:
    time_part, count = time_ms % (1 << _TIME_BITS), counter % (1 << _COUNTER_BITS)
    return (time_part << _COUNTER_BITS | count).to_bytes((_TIME_BITS + _COUNTER_BITS) // 8, "big")


def _checksum(message: bytes) -> bytes:
    # Starting at 0xFFFF, an all-black image is no code.
    return binascii.crc_hqx(message, 0xFFFF).to_bytes(2, "big")
