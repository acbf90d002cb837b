"""Would the kernel tests notice? Thread orders, dropped barriers, and reads past the end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from skrd4ad.engine.score_map import combine, cosine_distance
from skrd4ad.engine.spec import ScoreContract

CONTRACT = ScoreContract()
SIZE = (64, 64)
CHANNELS = (64, 128, 256)


def frame(shim, kernels, layout):
    teacher, student = shim.features(20, CHANNELS, SIZE, 2)
    return shim.run_frame(kernels, teacher, student, CONTRACT, SIZE, layout)


@pytest.mark.parametrize("layout", ["hwc8", "linear"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_of_threads_and_blocks_changes_no_bit(shim, kernels, layout, seed):
    plain = frame(shim, kernels, layout)
    kernels.set_order(seed)
    other = frame(shim, kernels, layout)
    np.testing.assert_array_equal(plain.maps, other.maps)
    np.testing.assert_array_equal(plain.scores, other.scores)
    np.testing.assert_array_equal(plain.peaks, other.peaks)


def test_every_barrier_is_needed_and_its_absence_is_seen(shim, kernels):
    places = [
        (path.name, number)
        for path in sorted(shim.KERNELS.glob("*.cu"))
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"^\s*__syncthreads\(\);", line)
    ]
    assert len(places) == 4, "one in cosine_linear, three in anomaly_map; adapt when they change"
    teacher, student = shim.features(20, CHANNELS, SIZE, 2)
    maps = combine(
        [cosine_distance(t, s) for t, s in zip(teacher, student, strict=True)], CONTRACT, SIZE
    )
    for file, line in places:
        kernels.drop_barrier(file, line)
        seen = False
        for seed in (0, 1, 2):
            kernels.set_order(seed)
            computed = frame(shim, kernels, "linear")
            wrong_map = not np.allclose(computed.maps, maps, rtol=0, atol=1e-6)
            wrong_score = not np.array_equal(computed.scores, computed.maps.max(axis=(1, 2)))
            seen = seen or wrong_map or wrong_score
        assert seen, f"dropping the barrier at {file}:{line} changed nothing"


def guarded(shim, layout, missing_channels):
    command = [sys.executable, shim.__file__, layout, str(missing_channels)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("layout", ["hwc8", "linear"])
def test_no_kernel_reads_or_writes_outside_its_buffers(shim, layout):
    done = guarded(shim, layout, 0)
    assert done.stdout.strip() == "intact", done.stderr


@pytest.mark.parametrize("layout", ["hwc8", "linear"])
def test_a_tensor_eight_channels_short_ends_at_the_guard_page(shim, layout):
    assert guarded(shim, layout, 8).returncode == -signal.SIGSEGV
