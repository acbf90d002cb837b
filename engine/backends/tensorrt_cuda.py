"""The TensorRT backend: the plan's engine computes the features, our kernels the map.

A TensorRT engine runs on the GPU model and the TensorRT version it was built with. The plan says
which those were, and a difference is refused before the engine is touched.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from ...errors import EngineError, PlanError
from ..cuda import Gpu, Stream
from ..cuda_driver import DeviceFacts, probe
from ..plan import Plan
from ..spec import Manifest, TensorInfo
from ..tensorrt_build import import_tensorrt, new_words, trt_logger
from .gpu_frame import GpuEngine

if TYPE_CHECKING:
    import tensorrt as trt

ENGINE = "model.trt"
KERNELS = "kernels.cubin"


def open_tensorrt(plan: Plan) -> GpuEngine:
    """The TensorRT engine for `plan`. Raises PlanError for a plan of another device or version,
    EngineError when the device fails, MissingExtra without tensorrt or pycuda."""
    facts = probe()
    version = str(import_tensorrt().__version__)
    refuse_foreign(plan, facts, version)
    gpu = Gpu()
    with ExitStack() as undo:
        undo.callback(gpu.close)
        with gpu.current():
            network = TensorrtNetwork(plan.read(ENGINE), plan.manifest)
        # From here on the engine owns both: it releases them if it cannot start.
        undo.pop_all()
    return GpuEngine(
        plan.manifest,
        gpu,
        network,
        plan.read(KERNELS),
        f"tensorrt-{version} fp16 on {facts.name} (sm_{facts.compute_capability})",
    )


def refuse_foreign(plan: Plan, facts: DeviceFacts, tensorrt_version: str | None) -> None:
    """Raise PlanError, both sides named, unless the plan was built for this device and version.

    None as the version: the backend does not use TensorRT.
    """
    here = {"gpu": facts.name, "sm": facts.compute_capability}
    if tensorrt_version is not None:
        here["tensorrt"] = tensorrt_version
    built = {name: plan.manifest.build.get(name, "unknown") for name in here}
    differing = [name for name in here if here[name] != built[name]]
    if differing:
        theirs = ", ".join(f"{name} {built[name]}" for name in differing)
        ours = ", ".join(f"{name} {here[name]}" for name in differing)
        raise PlanError(
            f"{plan.path} was built for {theirs}; this machine has {ours}",
            f"on this machine: skrd4ad compile --run RUN --out {plan.path} --backend"
            f" {plan.manifest.backend}",
        )


class TensorrtNetwork:
    """A deserialized engine and its one execution context (a FeatureNetwork)."""

    def __init__(self, engine: memoryview, manifest: Manifest) -> None:
        """The CUDA context must be current. Raises EngineError with TensorRT's own words."""
        import tensorrt as trt

        self._words = new_words()
        self._log = trt_logger(self._words)  # TensorRT keeps a bare pointer to it
        self._runtime = trt.Runtime(self._log)
        self._engine: trt.ICudaEngine = self._words.given(
            self._runtime.deserialize_cuda_engine(engine), "refuses the plan's engine"
        )
        found = read_tensors(self._engine)
        if found != manifest.tensors:
            raise PlanError(
                f"the engine's tensors are {_table(found)}, the manifest says"
                f" {_table(manifest.tensors)}",
                "compile the plan again",
            )
        self._context: trt.IExecutionContext = self._words.given(
            self._engine.create_execution_context(), "cannot create an execution context"
        )

    def bind(self, addresses: dict[str, int]) -> None:
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._words.failure(f"refuses the address of {name}")

    def enqueue(self, stream: Stream) -> None:
        if not self._context.execute_async_v3(stream.handle):
            raise self._words.failure("did not run the network")

    def close(self) -> None:
        # In this order; the logger goes last, with this object.
        for name in ("_context", "_engine", "_runtime"):
            self.__dict__.pop(name, None)


def engine_tensors(engine: bytes) -> tuple[TensorInfo, ...]:
    """The I/O table of a freshly built engine, for the manifest. Needs the GPU it was built for."""
    import tensorrt as trt

    words = new_words()
    log = trt_logger(words)
    gpu = Gpu()
    with ExitStack() as undo:
        undo.callback(gpu.close)
        with gpu.current():
            runtime = trt.Runtime(log)
            loaded = words.given(
                runtime.deserialize_cuda_engine(engine), "refuses the engine it has just built"
            )
            table = read_tensors(loaded)
            del loaded, runtime  # before the context goes
    return table


def read_tensors(engine: trt.ICudaEngine) -> tuple[TensorInfo, ...]:
    """The I/O table as the built engine has it, not as it was asked for."""
    import tensorrt as trt

    kinds = {trt.DataType.HALF: "float16", trt.DataType.FLOAT: "float32"}
    formats = {trt.TensorFormat.LINEAR: "linear", trt.TensorFormat.HWC8: "hwc8"}
    table = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind, layout = engine.get_tensor_dtype(name), engine.get_tensor_format(name)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        if kind not in kinds or layout not in formats:
            raise EngineError(f"TensorRT made {name} {kind} {layout}, which no kernel here reads")
        table.append(
            TensorInfo(
                name=name,
                direction="input" if is_input else "output",
                dtype=kinds[kind],
                shape=tuple(engine.get_tensor_shape(name)),
                format=formats[layout],
            )
        )
    return tuple(table)


def _table(tensors: tuple[TensorInfo, ...]) -> str:
    return ", ".join(f"{t.name} {t.dtype} {t.shape} {t.format}" for t in tensors)
