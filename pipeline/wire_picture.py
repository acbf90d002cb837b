"""Pictures on the wire: what the camera saw, shrunk and as JPEG, for people to look at.

A picture is no measurement: nothing is ever decided from it. The archive keeps the full image.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .topics import Topic
from .wire_messages import PictureFields, PictureHeader
from .wire_record import DecodeError


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A compressed picture of one result, ready to be sent."""

    camera: str
    seq: int
    """Of its result."""
    captured_ns: int
    jpeg: bytes
    height: int
    width: int
    scale_to_image: tuple[float, float]
    """(sx, sy): x_image = sx * x."""


@dataclass(frozen=True, slots=True)
class PictureMessage:
    """A decoded `pic`; `jpeg` are the bytes of a JPEG file, not yet looked into."""

    topic: Topic
    header: PictureHeader
    jpeg: bytes

    def pixels(self) -> NDArray[np.uint8]:
        """uint8 (h, w, 3) RGB. Raises DecodeError for bytes that are not the picture described."""
        return decode_jpeg(self.jpeg, self.header.blobs[0])


def encode_jpeg(
    pixels: NDArray[np.uint8], max_side_px: int, quality: int
) -> tuple[bytes, tuple[int, int], tuple[float, float]]:
    """(JPEG file, (height, width), (sx, sy)) of uint8 (h, w, 3) RGB, shrunk to `max_side_px`.

    Never enlarged. OpenCV, because it lets the line's threads run meanwhile: Pillow holds the
    interpreter while it compresses into memory, 2 ms for 640 x 640 pixels.
    """
    height, width = pixels.shape[0], pixels.shape[1]
    factor = max_side_px / max(height, width)
    small: Any = pixels
    if factor < 1.0:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    done, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done, "OpenCV compresses every uint8 RGB image"
    shown_height, shown_width = small.shape[:2]
    scale = (width / shown_width, height / shown_height)
    return jpeg.tobytes(), (shown_height, shown_width), scale


def decode_jpeg(jpeg: bytes, described: PictureFields) -> NDArray[np.uint8]:
    """uint8 (h, w, 3) RGB. Raises DecodeError; the size is checked before any pixel is decoded."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            size = image.size
            if size == (described.w, described.h):
                return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DecodeError(f"the picture is not a JPEG: {error}") from None
    raise DecodeError(
        f"a picture of {size[0]} x {size[1]} pixels was described as {described.w} x {described.h}"
    )


def check_picture(header: PictureHeader, blobs: Sequence[bytes]) -> bytes:
    """The one blob. Raises DecodeError unless it came with the size its description says."""
    if len(blobs) != 1:
        raise DecodeError(f"one picture is described, {len(blobs)} came")
    described = header.blobs[0]
    if len(blobs[0]) != described.bytes:
        raise DecodeError(f"the picture has {len(blobs[0])} bytes, not {described.bytes}")
    if not all(math.isfinite(scale) and scale > 0 for scale in described.scale_to_image):
        raise DecodeError("the picture's scale is not a positive number")
    return bytes(blobs[0])
