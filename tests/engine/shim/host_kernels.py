"""The product's CUDA kernels as a CPU library, and the frame they compute, for tests.

Imported through the `shim` fixture. Also run as a program by the guard-page tests:
a fault there must end a process of its own, not the test run.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skrd4ad.engine.gpu_launch import (
    RESULT_DTYPE,
    BandAddresses,
    FeaturePair,
    Launch,
    Layout,
    MapBuffers,
    cosine_launch,
    map_launch,
    read_results,
)
from skrd4ad.engine.gpu_tables import map_band
from skrd4ad.engine.resize_band import SparseRows
from skrd4ad.engine.spec import LEVEL_STRIDES, ScoreContract

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[2] / "engine" / "kernels"
FLAGS = (
    # The kernels reinterpret uint4 as half2, which C++ calls aliasing and CUDA does not; a fused
    # multiply-add happens only where the source says fmaf; longjmp between stacks is deliberate.
    *("-x", "c++", "-std=c++17", "-O2", "-fno-strict-aliasing", "-ffp-contract=off"),
    *("-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Wno-unknown-pragmas"),
    *("-shared", "-fPIC", "-include", str(HERE / "cuda_host.h")),
)


def build(sources: Path = KERNELS) -> Path:
    """Compile `sources`/all.cu with g++ and return the library; equal content is built once.

    Raises RuntimeError, with the compiler's words, when g++ is missing or refuses.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        raise RuntimeError("g++ is not installed: without it no CUDA kernel is tested on this CPU")
    digest = hashlib.sha256(repr(FLAGS).encode())
    for path in (HERE / "cuda_host.h", *sorted(sources.glob("*.cu*"))):
        digest.update(path.name.encode() + path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"skrd4ad-shim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{digest.hexdigest()[:20]}.so"
    if not library.exists():
        partial = folder / f"{library.stem}-{os.getpid()}.so"
        command = [compiler, *FLAGS, str(sources / "all.cu"), "-o", str(partial)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"g++ failed on the kernels:\n{done.stderr}")
        os.replace(partial, library)
    return library


class HostKernels:
    """The library, taking the same `Launch` values as the device does."""

    def __init__(self, library: Path) -> None:
        self.path = library
        self._library = ctypes.CDLL(str(library))

    def launch(self, launch: Launch) -> None:
        function = getattr(self._library, f"host_{launch.kernel}")
        function(*launch.grid, *launch.block, launch.parameters)

    def parameter_bytes(self, kernel: str) -> int:
        return int(getattr(self._library, f"host_size_{kernel}")())

    def set_order(self, seed: int) -> None:
        """Order of threads in a block and of blocks: 0 ascending, 1 descending, else random."""
        self._library.shim_set_order(seed)

    def drop_barrier(self, file: str, line: int) -> None:
        """Make the __syncthreads() at this source line do nothing; line 0 restores all."""
        self._library.shim_drop_barrier(file.encode(), line)


@dataclass
class Memory:
    """Gives arrays addresses. Guarded arrays end where an unreadable page begins."""

    guarded: bool = False
    kept: list[object] = field(default_factory=list)

    def place(self, array: NDArray[np.generic]) -> NDArray[np.generic]:
        copy = self.empty(array.shape, array.dtype)
        copy[...] = array
        return copy

    def empty(self, shape: tuple[int, ...], dtype: object) -> NDArray[np.generic]:
        count, kind = int(np.prod(shape)), np.dtype(dtype)
        size = count * kind.itemsize
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        area = mmap.mmap(-1, pages + 2 * mmap.PAGESIZE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(area))
        if self.guarded:
            _make_unreadable(base)
            _make_unreadable(base + mmap.PAGESIZE + pages)
        # Against the far guard, moved down to 16 bytes: kernels use 16-byte loads.
        offset = mmap.PAGESIZE + (pages - size) // 16 * 16
        array = np.frombuffer(area, kind, count, offset).reshape(shape)
        array.view(np.uint8).reshape(-1)[...] = 0xCB
        self.kept.append((area, array))
        return array


def _make_unreadable(address: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")


def address(array: NDArray[np.generic]) -> int:
    return int(array.ctypes.data)


@dataclass
class Computed:
    """What one frame gave: float32 maps, scores, first largest pixel, and the level maps."""

    maps: NDArray[np.float32]
    scores: NDArray[np.float32]
    peaks: NDArray[np.int64]
    levels: NDArray[np.float32]


def run_frame(
    kernels: HostKernels,
    teacher: list[NDArray[np.float16]],
    student: list[NDArray[np.float16]],
    contract: ScoreContract,
    size: tuple[int, int],
    layout: Layout,
    guarded: bool = False,
    missing_channels: int = 0,
    frame: int = 1,
    poisoned: NDArray[np.uint32] | None = None,
) -> Computed:
    """(n, c, h, w) fp16 per level -> map and score by the product's kernels.

    `missing_channels` makes the stored tensors smaller than the kernel is told: a planted
    fault. `poisoned` is the word per image that outlives a frame on the device.
    """
    memory = Memory(guarded)
    images = teacher[0].shape[0]
    level_sizes = [(size[0] // stride, size[1] // stride) for stride in LEVEL_STRIDES]
    level_pixels = sum(h * w for h, w in level_sizes)

    def stored(features: NDArray[np.float16]) -> int:
        kept = features[:, : features.shape[1] - missing_channels]
        if layout == "hwc8":
            kept = kept.transpose(0, 2, 3, 1)
        return address(memory.place(kept))

    pairs = [
        FeaturePair(stored(t), stored(s), t.shape[1], *t.shape[2:])
        for t, s in zip(teacher, student, strict=True)
    ]
    levels = memory.empty((images, level_pixels), np.float32)
    results = memory.empty((images,), RESULT_DTYPE)
    if poisoned is None:
        poisoned = memory.place(np.zeros(images, np.uint32))
    counter = memory.place(np.array([frame], np.uint32))
    buffers = MapBuffers(address(levels), address(results), address(poisoned), address(counter))
    maps = memory.empty((images, *size), np.float32)
    bands = [band_addresses(memory, level, size, contract) for level in level_sizes]
    kernels.launch(cosine_launch(layout, pairs, buffers, images))
    kernels.launch(map_launch(bands, level_sizes, buffers, address(maps), size, images))
    scores, peaks = read_results(results, frame, size)
    return Computed(maps, scores, peaks, levels)


def band_addresses(
    memory: Memory, level: tuple[int, int], size: tuple[int, int], contract: ScoreContract
) -> BandAddresses:
    rows, columns = (map_band(level[i], size[i], contract) for i in (0, 1))

    def put(band: SparseRows) -> tuple[int, int]:
        return address(memory.place(band.first)), address(memory.place(band.weights))

    (first_row, row_weights), (first_column, column_weights) = put(rows), put(columns)
    return BandAddresses(
        first_row, first_column, row_weights, column_weights, rows.taps, columns.taps
    )


def features(
    seed: int, channels: tuple[int, ...], size: tuple[int, int], images: int, noise: float = 0.3
) -> tuple[list[NDArray[np.float16]], list[NDArray[np.float16]]]:
    """Random rectified teacher features and a student that differs by `noise`."""
    rng = np.random.default_rng(seed)
    teacher, student = [], []
    for count, stride in zip(channels, LEVEL_STRIDES, strict=True):
        shape = (images, count, size[0] // stride, size[1] // stride)
        taught = np.maximum(rng.standard_normal(shape), 0)
        rebuilt = np.maximum(taught + noise * rng.standard_normal(shape), 0)
        teacher.append(taught.astype(np.float16))
        student.append(rebuilt.astype(np.float16))
    return teacher, student


def main(arguments: list[str]) -> None:
    """LAYOUT MISSING_CHANNELS: a frame between guard pages; prints "intact" when it ends."""
    layout, missing = arguments[0], int(arguments[1])
    kernels = HostKernels(build())
    for size in ((32, 64), (96, 32)):
        teacher, student = features(1, (64, 128, 256), size, 2)
        run_frame(
            kernels, teacher, student, ScoreContract(), size, layout, True, missing  # type: ignore
        )  # fmt: skip
    print("intact")


if __name__ == "__main__":
    main(sys.argv[1:])
