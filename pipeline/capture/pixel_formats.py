"""Pixel formats of GenICam cameras, as uint8 RGB: grey, RGB and BGR, Bayer, YUV; 8 to 16 bit.

The names are those of the GenICam Pixel Format Naming Convention. More than 8 bits are cut to the
upper 8: the network was trained on 8. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import CameraError

Kind = Literal["mono", "rgb", "bgr", "bayer", "yuyv", "uyvy"]
_BAYER = {
    "RG": cv2.COLOR_BayerRGGB2RGB,
    "GR": cv2.COLOR_BayerGRBG2RGB,
    "GB": cv2.COLOR_BayerGBRG2RGB,
    "BG": cv2.COLOR_BayerBGGR2RGB,
}
"""GenICam's name (the first two pixels of the first row) to OpenCV's conversion."""
_YUV = {"YUV422_8": "yuyv", "YUV422_8_UYVY": "uyvy", "YCbCr422_8": "yuyv"}
KNOWN = "Mono8, Mono10/12/14/16, BayerXX8/10/12/16, RGB8, BGR8, YUV422_8, packed Mono/Bayer 10p/12p"


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """A parsed name. `bits` is the depth of a sample, `packed` that samples share bytes."""

    name: str
    kind: Kind
    bits: int
    bayer: str = ""
    packed: bool = False


def parse_format(name: str) -> PixelFormat:
    """Raises CameraError for a format that is not understood."""
    if name in _YUV:
        return PixelFormat(name, "yuyv" if _YUV[name] == "yuyv" else "uyvy", 8)
    if name in ("RGB8", "RGB8Packed", "BGR8", "BGR8Packed"):
        return PixelFormat(name, "rgb" if name.startswith("RGB") else "bgr", 8)
    match = re.fullmatch(r"(Mono|Bayer(RG|GR|GB|BG))(8|10|12|14|16)(p?)", name)
    if match is None or (match[4] and match[3] not in ("10", "12")):
        raise CameraError(f"the pixel format {name} is not understood", f"understood are {KNOWN}")
    kind: Kind = "mono" if match[1] == "Mono" else "bayer"
    return PixelFormat(name, kind, int(match[3]), match[2] or "", bool(match[4]))


def is_known(name: str) -> bool:
    """Whether `to_rgb_image` can convert the format."""
    try:
        parse_format(name)
    except CameraError:
        return False
    return True


def to_rgb_image(data: bytes | memoryview, width: int, height: int, name: str) -> NDArray[np.uint8]:
    """(height, width, 3) RGB, a fresh array. Rows may be padded at their ends (`data` is longer).

    Raises CameraError when the format is unknown or `data` too short for the image.
    """
    form = parse_format(name)
    samples = _samples(data, form, width, height)
    if form.kind == "rgb":
        return np.array(samples, dtype=np.uint8)
    if form.kind == "bgr":
        code = cv2.COLOR_BGR2RGB
    elif form.kind == "mono":
        code = cv2.COLOR_GRAY2RGB
    elif form.kind == "bayer":
        code = _BAYER[form.bayer]
    else:
        code = cv2.COLOR_YUV2RGB_YUY2 if form.kind == "yuyv" else cv2.COLOR_YUV2RGB_UYVY
    return np.asarray(cv2.cvtColor(samples, code), dtype=np.uint8)


def _samples(
    data: bytes | memoryview, form: PixelFormat, width: int, height: int
) -> NDArray[np.uint8]:
    """(height, width[, channels]) uint8."""
    raw: NDArray[np.uint8] = np.frombuffer(data, np.uint8)
    channels = {"rgb": 3, "bgr": 3, "yuyv": 2, "uyvy": 2}.get(form.kind, 1)
    bits = form.bits if form.packed or form.bits == 8 else 16
    row_bytes = (width * channels * bits + 7) // 8
    if form.packed and width * form.bits % 8:
        raise CameraError(
            f"the width {width} does not fill whole bytes in {form.name}", "use a multiple of 8"
        )
    if width < 1 or height < 1 or len(raw) < row_bytes * height:
        raise CameraError(
            f"a {width} x {height} image in {form.name} needs {row_bytes * height} bytes, the "
            f"camera sent {len(raw)}"
        )
    # Some cameras pad each row; an image followed by other data (chunks) has no such pattern.
    padded = len(raw) // height if len(raw) % height == 0 else row_bytes
    stride = padded if row_bytes <= padded < row_bytes + 64 else row_bytes
    rows = raw[: stride * height].reshape(height, stride)[:, :row_bytes]
    if form.packed:
        return _upper_bits(rows, form.bits, width)
    if form.bits > 8:
        words = np.ascontiguousarray(rows).view("<u2")
        return np.asarray(np.right_shift(words, form.bits - 8), dtype=np.uint8)
    shaped = rows.reshape(height, width, channels) if channels > 1 else rows
    return np.ascontiguousarray(shaped)


def _upper_bits(rows: NDArray[np.uint8], bits: int, width: int) -> NDArray[np.uint8]:
    """The upper 8 of each `bits`-bit sample; samples lie one after the other, lowest bit first."""
    height = rows.shape[0]
    wide = np.pad(rows, ((0, 0), (0, 1))).astype(np.uint16)
    first_bit = np.arange(width) * bits + (bits - 8)
    byte, shift = first_bit // 8, (first_bit % 8).astype(np.uint16)
    pairs = wide[:, byte] | (wide[:, byte + 1] << np.uint16(8))
    upper = np.asarray(np.right_shift(pairs, shift), dtype=np.uint8)
    return np.ascontiguousarray(upper.reshape(height, width))
