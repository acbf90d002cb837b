"""What a GPU plan holds beside its check set: the FP16 network, the kernels, and what to expect.

The expected deviation from float32 is measured on the CPU with the same FP16 graph, so that the
GPU is held to its own arithmetic and not to a guess.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import EngineError
from .cuda_driver import probe
from .export import INPUT, OUTPUTS, ExportedModel
from .fp16 import Deviation, check_activations, measure_deviation, to_fp16
from .kernel_build import build_cubin, nvcc_version, sources_sha256
from .onnx_graph import multiply_adds
from .plan_content import PlanContent
from .spec import Backend, TensorInfo

logger = logging.getLogger(__name__)

FEATURE_REL_RMS_LIMIT = 1e-2
MAP_LIMIT = 5e-3
"""No FP16 plan is made beyond these, whatever the CPU expects."""
TOLERANCE_FACTOR = 4.0
"""A GPU sums in another order than the CPU; its deviation may be this much larger."""
TOLERANCE_FLOOR = 5e-4


def build_gpu_content(
    features: ExportedModel,
    maps: ExportedModel,
    inputs: NDArray[np.float32],
    backend: Backend,
) -> PlanContent:
    """Convert, measure, compile kernels and, for TensorRT, build the engine: minutes.

    `features` and `maps` are the two forms of one float32 network; `inputs` (n, 3, H, W).

    Raises EngineError without a GPU or nvcc, when the network does not fit FP16, and with
    TensorRT's own words when it refuses.
    """
    facts = probe()
    whole = np.resize(inputs, (max(len(inputs), features.batch), *inputs.shape[1:]))
    largest = check_activations(features.model, whole)
    half = to_fp16(features.model)
    pairs = (features.model, half), (maps.model, to_fp16(maps.model))
    deviation = measure_deviation(*pairs, whole)
    map_tolerance, score_tolerance = tolerances(deviation)
    members = {"model.onnx": bytes(half.SerializeToString())}
    build = {
        "gpu": facts.name,
        "sm": facts.compute_capability,
        "driver_cuda": facts.driver_cuda,
        "nvcc": nvcc_version(),
        "kernels_sha256": sources_sha256(),
        "multiply_adds": str(multiply_adds(features.model)),
        "fp16_largest_activation": f"{largest:.4g}",
        "fp16_expected_map_max_abs": f"{deviation.map_max_abs:.2e}",
        "fp16_expected_score_max_abs": f"{deviation.score_max_abs:.2e}",
        "fp16_expected_feature_rel_rms": f"{max(deviation.feature_rel_rms):.2e}",
    }
    tensors = channels_last_tensors(half)
    if backend == "tensorrt":
        engine, tensors, version = _tensorrt(members["model.onnx"])
        members["model.trt"] = engine
        build["tensorrt"] = version
    members["kernels.cubin"] = build_cubin(facts.compute_capability)
    return PlanContent(members, tensors, build, map_tolerance, score_tolerance)


def tolerances(deviation: Deviation) -> tuple[float, float]:
    """(map, score) tolerances from the expected deviation. Raises EngineError beyond the limits."""
    worst = max(deviation.feature_rel_rms)
    if not worst <= FEATURE_REL_RMS_LIMIT or not deviation.map_max_abs <= MAP_LIMIT:
        raise EngineError(
            f"FP16 changes this network too much: features by {worst:.1e} (limit"
            f" {FEATURE_REL_RMS_LIMIT:.0e}), the map by {deviation.map_max_abs:.1e} (limit"
            f" {MAP_LIMIT:.0e})",
            "use --backend onnxruntime, which runs float32; an untrained network fails here too",
        )
    expected = (deviation.map_max_abs, deviation.score_max_abs)
    wanted = [max(TOLERANCE_FACTOR * value, TOLERANCE_FLOOR) for value in expected]
    return min(wanted[0], MAP_LIMIT), min(wanted[1], MAP_LIMIT)


def channels_last_tensors(half: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """The tensor table of a torch-cuda plan: linear input, features as (n, h, w, c) in memory."""
    described = {value.name: value for value in (*half.graph.input, *half.graph.output)}
    return tuple(
        TensorInfo(
            name=name,
            direction="input" if name == INPUT else "output",
            dtype="float16",
            shape=tuple(dim.dim_value for dim in described[name].type.tensor_type.shape.dim),
            format="linear" if name == INPUT else "hwc8",
        )
        for name in (INPUT, *OUTPUTS["features"])
    )


def _tensorrt(model: bytes) -> tuple[bytes, tuple[TensorInfo, ...], str]:
    from .backends.tensorrt_cuda import engine_tensors
    from .tensorrt_build import BuildOptions, build_engine

    built = build_engine(model, BuildOptions(), _announce_phases())
    if not built.strongly_typed:
        logger.warning("the engine is weakly typed (TensorRT %s)", built.tensorrt_version)
    return built.engine, engine_tensors(built.engine), built.tensorrt_version


def _announce_phases() -> Callable[[str, int, int], None]:
    """One line per finished phase; a build of minutes must not look dead."""

    def announce(phase: str, done: int, total: int) -> None:
        if total > 0 and done == total:
            logger.info("TensorRT: %s done", phase)

    return announce
