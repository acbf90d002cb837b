"""GenICam pixel formats to RGB: each against a picture that was put into the format by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skrd4ad.errors import CameraError
from skrd4ad.pipeline.capture.pixel_formats import is_known, to_rgb_image

CORNERS = {"RG": (0, 1, 1, 2), "GR": (1, 0, 2, 1), "GB": (1, 2, 0, 1), "BG": (2, 1, 1, 0)}
"""Which colour (R 0, G 1, B 2) the pixels (0,0), (0,1), (1,0), (1,1) of a mosaic show."""


def flat(red: int, green: int, blue: int, height: int = 8, width: int = 16) -> np.ndarray:
    return np.tile(np.array([red, green, blue], np.uint8), (height, width, 1))


def mosaic(rgb: np.ndarray, order: str) -> np.ndarray:
    grey = np.empty(rgb.shape[:2], np.uint8)
    for index, channel in enumerate(CORNERS[order]):
        row, column = divmod(index, 2)
        grey[row::2, column::2] = rgb[row::2, column::2, channel]
    return grey


def packed(values: np.ndarray, bits: int) -> bytes:
    """Samples one after the other, lowest bit first, each row filling whole bytes."""
    lines = []
    for row in values:
        stream = sum(int(value) << (bits * index) for index, value in enumerate(row))
        lines.append(stream.to_bytes(len(row) * bits // 8, "little"))
    return b"".join(lines)


@pytest.mark.parametrize("order", sorted(CORNERS))
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_bayer_mosaics_keep_their_colours(order: str, bits: int) -> None:
    image = flat(200, 100, 20)
    grey = mosaic(image, order)
    data = grey.tobytes() if bits == 8 else (grey.astype("<u2") << (bits - 8)).tobytes()
    assert np.array_equal(to_rgb_image(data, 16, 8, f"Bayer{order}{bits}"), image)


def test_rgb_bgr_and_yuv_have_red_first() -> None:
    image = flat(200, 100, 20)
    assert np.array_equal(to_rgb_image(image.tobytes(), 16, 8, "RGB8"), image)
    assert np.array_equal(to_rgb_image(image[..., ::-1].tobytes(), 16, 8, "BGR8"), image)
    red_yuv = np.tile(np.array([82, 90, 82, 240], np.uint8), 8 * 8).tobytes()
    red, green, blue = to_rgb_image(red_yuv, 16, 8, "YUV422_8")[0, 0]
    assert red > 230 > 30 > max(green, blue)


@settings(max_examples=60)
@given(hnp.arrays(np.uint16, (6, 16)), st.sampled_from([10, 12, 14, 16]))
def test_more_than_eight_bits_keep_the_upper_eight(values: np.ndarray, bits: int) -> None:
    values = values >> (16 - bits)
    upper = np.repeat((values >> (bits - 8)).astype(np.uint8)[..., None], 3, axis=2)
    data = values.astype("<u2").tobytes()
    assert np.array_equal(to_rgb_image(data, 16, 6, f"Mono{bits}"), upper)
    if bits in (10, 12):
        assert np.array_equal(to_rgb_image(packed(values, bits), 16, 6, f"Mono{bits}p"), upper)


@pytest.mark.parametrize("padding", [0, 3, 8])
def test_padded_rows(padding: int) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    data = np.pad(grey, ((0, 0), (0, padding))).tobytes()
    assert np.array_equal(to_rgb_image(data, 8, 6, "Mono8")[..., 1], grey)


def test_what_cannot_be_converted_is_said() -> None:
    assert not is_known("Confidence8")
    with pytest.raises(CameraError, match="Mono10Packed is not understood"):
        to_rgb_image(b"", 4, 4, "Mono10Packed")
    with pytest.raises(CameraError, match="needs 16 bytes, the camera sent 15"):
        to_rgb_image(bytes(15), 4, 4, "Mono8")
    with pytest.raises(CameraError, match="width 3 does not fill whole bytes"):
        to_rgb_image(bytes(1000), 3, 4, "Mono10p")
