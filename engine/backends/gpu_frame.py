"""One frame on the GPU, whoever computes the features: copy in, network, cosine, map, copy out.

The sequence is captured once as a CUDA graph on one stream and replayed per batch, so that a frame
costs the host one call. Addresses, sizes and launches are frozen at that moment. The host's frame
number travels with the data and must come back with the result: an old result cannot pass as new.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError, PlanError
from ..cuda import Gpu, Stream
from ..gpu_launch import (
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
from ..gpu_tables import map_band
from ..score_map import image_score
from ..spec import LEVEL_STRIDES, InputSpec, Manifest, ScoreContract
from .base import check_batch

logger = logging.getLogger(__name__)

INPUT = "image"
TEACHER = ("teacher1", "teacher2", "teacher3")
STUDENT = ("student1", "student2", "student3")
WATCHDOG_S = 2.0
"""A frame takes milliseconds; after this long the GPU counts as hung."""
_LAST_FRAME = 0xFFFFFFFF
_abandoned: list[Gpu] = []


class FeatureNetwork(Protocol):
    """Computes the six feature maps from the input, on a stream, at addresses given once."""

    def bind(self, addresses: dict[str, int]) -> None:
        """Device addresses by tensor name (fp16, shapes and layout of the manifest)."""
        ...

    def enqueue(self, stream: Stream) -> None:
        """Put one pass on `stream`; may be captured. Raises EngineError when it is refused."""
        ...

    def close(self) -> None:
        """Release the device; the context is current."""
        ...


@dataclass(frozen=True, slots=True)
class FeatureShapes:
    """What a GPU plan's tensors are, read from its manifest and checked."""

    layout: Layout
    levels: tuple[tuple[int, int, int], ...]
    """channels, height, width of E1, E2, E3."""


def feature_shapes(manifest: Manifest) -> FeatureShapes:
    """Raises PlanError unless the manifest lists fp16 input and six fitting fp16 features."""
    tensors = {tensor.name: tensor for tensor in manifest.tensors}
    missing = [name for name in (INPUT, *TEACHER, *STUDENT) if name not in tensors]
    if missing:
        raise PlanError(f"the plan has no tensor {', '.join(missing)}", "compile the plan again")
    height, width, batch = manifest.input.height, manifest.input.width, manifest.batch
    layouts = {tensors[name].format for name in (*TEACHER, *STUDENT)}
    levels = []
    for teacher, student, stride in zip(TEACHER, STUDENT, LEVEL_STRIDES, strict=True):
        shape = tensors[teacher].shape
        expected = (batch, shape[1] if len(shape) == 4 else 0, height // stride, width // stride)
        if shape != expected or tensors[student].shape != shape:
            raise PlanError(
                f"the plan's {teacher} is {shape} and its {student} {tensors[student].shape};"
                f" an input of {height} x {width} needs {expected}",
                "compile the plan again",
            )
        levels.append(shape[1:])
    wrong = [name for name in (INPUT, *TEACHER, *STUDENT) if tensors[name].dtype != "float16"]
    if wrong or tensors[INPUT].shape != (batch, 3, height, width):
        raise PlanError(
            f"the plan's tensors are not the expected float16 ones: {wrong or tensors[INPUT]}",
            "compile the plan again",
        )
    if layouts == {"hwc8"}:
        return FeatureShapes("hwc8", tuple(levels))
    if layouts == {"linear"}:
        return FeatureShapes("linear", tuple(levels))
    raise PlanError(f"the plan's features have the formats {sorted(layouts)}", "compile again")


class GpuFrame:
    """Buffers, stream and graph of one plan: float32 input batch -> maps and scores."""

    def __init__(
        self,
        gpu: Gpu,
        network: FeatureNetwork,
        cubin: bytes | memoryview,
        shapes: FeatureShapes,
        batch: int,
        input_spec: InputSpec,
        contract: ScoreContract,
    ) -> None:
        """Allocates everything, runs once eagerly, captures, and checks that a replay gives the
        same bits. The context must be current. Raises EngineError."""
        size = (input_spec.height, input_spec.width)
        self._gpu, self._network, self._size, self._contract = gpu, network, size, contract
        # On a shared memory (Jetson) the map goes straight to the host's page.
        self._mapped = gpu.facts.integrated
        self._stream, self._event = gpu.stream(), gpu.event()
        self._module = gpu.module(cubin)
        level_sizes = [(height, width) for _, height, width in shapes.levels]
        self._input = gpu.pinned((batch, 3, *size), np.float16)
        self._number = gpu.pinned((1,), np.uint32)
        self._results = gpu.pinned((batch,), RESULT_DTYPE)
        self._maps = gpu.pinned((batch, *size), np.float32, mapped=self._mapped)
        self._input_address = gpu.buffer(self._input.array.nbytes)
        self._results_address = gpu.buffer(self._results.array.nbytes)
        self._maps_address = (
            self._maps.address if self._mapped else gpu.buffer(self._maps.array.nbytes)
        )
        buffers = MapBuffers(
            level_maps=gpu.buffer(4 * batch * sum(h * w for h, w in level_sizes)),
            results=self._results_address,
            poisoned=gpu.upload(np.zeros(batch, np.uint32)),
            frame=gpu.buffer(4),
        )
        self._number_address = buffers.frame
        addresses = {INPUT: self._input_address}
        pairs = []
        for teacher, student, level in zip(TEACHER, STUDENT, shapes.levels, strict=True):
            for name in (teacher, student):
                addresses[name] = gpu.buffer(2 * batch * int(np.prod(level)))
            pairs.append(FeaturePair(addresses[teacher], addresses[student], *level))
        network.bind(addresses)
        bands = [_upload_bands(gpu, level, size, contract) for level in level_sizes]
        self._launches: tuple[Launch, ...] = (
            cosine_launch(shapes.layout, pairs, buffers, batch),
            map_launch(bands, level_sizes, buffers, self._maps_address, size, batch),
        )
        self._frame = 0
        self._hung = False
        eager = self._prove_eager()
        self._graph = gpu.graph(self._stream, self._enqueue)
        self._compare(eager, self._run(WATCHDOG_S))

    def infer(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """float32 (n, 3, H, W) -> maps (n, H, W), scores (n,). Raises EngineError on a hung GPU,
        and on a result that is not this frame's. The context must be current."""
        if self._hung:
            raise EngineError("the GPU hung on an earlier frame", "restart the process")
        count = len(batch)
        self._input.array[:count] = batch
        self._input.array[count:] = 0
        maps, scores = self._run(WATCHDOG_S)
        return maps[:count], scores[:count]

    def _prove_eager(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same work without a graph, once: the driver and TensorRT set up lazily in it."""
        rng = np.random.default_rng(0)
        self._input.array[...] = rng.standard_normal(self._input.array.shape).astype(np.float16)
        self._begin_frame()
        self._enqueue()
        self._stream.synchronize()
        return self._collect()

    def _compare(
        self,
        eager: tuple[NDArray[np.float32], NDArray[np.float32]],
        replayed: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> None:
        # Bits, not values: with untrained weights a map may hold +inf, which equals itself.
        if any(a.tobytes() != b.tobytes() for a, b in zip(eager, replayed, strict=True)):
            raise EngineError(
                "the replayed CUDA graph and the same work run directly gave different results",
                "run skrd4ad verify on this plan; report the driver and TensorRT versions",
            )

    def _enqueue(self) -> None:
        gpu, stream = self._gpu, self._stream
        gpu.copy_in(self._input_address, self._input, stream)
        gpu.copy_in(self._number_address, self._number, stream)
        self._network.enqueue(stream)
        for launch in self._launches:
            self._module.launch(launch, stream)
        gpu.copy_out(self._results, self._results_address, stream)
        if not self._mapped:
            gpu.copy_out(self._maps, self._maps_address, stream)

    def _begin_frame(self) -> None:
        self._frame = self._frame % _LAST_FRAME + 1  # 0 means "no frame yet"
        self._number.array[0] = self._frame
        self._results.array.view(np.uint8)[...] = 0xFF

    def _run(self, timeout_s: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self._begin_frame()
        self._graph.launch()
        self._event.record(self._stream)
        if not self._event.wait(timeout_s):
            self._hung = True
            raise EngineError(
                f"the GPU did not finish a frame within {timeout_s} s",
                "restart the process; check power, temperature and the kernel log",
            )
        return self._collect()

    def _collect(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores, _ = read_results(self._results.array, self._frame, self._size)
        maps = np.array(self._maps.array)
        if self._contract.score == "max":
            return maps, scores
        return maps, image_score(maps, self._contract).astype(np.float32)

    @property
    def hung(self) -> bool:
        """True once the GPU failed to finish: freeing its memory would wait for ever."""
        return self._hung


class GpuEngine:
    """An `Engine` (backends/base.py) around a GpuFrame."""

    def __init__(
        self,
        manifest: Manifest,
        gpu: Gpu,
        network: FeatureNetwork,
        cubin: bytes | memoryview,
        description: str,
    ) -> None:
        """Takes over `gpu` and `network`: they are released by `__exit__`, or when this fails."""
        self._manifest, self._gpu = manifest, gpu
        self._description = description
        self._closed = False
        # First on the list, so last to go: after the graph that uses the network.
        gpu.on_close(network.close)
        with ExitStack() as undo:
            undo.callback(self._release)
            with gpu.current():
                self._frame: GpuFrame | None = GpuFrame(
                    gpu,
                    network,
                    cubin,
                    feature_shapes(manifest),
                    manifest.batch,
                    manifest.input,
                    manifest.score,
                )
            undo.pop_all()

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def description(self) -> str:
        return self._description

    def infer(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As Engine.infer. Any one thread at a time may call it."""
        check_batch(self._manifest, batch)
        if self._frame is None:
            raise EngineError("this engine is closed")
        with self._gpu.current():
            return self._frame.infer(batch)

    def __enter__(self) -> GpuEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        hung = self._frame is not None and self._frame.hung
        self._frame = None
        if hung:
            logger.critical("the GPU hangs: its memory is left to the end of the process")
            _abandoned.append(self._gpu)  # freeing would wait for the GPU
            return
        self._release()

    def _release(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._gpu.close()


def _upload_bands(
    gpu: Gpu, level: tuple[int, int], size: tuple[int, int], contract: ScoreContract
) -> BandAddresses:
    rows, columns = (map_band(level[axis], size[axis], contract) for axis in (0, 1))
    return BandAddresses(
        first_row=gpu.upload(rows.first),
        first_column=gpu.upload(columns.first),
        row_weights=gpu.upload(rows.weights),
        column_weights=gpu.upload(columns.weights),
        row_taps=rows.taps,
        column_taps=columns.taps,
    )
