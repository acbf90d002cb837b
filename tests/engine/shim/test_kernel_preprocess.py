"""Preprocessing kernels: every bit as Pillow, engine/preprocess.py and cv2 say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from skrd4ad.engine.gpu_launch import (
    quantise_launch,
    resize_columns_launch,
    resize_rows_launch,
    undistort_launch,
)
from skrd4ad.engine.gpu_tables import half_table
from skrd4ad.engine.preprocess import to_network_input
from skrd4ad.engine.resize_band import pillow_band
from skrd4ad.engine.spec import InputSpec, Roi
from skrd4ad.pipeline.wire_map import quantise

SIZES = [  # captured (h, w), ROI (x, y, w, h), network input (H, W)
    ((90, 110), None, (32, 64)),
    ((200, 220), None, (256, 256)),  # enlarged
    ((64, 96), None, (64, 96)),  # not resized at all
    ((131, 97), (3, 5, 61, 120), (64, 32)),
    ((64, 400), (17, 0, 383, 64), (64, 128)),  # one axis only
    ((17, 19), (1, 1, 16, 16), (32, 32)),
    ((300, 40), None, (64, 96)),  # so high that Pillow 13 would begin with the pass down
]


def resized(shim, kernels, pixels, spec, bgr=False, guarded=False):
    """(3, H, W) fp16 by the two kernels, from `pixels` (h, w, 3)."""
    memory = shim.Memory(guarded)
    image = memory.place(pixels)
    roi = spec.roi or Roi(x=0, y=0, width=pixels.shape[1], height=pixels.shape[0])
    across, down = pillow_band(roi.width, spec.width), pillow_band(roi.height, spec.height)
    narrow = memory.empty((roi.height, spec.width, 3), np.uint8)
    output = memory.empty((3, spec.height, spec.width), np.float16)
    place = [memory.place(a) for a in (across.first, across.weights, down.first, down.weights)]
    first_x, weights_x, first_y, weights_y = map(shim.address, place)
    pitch = image.strides[0]
    start = shim.address(image) + roi.y * pitch + roi.x * 3
    kernels.launch(
        resize_rows_launch(
            start, shim.address(narrow), first_x, weights_x,
            pitch=pitch, rows=roi.height, width=spec.width, taps=across.taps,
        )
    )  # fmt: skip
    table = memory.place(half_table(spec))
    kernels.launch(
        resize_columns_launch(
            shim.address(narrow), first_y, weights_y, shim.address(table), shim.address(output),
            width=spec.width, height=spec.height, taps=down.taps, bgr=bgr,
        )
    )  # fmt: skip
    return np.array(output)


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize(("captured", "roi", "size"), SIZES)
def test_every_bit_as_the_product_preprocesses_on_the_cpu(
    shim, kernels, captured, roi, size, bgr
):  # fmt: skip
    rng = np.random.default_rng(captured[0])
    rgb = rng.integers(0, 256, (*captured, 3), dtype=np.uint8)
    rgb[:8, :8] = 255  # saturated corners test the rounding at the top of the range
    region = None if roi is None else Roi(x=roi[0], y=roi[1], width=roi[2], height=roi[3])
    spec = InputSpec(height=size[0], width=size[1], roi=region)
    given = np.ascontiguousarray(rgb[:, :, ::-1]) if bgr else rgb
    half = resized(shim, kernels, given, spec, bgr)
    expected = to_network_input(rgb, spec).astype(np.float16)
    np.testing.assert_array_equal(half.view(np.uint16), expected.view(np.uint16))


def test_a_large_photograph_sized_image_is_exact_too(shim, kernels):
    rgb = np.random.default_rng(1).integers(0, 256, (900, 901, 3), dtype=np.uint8)
    spec = InputSpec()
    half = resized(shim, kernels, rgb, spec)
    expected = to_network_input(rgb, spec).astype(np.float16)
    np.testing.assert_array_equal(half.view(np.uint16), expected.view(np.uint16))


def test_the_tables_are_pillows_for_every_small_size():
    """One axis of every size 1 ... 70 to 32, 64 and 96, by the integer arithmetic of the kernel."""
    rng = np.random.default_rng(2)
    for source in range(1, 71):
        line = rng.integers(0, 256, (1, source), dtype=np.uint8)
        for size in (32, 64, 96):
            band = pillow_band(source, size)
            columns = np.minimum(band.first[:, None] + np.arange(band.taps), source - 1)
            sums = (line[0, columns].astype(np.int64) * band.weights).sum(axis=1)
            ours = np.minimum((sums + (1 << 21)) >> 22, 255)
            pillow = np.asarray(Image.fromarray(line).resize((size, 1), Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(ours, pillow[0], err_msg=f"{source} -> {size}")


@pytest.mark.parametrize(("captured", "roi", "size"), SIZES)
def test_thread_order_and_roi_borders_do_not_matter(shim, kernels, captured, roi, size):
    rgb = np.random.default_rng(3).integers(0, 256, (*captured, 3), dtype=np.uint8)
    region = None if roi is None else Roi(x=roi[0], y=roi[1], width=roi[2], height=roi[3])
    spec = InputSpec(height=size[0], width=size[1], roi=region)
    plain = resized(shim, kernels, rgb, spec)
    kernels.set_order(3)
    # The image now ends at an unreadable page: a tap past its last byte would end this process.
    np.testing.assert_array_equal(plain, resized(shim, kernels, rgb, spec, guarded=True))


def test_undistortion_is_cv2s_fixed_point_remap(shim, kernels):
    height, width = 60, 88
    image = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    camera = np.array([[80.0, 0, 43.2], [0, 81.0, 29.7], [0, 0, 1]])
    bend = np.array([-0.31, 0.12, 0.001, -0.002, 0.0])
    out_height, out_width = 70, 90  # a little larger: some pixels come from outside
    whole, fraction = cv2.initUndistortRectifyMap(
        camera, bend, None, camera, (out_width, out_height), cv2.CV_16SC2
    )
    expected = cv2.remap(image, whole, fraction, cv2.INTER_LINEAR, borderValue=0)
    memory = shim.Memory(guarded=True)
    straight = memory.empty((out_height, out_width, 3), np.uint8)
    given, whole, fraction = (memory.place(a) for a in (image, whole, fraction))
    kernels.launch(
        undistort_launch(
            shim.address(given), shim.address(straight), shim.address(whole),
            shim.address(fraction), pitch=given.strides[0], size=(height, width),
            out_size=(out_height, out_width),
        )
    )  # fmt: skip
    assert 0 < (expected == 0).all(axis=2).sum() < out_height * out_width / 2
    np.testing.assert_array_equal(straight, expected)


@pytest.mark.parametrize("threshold", [0.3, 0.0, 1e-4])
def test_map_codes_are_those_of_the_wire(shim, kernels, threshold):
    values = np.linspace(0.0, 8.0, 4096, dtype=np.float32)
    values[:4] = np.inf, np.nan, -np.inf, -0.1
    expected, scale = quantise(values, threshold)
    memory = shim.Memory(guarded=True)
    given, codes = memory.place(values), memory.empty((4096,), np.uint8)
    kernels.launch(quantise_launch(shim.address(given), shim.address(codes), scale, 4096))
    assert codes[:4].tolist() == [255, 255, 0, 0]
    np.testing.assert_array_equal(codes, expected)
