"""Times of the kernels against the device's own copy bandwidth, and compute-sanitizer.

Never run so far (docs/engine.md, open list). `pytest -m gpu -s tests/gpu/test_gpu_speed.py` prints
the figures that belong into docs/performance.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skrd4ad.engine.cuda_driver import probe
from skrd4ad.engine.gpu_launch import (
    RESULT_DTYPE,
    BandAddresses,
    FeaturePair,
    MapBuffers,
    cosine_launch,
    map_launch,
)
from skrd4ad.engine.gpu_tables import map_band
from skrd4ad.engine.spec import LEVEL_STRIDES, ScoreContract

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("silicon")]

SIZE = (256, 256)
COPY_BYTES = 1 << 28
COSINE_SHARE = 0.6
"""Of the copy bandwidth, for the WRN50-2 features of a batch of 8: the kernel reads and no more."""
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")


def milliseconds(driver, stream, work, repeats=50):
    """Median time of `work()` on `stream` by the device's own clock."""
    work()
    stream.synchronize()
    taken = []
    for _ in range(repeats):
        start, end = driver.Event(), driver.Event()
        start.record(stream.native)
        work()
        end.record(stream.native)
        end.synchronize()
        taken.append(start.time_till(end))
    return float(np.median(taken))


def copy_gbytes_per_s(driver, gpu, stream):
    source, target = gpu.buffer(COPY_BYTES), gpu.buffer(COPY_BYTES)
    taken = milliseconds(
        driver, stream, lambda: driver.memcpy_dtod_async(target, source, COPY_BYTES, stream.native)
    )
    return 2.0 * COPY_BYTES / taken / 1e6


@pytest.mark.parametrize("layout", ["hwc8", "linear"])
@pytest.mark.parametrize("images", [1, 8])
def test_the_cosine_kernel_reads_at_copy_bandwidth(gpu, cubin, layout, images, capsys):
    import pycuda.driver as driver

    stream, module = gpu.stream(), gpu.module(cubin)
    sizes = [(SIZE[0] // stride, SIZE[1] // stride) for stride in LEVEL_STRIDES]
    pairs, read = [], 0
    for channels, (height, width) in zip((256, 512, 1024), sizes, strict=True):
        shape = (images, height, width, channels)
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
        pairs.append(FeaturePair(gpu.upload(values), gpu.upload(values), channels, height, width))
        read += 2 * values.nbytes
    pixels = sum(height * width for height, width in sizes)
    buffers = MapBuffers(
        level_maps=gpu.buffer(4 * images * pixels),
        results=gpu.buffer(images * RESULT_DTYPE.itemsize),
        poisoned=gpu.upload(np.zeros(images, np.uint32)),
        frame=gpu.upload(np.ones(1, np.uint32)),
    )
    bands = []
    for level in sizes:
        rows, columns = (map_band(level[axis], SIZE[axis], ScoreContract()) for axis in (0, 1))
        tables = [rows.first, columns.first, rows.weights, columns.weights]
        bands.append(BandAddresses(*map(gpu.upload, tables), rows.taps, columns.taps))
    maps = gpu.buffer(4 * images * SIZE[0] * SIZE[1])
    cosine = cosine_launch(layout, pairs, buffers, images)
    blur = map_launch(bands, sizes, buffers, maps, SIZE, images)
    copy = copy_gbytes_per_s(driver, gpu, stream)
    cosine_ms = milliseconds(driver, stream, lambda: module.launch(cosine, stream))
    map_ms = milliseconds(driver, stream, lambda: module.launch(blur, stream))
    share = read / cosine_ms / 1e6 / copy
    with capsys.disabled():
        print(
            f"\n{probe().name}, {layout}, batch {images}: copy {copy:.0f} GB/s; cosine"
            f" {cosine_ms * 1e3:.1f} us = {share:.2f} of it; map {map_ms * 1e3:.1f} us"
        )
    # One image is 7 MB: it fits a large GPU's cache, and a launch costs as much as reading it.
    if images == 8 and layout == "hwc8":
        assert share >= COSINE_SHARE


@pytest.mark.timeout(900)
@pytest.mark.parametrize("tool", TOOLS)
def test_compute_sanitizer_finds_nothing(tool):
    """The bit-for-bit test of test_gpu_frame.py, run again under each tool."""
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    sanitizer = shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=str(home / "bin")
    )
    assert sanitizer, "compute-sanitizer is not installed; it comes with the CUDA toolkit"
    target = Path(__file__).with_name("test_gpu_frame.py")
    done = subprocess.run(
        [sanitizer, "--tool", tool, "--error-exitcode", "99", sys.executable, "-m", "pytest",
         "-q", "-m", "gpu", "-p", "no:cacheprovider", str(target),
         "-k", "bits_of_the_shim or exact_to_the_bit"],
        capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "ERROR SUMMARY: 0 errors" in done.stdout or tool == "racecheck", done.stdout[-1000:]
