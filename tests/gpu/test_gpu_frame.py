"""On an NVIDIA GPU (`make gpu`): kernels against float64 and the shim, graph replay, leaks.

Never run on one so far: no GPU was available when this was written (docs/engine.md, open list);
`make engine-proof` runs this file on the fake driver. The features are uploaded once, so that
neither TensorRT nor a trained network is needed.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from skrd4ad.engine.backends.gpu_frame import STUDENT, TEACHER, FeatureShapes, GpuFrame
from skrd4ad.engine.cuda_driver import probe
from skrd4ad.engine.gpu_tables import half_table
from skrd4ad.engine.preprocess import to_network_input
from skrd4ad.engine.resize_band import pillow_band
from skrd4ad.engine.score_map import combine, cosine_distance, image_score
from skrd4ad.engine.spec import LEVEL_STRIDES, InputSpec, ScoreContract

pytestmark = pytest.mark.gpu
CONTRACT = ScoreContract()


class StoredFeatures:
    """A FeatureNetwork whose features are uploaded once and never change."""

    def __init__(self, gpu, features, layout):
        self.gpu, self.features, self.layout = gpu, features, layout

    def bind(self, addresses):
        import pycuda.driver as driver

        for name, value in self.features.items():
            stored = value.transpose(0, 2, 3, 1) if self.layout == "hwc8" else value
            driver.memcpy_htod(addresses[name], np.ascontiguousarray(stored))

    def enqueue(self, stream):
        """Nothing to compute."""

    def close(self):
        """Nothing to release: the buffers are the frame's."""


def random_features(size, channels, images, seed=0):
    rng = np.random.default_rng(seed)
    features = {}
    for t, s, count, stride in zip(TEACHER, STUDENT, channels, LEVEL_STRIDES, strict=True):
        shape = (images, count, size[0] // stride, size[1] // stride)
        taught = np.maximum(rng.standard_normal(shape), 0)
        rebuilt = np.maximum(taught + 0.3 * rng.standard_normal(shape), 0)
        features |= {t: taught.astype(np.float16), s: rebuilt.astype(np.float16)}
    return features


def open_frame(gpu, cubin, features, layout, size, images):
    levels = tuple(features[name].shape[1:] for name in TEACHER)
    spec = InputSpec(height=size[0], width=size[1])
    network = StoredFeatures(gpu, features, layout)
    return GpuFrame(gpu, network, cubin, FeatureShapes(layout, levels), images, spec, CONTRACT)


@pytest.mark.parametrize("layout", ["hwc8", "linear"])
@pytest.mark.parametrize("channels", [(64, 128, 256), (256, 512, 1024)])
@pytest.mark.parametrize(("size", "images"), [((32, 64), 8), ((256, 256), 1), ((96, 160), 3)])
def test_kernels_match_float64_and_replays_repeat_in_bits(
    gpu, cubin, layout, channels, size, images
):
    features = random_features(size, channels, images)
    frame = open_frame(gpu, cubin, features, layout, size, images)
    batch = np.zeros((images, 3, *size), np.float32)
    maps, scores = frame.infer(batch)
    again, _ = frame.infer(batch)
    distances = [
        cosine_distance(features[t], features[s]) for t, s in zip(TEACHER, STUDENT, strict=True)
    ]
    expected = combine(distances, CONTRACT, size)
    assert np.abs(maps - expected).max() <= 1e-6
    assert np.abs(scores - image_score(expected, CONTRACT)).max() <= 1e-6
    np.testing.assert_array_equal(maps, again)


@pytest.mark.parametrize("layout", ["hwc8", "linear"])
@pytest.mark.parametrize("channels", [(64, 128, 256), (256, 512, 1024)])
def test_the_device_gives_the_bits_of_the_shim(gpu, cubin, host_kernels, layout, channels):
    """Explicit fmaf, no other fusion, IEEE square root and division: no room for a difference."""
    size, images = (64, 96), 2
    features = random_features(size, channels, images, seed=7)
    frame = open_frame(gpu, cubin, features, layout, size, images)
    maps, scores = frame.infer(np.zeros((images, 3, *size), np.float32))
    kernels = host_kernels.HostKernels(host_kernels.build())
    teacher, student = ([features[name] for name in names] for names in (TEACHER, STUDENT))
    shim = host_kernels.run_frame(kernels, teacher, student, CONTRACT, size, layout)
    different = int(np.count_nonzero(maps.view(np.uint32) != shim.maps.view(np.uint32)))
    assert np.abs(maps - shim.maps).max() <= 1e-6
    np.testing.assert_array_equal(scores, maps.reshape(images, -1).max(axis=1))
    assert different == 0, f"{different} of {maps.size} map values differ in bits, none by 1e-6"


def test_a_captured_graph_follows_its_input_and_other_threads_may_work(gpu, cubin):
    """Replays read the pinned input anew; a capture does not disturb a second engine's stream."""
    size = (64, 64)
    features = random_features(size, (64, 128, 256), 1)
    first = open_frame(gpu, cubin, features, "hwc8", size, 1)
    batch = np.zeros((1, 3, *size), np.float32)
    before = first.infer(batch)
    changed = dict(features)
    changed["student1"] = np.roll(features["student1"], 3, axis=3)
    second = open_frame(gpu, cubin, changed, "hwc8", size, 1)
    for _ in range(50):
        np.testing.assert_array_equal(first.infer(batch)[0], before[0])
        assert not np.array_equal(second.infer(batch)[0], before[0])


def test_nan_feature_scores_infinity(gpu, cubin):
    features = random_features((64, 64), (64, 128, 256), 2)
    features["student2"][1, 5, 1, 1] = np.nan
    frame = open_frame(gpu, cubin, features, "hwc8", (64, 64), 2)
    _, scores = frame.infer(np.zeros((2, 3, 64, 64), np.float32))
    assert np.isfinite(scores[0])
    assert scores[1] == np.inf


def test_preprocessing_is_exact_to_the_bit(gpu, cubin):
    from skrd4ad.engine.gpu_launch import resize_columns_launch, resize_rows_launch

    rgb = np.random.default_rng(0).integers(0, 256, (900, 901, 3), dtype=np.uint8)
    spec = InputSpec()
    across, down = pillow_band(901, spec.width), pillow_band(900, spec.height)
    narrow, output = gpu.buffer(900 * spec.width * 3), gpu.buffer(2 * 3 * spec.width * spec.height)
    module, stream = gpu.module(cubin), gpu.stream()
    module.launch(
        resize_rows_launch(
            gpu.upload(rgb), narrow, gpu.upload(across.first), gpu.upload(across.weights),
            pitch=901 * 3, rows=900, width=spec.width, taps=across.taps,
        ),
        stream,
    )  # fmt: skip
    module.launch(
        resize_columns_launch(
            narrow, gpu.upload(down.first), gpu.upload(down.weights), gpu.upload(half_table(spec)),
            output, width=spec.width, height=spec.height, taps=down.taps, bgr=False,
        ),
        stream,
    )  # fmt: skip
    stream.synchronize()
    found = gpu.download(output, (3, spec.height, spec.width), np.float16)
    expected = to_network_input(rgb, spec).astype(np.float16)
    np.testing.assert_array_equal(found.view(np.uint16), expected.view(np.uint16))


@pytest.mark.timeout(900)
def test_a_hundred_thousand_frames_leak_nothing(silicon, gpu, cubin, capsys):
    import pycuda.driver as driver

    size = (256, 256)
    features = random_features(size, (256, 512, 1024), 1)
    frame = open_frame(gpu, cubin, features, "hwc8", size, 1)
    batch = np.zeros((1, 3, *size), np.float32)
    for _ in range(100):
        frame.infer(batch)
    free_before, took = driver.mem_get_info()[0], []
    for _ in range(100_000):
        start = time.perf_counter()
        frame.infer(batch)
        took.append(time.perf_counter() - start)
    assert free_before - driver.mem_get_info()[0] < 1 << 20
    with capsys.disabled():
        p50, p99 = np.percentile(took, [50, 99]) * 1e6
        print(f"\n{probe().name}: frame without a network p50 {p50:.0f} us, p99 {p99:.0f} us")
