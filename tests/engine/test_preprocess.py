"""Preprocessing equals Pillow and the formula, bit for bit, and refuses what it cannot do."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
from PIL import Image
from skrd4ad.engine.preprocess import (
    check_input_spec,
    crop_and_resize,
    map_to_image,
    normalise,
    to_network_input,
)
from skrd4ad.engine.resize_band import pillow_band
from skrd4ad.engine.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec, Roi
from skrd4ad.errors import ConfigError

SPEC = InputSpec(height=64, width=96)


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(900, 900), (480, 640), (97, 61), (64, 96), (20, 1000)])
def test_equals_pillow_and_the_formula(size: tuple[int, int]) -> None:
    pixels = picture(*size)
    across = Image.fromarray(pixels).resize((96, size[0]), Image.Resampling.BILINEAR)
    resized = np.asarray(across.resize((96, 64), Image.Resampling.BILINEAR))
    expected = (resized / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    got = to_network_input(pixels, SPEC)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize("size", [(900, 61), (480, 640), (700, 40)])
def test_the_pass_across_comes_first_whatever_pillow_would_rather(size: tuple[int, int]) -> None:
    """By the definition in integers: 22-bit weights, and 8 bits between the passes."""
    pixels = picture(*size)
    between = _across(pixels, 96)
    expected = _across(between.transpose(1, 0, 2), 64).transpose(1, 0, 2)
    np.testing.assert_array_equal(crop_and_resize(pixels, SPEC), expected)


def _across(pixels: np.ndarray, width: int) -> np.ndarray:
    """One pass along the rows, with the weights that the CUDA kernel takes."""
    band = pillow_band(pixels.shape[1], width)
    out = np.empty((pixels.shape[0], width, 3), np.uint8)
    for column in range(width):
        first, weights = band.first[column], band.weights[column].astype(np.int64)
        seen = pixels[:, first : first + len(weights)].astype(np.int64)
        weights = weights[: seen.shape[1]]
        total = (seen * weights[None, :, None]).sum(axis=1) + (1 << 21)
        out[:, column] = np.clip(total >> 22, 0, 255)
    return out


def test_equals_torchvision_s_antialiased_resize_within_one_grey_level() -> None:
    torch = pytest.importorskip("torch", reason="compares with torch's own resize")
    pixels = picture(300, 260)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(
        tensor, (64, 96), mode="bilinear", antialias=True, align_corners=False
    )[0].permute(1, 2, 0)
    ours = crop_and_resize(pixels, SPEC)
    assert np.abs(ours.astype(int) - theirs.numpy().astype(int)).max() <= 1


def test_the_roi_is_what_the_network_sees() -> None:
    pixels = picture(300, 400)
    spec = msgspec.structs.replace(SPEC, roi=Roi(x=50, y=20, width=200, height=100))
    expected = to_network_input(pixels[20:120, 50:250].copy(), SPEC)
    np.testing.assert_array_equal(to_network_input(pixels, spec), expected)


def test_a_view_with_strides_gives_the_same_as_its_copy() -> None:
    wide = picture(200, 400)[::2, ::-1]
    np.testing.assert_array_equal(to_network_input(wide, SPEC), to_network_input(wide.copy(), SPEC))


def test_the_result_does_not_alias_the_camera_s_buffer() -> None:
    pixels = picture(64, 96)
    before = to_network_input(pixels, SPEC).copy()
    result = to_network_input(pixels, SPEC)
    pixels[:] = 0
    np.testing.assert_array_equal(result, before)


@pytest.mark.parametrize(
    "roi", [Roi(x=0, y=0, width=301, height=10), Roi(x=290, y=0, width=11, height=10),
            Roi(x=0, y=195, width=10, height=6)]
)  # fmt: skip
def test_a_roi_outside_the_image_is_refused(roi: Roi) -> None:
    spec = msgspec.structs.replace(SPEC, roi=roi)
    with pytest.raises(ConfigError, match="not inside the 300 x 200 image"):
        to_network_input(picture(200, 300), spec)


@pytest.mark.parametrize("pixels", [np.zeros((64, 96), np.uint8), np.zeros((64, 96, 3), np.float32),
                                    np.zeros((64, 96, 4), np.uint8)])  # fmt: skip
def test_other_arrays_than_rgb_bytes_are_our_bug(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        to_network_input(pixels, SPEC)


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 65},
        {"width": 0},
        {"height": -32},
        {"std": (0.2, 0.0, 0.2)},
        {"mean": (float("nan"), 0.0, 0.0)},
        {"roi": Roi(x=0, y=0, width=0, height=5)},
        {"roi": Roi(x=-1, y=0, width=5, height=5)},
    ],
)
def test_an_impossible_input_specification_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        check_input_spec(msgspec.structs.replace(SPEC, **changes))
    check_input_spec(SPEC)


def test_map_to_image_puts_a_spot_where_it_was() -> None:
    """A bright spot of the captured image is found again from its peak in the resized one."""
    spec = msgspec.structs.replace(SPEC, roi=Roi(x=40, y=30, width=480, height=256))
    canvas = np.zeros((400, 640, 3), np.uint8)
    cv2.circle(canvas, (333, 171), 9, (255, 255, 255), -1)
    seen = normalise(crop_and_resize(canvas, spec), spec)[0]
    y, x = np.unravel_index(np.argmax(seen), seen.shape)
    sx, _, tx, _, sy, ty = map_to_image(spec, (400, 640))
    assert abs(sx * x + tx - 333) <= 0.5 * sx + 9
    assert abs(sy * y + ty - 171) <= 0.5 * sy + 9
    # The corners of the map are the corners of the region, in pixel centres.
    assert sx * -0.5 + tx == pytest.approx(40 - 0.5)
    assert sy * (63 + 0.5) + ty == pytest.approx(30 + 256 - 0.5)
