"""What is handed to each CUDA kernel: its parameter block, grid and block size.

These are values. The CUDA runtime launches them on a device, the tests launch the same ones on the
CPU shim: a wrong grid or field shows without a GPU. Addresses are plain integers. The ctypes
structures repeat the C structures of engine/kernels/*.cu field by field; a test compares the sizes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError

MAX_LEVELS = 4
RESULT_DTYPE = np.dtype([("best", "<u8"), ("frame", "<u4"), ("tiles", "<u4")])
"""One record per image, written by the map kernel (struct Result of kernels/portable.cuh)."""

Layout = Literal["hwc8", "linear"]
Size3 = tuple[int, int, int]
_address, _int = ctypes.c_uint64, ctypes.c_int32


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch, complete but for the stream."""

    kernel: str
    grid: Size3
    block: Size3
    parameters: bytes


@dataclass(frozen=True, slots=True)
class FeaturePair:
    """Device addresses of one level's fp16 features, (n, c, h, w) linear or (n, h, w, c)."""

    teacher: int
    student: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class BandAddresses:
    """Device addresses of one level's SparseRows in both directions."""

    first_row: int
    first_column: int
    row_weights: int
    column_weights: int
    row_taps: int
    column_taps: int


@dataclass(frozen=True, slots=True)
class MapBuffers:
    """Device addresses that the cosine and map kernels share."""

    level_maps: int
    """float32 (n, all levels' pixels)."""
    results: int
    """RESULT_DTYPE (n,)."""
    poisoned: int
    """uint32 (n,), zeroed once; frame numbers start at 1."""
    frame: int
    """uint32, the host's frame number."""


class _FeatureLevel(ctypes.Structure):
    _fields_ = (
        ("teacher", _address),
        ("student", _address),
        ("channels", _int),
        ("pixels", _int),
        ("first_pixel", _int),
        ("first_block", _int),
        ("lanes", _int),
    )


class _CosineParameters(ctypes.Structure):
    _fields_ = (
        ("level", _FeatureLevel * MAX_LEVELS),
        ("maps", _address),
        ("results", _address),
        ("poisoned", _address),
        ("frame", _address),
        ("levels", _int),
        ("map_pixels", _int),
    )


class _Band(ctypes.Structure):
    _fields_ = (
        ("first_row", _address),
        ("first_column", _address),
        ("row_weights", _address),
        ("column_weights", _address),
        ("width", _int),
        ("first_pixel", _int),
        ("row_taps", _int),
        ("column_taps", _int),
    )


class _MapParameters(ctypes.Structure):
    _fields_ = (
        ("band", _Band * MAX_LEVELS),
        ("maps", _address),
        ("anomaly", _address),
        ("results", _address),
        ("poisoned", _address),
        ("frame", _address),
        ("levels", _int),
        ("map_pixels", _int),
        ("height", _int),
        ("width", _int),
    )


class _QuantiseParameters(ctypes.Structure):
    _fields_ = (
        ("anomaly", _address),
        ("codes", _address),
        ("scale", ctypes.c_float),
        ("pixels", _int),
    )


class _ResizeRowsParameters(ctypes.Structure):
    _fields_ = (
        ("pixels", _address),
        ("narrow", _address),
        ("first", _address),
        ("weights", _address),
        ("pitch", _int),
        ("rows", _int),
        ("width", _int),
        ("taps", _int),
    )


class _ResizeColumnsParameters(ctypes.Structure):
    _fields_ = (
        ("narrow", _address),
        ("first", _address),
        ("weights", _address),
        ("table", _address),
        ("input", _address),
        ("width", _int),
        ("height", _int),
        ("taps", _int),
        ("swap_red_blue", _int),
    )


class _UndistortParameters(ctypes.Structure):
    _fields_ = (
        ("pixels", _address),
        ("straight", _address),
        ("whole", _address),
        ("fraction", _address),
        ("pitch", _int),
        ("width", _int),
        ("height", _int),
        ("out_width", _int),
        ("out_height", _int),
    )


PARAMETER_BYTES: dict[str, int] = {
    "cosine_hwc8": ctypes.sizeof(_CosineParameters),
    "cosine_linear": ctypes.sizeof(_CosineParameters),
    "anomaly_map": ctypes.sizeof(_MapParameters),
    "quantise_map": ctypes.sizeof(_QuantiseParameters),
    "resize_rows": ctypes.sizeof(_ResizeRowsParameters),
    "resize_columns": ctypes.sizeof(_ResizeColumnsParameters),
    "undistort": ctypes.sizeof(_UndistortParameters),
}
"""Every kernel of kernels/all.cu and the size of its parameter block."""


def cosine_launch(
    layout: Layout, levels: Sequence[FeaturePair], buffers: MapBuffers, images: int
) -> Launch:
    """A_l = 1 - cosine for every level. Raises EngineError for features the kernel cannot read."""
    parameters = _CosineParameters(
        maps=buffers.level_maps,
        results=buffers.results,
        poisoned=buffers.poisoned,
        frame=buffers.frame,
        levels=len(levels),
        map_pixels=sum(level.height * level.width for level in levels),
    )
    _check_level_count(len(levels))
    pixel, block = 0, 0
    for index, level in enumerate(levels):
        _check_features(layout, level)
        pixels, lanes = level.height * level.width, _lanes(level.channels)
        parameters.level[index] = _FeatureLevel(
            level.teacher, level.student, level.channels, pixels, pixel, block, lanes
        )
        pixel += pixels
        block += _divide_up(pixels, 64 if layout == "linear" else 256 // lanes)
    return Launch(f"cosine_{layout}", (block, 1, images), (256, 1, 1), bytes(parameters))


def map_launch(
    bands: Sequence[BandAddresses],
    level_sizes: Sequence[tuple[int, int]],
    buffers: MapBuffers,
    anomaly: int,
    size: tuple[int, int],
    images: int,
) -> Launch:
    """Map, maximum and argmax. `anomaly` is float32 (images, H, W), or 0 for the score alone."""
    height, width = size
    _check_level_count(len(bands))
    parameters = _MapParameters(
        maps=buffers.level_maps,
        anomaly=anomaly,
        results=buffers.results,
        poisoned=buffers.poisoned,
        frame=buffers.frame,
        levels=len(bands),
        map_pixels=sum(h * w for h, w in level_sizes),
        height=height,
        width=width,
    )
    pixel = 0
    for index, (band, (level_height, level_width)) in enumerate(
        zip(bands, level_sizes, strict=True)
    ):
        parameters.band[index] = _Band(
            band.first_row,
            band.first_column,
            band.row_weights,
            band.column_weights,
            level_width,
            pixel,
            band.row_taps,
            band.column_taps,
        )
        pixel += level_height * level_width
    grid = (width // 32, height // 32, images)
    return Launch("anomaly_map", grid, (32, 8, 1), bytes(parameters))


def quantise_launch(anomaly: int, codes: int, scale: float, pixels: int) -> Launch:
    """uint8 codes of `pixels` (a multiple of 4) float32 values: rint(value / scale), 0 ... 255."""
    parameters = _QuantiseParameters(anomaly, codes, scale, pixels)
    return Launch("quantise_map", (_divide_up(pixels, 1024), 1, 1), (256, 1, 1), bytes(parameters))


def resize_rows_launch(
    pixels: int, narrow: int, first: int, weights: int, *, pitch: int, rows: int, width: int,
    taps: int,
) -> Launch:  # fmt: skip
    """Horizontal pass over `rows` of the ROI; `pixels` is the address of its first pixel."""
    parameters = _ResizeRowsParameters(pixels, narrow, first, weights, pitch, rows, width, taps)
    return Launch("resize_rows", _tiles(width, rows), (32, 8, 1), bytes(parameters))


def resize_columns_launch(
    narrow: int, first: int, weights: int, table: int, network_input: int, *, width: int,
    height: int, taps: int, bgr: bool,
) -> Launch:  # fmt: skip
    """Vertical pass and normalisation to fp16 (3, height, width)."""
    parameters = _ResizeColumnsParameters(
        narrow, first, weights, table, network_input, width, height, taps, int(bgr)
    )
    return Launch("resize_columns", _tiles(width, height), (32, 8, 1), bytes(parameters))


def undistort_launch(
    pixels: int, straight: int, whole: int, fraction: int, *, pitch: int,
    size: tuple[int, int], out_size: tuple[int, int],
) -> Launch:  # fmt: skip
    """cv2.remap by CV_16SC2 maps; sizes are (height, width)."""
    (height, width), (out_height, out_width) = size, out_size
    parameters = _UndistortParameters(
        pixels, straight, whole, fraction, pitch, width, height, out_width, out_height
    )
    return Launch("undistort", _tiles(out_width, out_height), (32, 8, 1), bytes(parameters))


def read_results(
    results: NDArray[np.void], frame: int, size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """RESULT_DTYPE (n,) -> scores float32 (n,), index of the first largest map pixel int64 (n,).

    Raises EngineError when a record is not the finished result of `frame` (a stale or torn one).
    """
    tiles = (size[0] // 32) * (size[1] // 32)
    for image, record in enumerate(results):
        if int(record["frame"]) != frame or int(record["tiles"]) != tiles:
            raise EngineError(
                f"the GPU returned a stale result for image {image}: frame {record['frame']} with"
                f" {record['tiles']} tiles, expected frame {frame} with {tiles}",
                "the part counts as uninspected; run skrd4ad verify if this repeats",
            )
    best = results["best"]
    scores = (best >> np.uint64(32)).astype(np.uint32).view(np.float32)
    index = np.uint64(0xFFFFFFFF) - (best & np.uint64(0xFFFFFFFF))
    return scores, index.astype(np.int64)


def _lanes(channels: int) -> int:
    """Threads per pixel: the power of two that gives each at least one group of 8 channels."""
    lanes = 1
    while lanes < 32 and lanes * 8 < channels:
        lanes *= 2
    return lanes


def _check_features(layout: Layout, level: FeaturePair) -> None:
    if layout == "hwc8" and level.channels % 8:
        raise EngineError(f"HWC8 features need a multiple of 8 channels, got {level.channels}")
    if (level.height * level.width) % 4:
        raise EngineError(
            f"a level of {level.height} x {level.width} pixels is not a multiple of 4",
            "height and width of the input are multiples of 32",
        )
    for name, address in (("teacher", level.teacher), ("student", level.student)):
        if address % 16:
            raise EngineError(f"the {name} features are not 16-byte aligned")


def _check_level_count(count: int) -> None:
    if not 1 <= count <= MAX_LEVELS:
        raise EngineError(f"the kernels take 1 to {MAX_LEVELS} levels, got {count}")


def _divide_up(count: int, step: int) -> int:
    return -(-count // step)


def _tiles(width: int, height: int) -> Size3:
    return (_divide_up(width, 32), _divide_up(height, 8), 1)
