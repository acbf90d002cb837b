"""Image files in and out: one definition of what a file's pixels are, for trainer, line and tests.

Pixels are taken as stored: an EXIF orientation is not applied, an alpha channel is dropped, and
16-bit values keep their upper byte (a fixed shift, so that one part's exposure never rescales it).
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from .atomic import write_atomically

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Lower-case suffixes of the files that count as images when a folder is searched."""

MIN_SIDE_PX = 16

_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)


def read_rgb(path: Path | str) -> NDArray[np.uint8]:
    """The image file as uint8 RGB, shape (height, width, 3), C-contiguous and writable.

    Raises DataError, naming the file, when it is missing, unreadable, truncated, of a pixel format
    without a fixed conversion to 8 bits, or smaller than 16 pixels on a side.
    """
    try:
        with warnings.catch_warnings():
            # A picture large enough for Pillow's warning is refused, not decoded with a remark.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                pixels = _to_rgb(image, path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "check the path") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path} is too large an image: {error}") from error
    except _UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as an image: {_reason(error)}",
            "the file may be truncated or of another type; open it in a viewer, then replace it",
        ) from error
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE_PX:
        raise DataError(
            f"{path} is {width} x {height} pixels; at least {MIN_SIDE_PX} x {MIN_SIDE_PX} needed"
        )
    return pixels


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 pixels, (height, width, 3) RGB or (height, width) grey, as a PNG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def write_png(path: Path | str, rgb: NDArray[np.uint8]) -> None:
    """Write uint8 pixels, (height, width, 3) RGB or (height, width) grey, as PNG, atomically."""
    write_atomically(Path(path), png_bytes(rgb))


def _to_rgb(image: Image.Image, path: Path | str) -> NDArray[np.uint8]:
    mode = image.mode
    if mode == "I" or mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise DataError(
                f"{path} has values outside 0 ... 65535",
                "save it with 8 or 16 bits a channel",
            )
        grey = (values >> 8).astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[:, :, None], 3, axis=2))
    if mode == "F":
        raise DataError(
            f"{path} has floating-point pixels, which have no fixed conversion to 8 bits",
            "save it with 8 or 16 bits a channel",
        )
    return np.array(image.convert("RGB"), dtype=np.uint8, order="C")


def _reason(error: BaseException) -> str:
    text = str(error).split("\n")[0].strip()
    return text or type(error).__name__
