"""FP16 ONNX -> serialized TensorRT engine, one path for TensorRT 10.3 to 11.x.

The network is strongly typed: every tensor has the type that the ONNX file gives it, and no
precision flag exists on this path (11 removed them all). Enum values go by name, never by number:
TensorRT 11 renumbered them. TensorRT reports failures by None and its logger; both become errors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, SupportsInt, TypeVar

from ..errors import EngineError, MissingExtra
from .atomic import write_atomically
from .backends.gpu_frame import INPUT, STUDENT, TEACHER
from .cuda_driver import probe

if TYPE_CHECKING:
    import tensorrt as trt

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
ProgressCallback = Callable[[str, int, int], None]
"""phase name, steps done, steps in all"""
_MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the builder may use. The defaults suit a discrete GPU and Jetson alike."""

    workspace_mib: int = 2048
    """Scratch memory a layer may use; 1024 on an 8 GB Jetson."""
    optimization_level: int = 3
    """0 ... 5; 5 searches longer."""
    timing_cache: Path | None = None
    """Kernel timings of this very device and TensorRT; makes a rebuild fast and repeatable."""


@dataclass(frozen=True, slots=True)
class SerializedEngine:
    """The builder's result, not yet proved."""

    engine: bytes
    tensorrt_version: str
    strongly_typed: bool
    """False only on TensorRT 10.3 ... 10.11 when the strongly typed build failed there."""
    warnings: tuple[str, ...]


def import_tensorrt() -> ModuleType:
    """The tensorrt module. Probes the driver first: without one its bindings crash.

    Raises EngineError without driver or GPU, MissingExtra without the package.
    """
    probe()
    try:
        import tensorrt
    except ImportError as error:
        if error.name == "tensorrt":
            raise MissingExtra("tensorrt", "tensorrt", "a TensorRT plan") from error
        raise EngineError(f"tensorrt is installed but cannot be loaded: {error}") from error
    module: ModuleType = tensorrt
    return module


def build_engine(
    onnx: bytes, options: BuildOptions, progress: ProgressCallback | None = None
) -> SerializedEngine:
    """Build `onnx` (fp16 features form, static batch) for the GPU of this machine.

    Minutes of work. Raises EngineError with TensorRT's own words when anything is refused.
    """
    import_tensorrt()
    return build_serialized(onnx, options, progress)


def build_serialized(
    onnx: bytes, options: BuildOptions, progress: ProgressCallback | None = None
) -> SerializedEngine:
    """`build_engine` without the probe, for builders that need no device (TensorRT-RTX)."""
    import tensorrt as trt

    words = _Words()
    try:
        engine = _build(onnx, options, words, progress, strongly_typed=True)
        strongly_typed = True
    except EngineError:
        if _weak_fp16_flag() is None:
            raise
        # 10.3 (JetPack 6) has the flag for strong typing but only 10.12 calls it complete. Weak
        # typing on the same fp16 file computes in the same types where TensorRT finds it faster.
        logger.warning("the strongly typed build failed; trying weak typing with FP16 allowed")
        engine = _build(onnx, options, words, progress, strongly_typed=False)
        strongly_typed = False
    return SerializedEngine(engine, trt.__version__, strongly_typed, tuple(words.warnings))


class _Words:
    """TensorRT's messages of warning level and above, kept so that an error can quote them."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def given(self, value: _T | None, what: str) -> _T:
        """`value`; raises EngineError "TensorRT `what`: its own words" where there is none."""
        if value is None:
            raise self.failure(what)
        return value

    def failure(self, what: str) -> EngineError:
        said = "; ".join(self.errors[-3:]) or "its logger is silent"
        return EngineError(f"TensorRT {what}: {said}", "run skrd4ad doctor")


def trt_logger(words: _Words) -> trt.ILogger:
    """A logger for the builder or the runtime; must outlive both."""
    import tensorrt as trt

    # Without the package mypy sees Any here, with it (make engine-proof) a class.
    class Logger(trt.ILogger):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                words.errors.append(msg)
                logger.error("TensorRT: %s", msg)
            elif severity == trt.ILogger.Severity.WARNING:
                words.warnings.append(msg)
                logger.info("TensorRT warns: %s", msg)
            else:
                logger.debug("TensorRT: %s", msg)

    return Logger()


def new_words() -> _Words:
    """An empty record of TensorRT's messages."""
    return _Words()


def _progress_monitor(callback: ProgressCallback) -> trt.IProgressMonitor:
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(
            self, phase_name: str, parent_phase: str | None, num_steps: SupportsInt
        ) -> None:
            self._steps[phase_name] = int(num_steps)
            callback(phase_name, 0, int(num_steps))

        def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
            done = int(step) + 1
            callback(phase_name, done, self._steps.get(phase_name, done))
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 1)
            callback(phase_name, steps, steps)

    return Monitor()


def _weak_fp16_flag() -> Any:
    """BuilderFlag.FP16 where there still is one: TensorRT 11 has none."""
    import tensorrt as trt

    return getattr(trt.BuilderFlag, "FP16", None)


def _build(
    onnx: bytes,
    options: BuildOptions,
    words: _Words,
    progress: ProgressCallback | None,
    *,
    strongly_typed: bool,
) -> bytes:
    import tensorrt as trt

    log = trt_logger(words)
    builder = trt.Builder(log)
    flag = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = words.given(
        builder.create_network(1 << int(flag) if strongly_typed else 0), "made no network"
    )
    parser = trt.OnnxParser(network, log)
    if not parser.parse(onnx):
        problems = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        words.errors.extend(problems)
        raise words.failure("cannot read the network")
    _name_formats(network, words)
    config = _config(builder, options, words)
    if not strongly_typed:
        config.set_flag(_weak_fp16_flag())
    if progress is not None:
        # Kept in a name of its own: TensorRT does not keep it alive.
        monitor = _progress_monitor(progress)
        config.progress_monitor = monitor
    serialized = builder.build_serialized_network(network, config)
    engine = bytes(words.given(serialized, "could not build the engine"))
    _save_timings(config, options.timing_cache, words)
    return engine


def _name_formats(network: trt.INetworkDefinition, words: _Words) -> None:
    """Six outputs as HWC8, which our kernel reads with 16-byte loads; the input stays linear."""
    import tensorrt as trt

    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    outputs = [
        words.given(network.get_output(i), "lost an output") for i in range(network.num_outputs)
    ]
    if [tensor.name for tensor in inputs if tensor is not None] != [INPUT]:
        raise EngineError(f"expected one input '{INPUT}' in the ONNX file")
    names = [tensor.name for tensor in outputs]
    if names != [*TEACHER, *STUDENT]:
        raise EngineError(f"expected the outputs {[*TEACHER, *STUDENT]}, the file has {names}")
    for tensor in outputs:
        if tensor.dtype != trt.DataType.HALF or tensor.shape[1] % 8:
            raise EngineError(f"{tensor.name} is {tensor.dtype} {tuple(tensor.shape)}, not half")
        tensor.allowed_formats = 1 << int(trt.TensorFormat.HWC8)


def _config(builder: trt.Builder, options: BuildOptions, words: _Words) -> trt.IBuilderConfig:
    import tensorrt as trt

    config = words.given(builder.create_builder_config(), "made no builder configuration")
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MEBIBYTE)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.optimization_level
    config.max_aux_streams = 0  # everything on one stream, so that one capture holds it
    if options.timing_cache is not None:
        known = options.timing_cache.read_bytes() if options.timing_cache.exists() else b""
        cache = config.create_timing_cache(known)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            raise words.failure(
                f"refuses the timing cache {options.timing_cache} (another device or version);"
                " delete it"
            )
    return config


def _save_timings(config: trt.IBuilderConfig, path: Path | None, words: _Words) -> None:
    if path is None:
        return
    cache = words.given(config.get_timing_cache(), "kept no timing cache")
    stored = words.given(cache.serialize(), "cannot write its timing cache")
    write_atomically(path, bytes(stored))
