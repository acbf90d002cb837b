"""The clock in the image: survives what cameras and encoders do to it, or is not read at all."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.errors import ConfigError
from skrd4ad.pipeline.capture import barcode
from skrd4ad.pipeline.capture.pattern import PatternSource


@settings(max_examples=60)
@given(
    st.integers(0, 2**40 - 1), st.integers(0, 2**24 - 1), st.integers(0, 2**32 - 1), st.booleans()
)
def test_noise_and_jpeg_do_not_change_what_is_read(
    time_ms: int, counter: int, seed: int, colour: bool
) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (120, 300, 3) if colour else (120, 300), np.uint8)
    barcode.draw(image, time_ms, counter)
    noisy = np.clip(image + random.normal(0, 25, image.shape), 0, 255).astype(np.uint8)
    ok, jpeg = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 50])
    assert ok
    assert barcode.read(cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED)) == (time_ms, counter)


@given(st.integers(0, 79))
def test_one_wrong_cell_is_no_reading(cell: int) -> None:
    image = np.zeros((80, 256), np.uint8)
    barcode.draw(image, 123_456, 7)
    row, column = divmod(cell, 16)
    area = image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
    area[...] = 255 - area
    assert barcode.read(image) is None


def test_an_image_without_the_code_has_no_reading() -> None:
    for level in (0, 128, 255):
        assert barcode.read(np.full((480, 640, 3), level, np.uint8)) is None
    assert barcode.read(np.zeros((10, 10), np.uint8)) is None
    with pytest.raises(ValueError, match="256 x 80"):
        barcode.draw(np.zeros((10, 10), np.uint8), 1, 1)


def test_the_test_camera_shows_it() -> None:
    source = PatternSource(count=3, bank=1, barcode=True)
    source.open()
    source.configure()
    for number in (1, 2, 3):
        shot = source.grab(1.0)
        assert barcode.read(shot.pixels) == (shot.captured_mono_ns // 1_000_000, number)
    with pytest.raises(ConfigError, match="needs 256 pixels"):
        PatternSource(size=128, barcode=True)
