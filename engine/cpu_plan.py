"""What a CPU plan holds beside its check set: the ONNX graph in float32, or in int8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .backends.onnxruntime_cpu import MODEL, open_session
from .devices import package_version
from .export import INPUT, OUTPUTS, ExportedModel
from .int8 import quantised_convolutions, to_int8
from .int8_difference import JudgedImages, measure_difference, refuse_if_changed, tolerances
from .onnx_graph import multiply_adds, poisoned_copies
from .plan_content import PlanContent
from .proof import FP32_TOLERANCE, Finding
from .spec import TensorInfo
from .threads import machine_threads


def float_content(exported: ExportedModel, inputs: NDArray[np.float32]) -> PlanContent:
    """The graph as exported; `inputs` (n, 3, H, W) are the check images."""
    return PlanContent(
        members={MODEL: exported.bytes()},
        tensors=map_tensors(exported.batch, inputs.shape[2], inputs.shape[3]),
        build=build_facts(exported),
        map_tolerance=FP32_TOLERANCE,
        score_tolerance=FP32_TOLERANCE,
        controls=(_nan_weight_scores_infinity(exported, inputs),),
    )


def int8_content(
    exported: ExportedModel, inputs: NDArray[np.float32], judged: JudgedImages
) -> PlanContent:
    """The graph in int8, with what that changes measured. Raises EngineError when a verdict flips.

    Its tolerances are what was measured on `judged` and on the check images, and a half more.
    """
    quantised = to_int8(exported.model, judged.range_inputs)
    data = bytes(quantised.SerializeToString())
    difference = measure_difference(exported.bytes(), data, inputs, judged)
    refuse_if_changed(difference)
    done, total = quantised_convolutions(quantised)
    map_tolerance, score_tolerance = tolerances(difference)
    return PlanContent(
        members={MODEL: data},
        tensors=map_tensors(exported.batch, inputs.shape[2], inputs.shape[3]),
        build=build_facts(exported) | {"int8_convolutions": f"{done} of {total}"},
        map_tolerance=map_tolerance,
        score_tolerance=score_tolerance,
        controls=(_broken_pictures_score_infinity(data, exported.batch, inputs),),
        quantisation=difference,
    )


def build_facts(exported: ExportedModel) -> dict[str, str]:
    """What the manifest's `build` says about a CPU plan."""
    return {
        "onnxruntime": package_version("onnxruntime") or "unknown",
        "multiply_adds": str(multiply_adds(exported.model)),
        "threads": str(machine_threads()),
    }


def _nan_weight_scores_infinity(exported: ExportedModel, inputs: NDArray[np.float32]) -> Finding:
    """A network whose features become NaN on the way must reject, wherever it happens."""
    batch = np.resize(inputs, (exported.batch, *inputs.shape[1:]))
    found: Sequence[float] = []
    for model in poisoned_copies(exported.model):
        session = open_session(model.SerializeToString(), machine_threads())
        found = [*found, float(session.run(("score",), {INPUT: batch})[0].min())]
    return Finding(
        "NaN weight scores", ", ".join(map(str, found)), "inf", all(s == np.inf for s in found)
    )


def _broken_pictures_score_infinity(
    model: bytes, batch: int, inputs: NDArray[np.float32]
) -> Finding:
    """int8 has no NaN, so the guard must see one value that is not finite, wherever it is, and
    must not make the neighbours in the batch pay for it."""
    session = open_session(model, machine_threads())
    whole = np.resize(inputs, (batch, *inputs.shape[1:])).astype(np.float32)
    height, width = whole.shape[2:]
    seen, cases = 0, 0
    for value in (np.nan, np.inf, -np.inf):
        for place in ((0, 0, 0), (2, height - 1, width - 1), (1, height // 2, 0)):
            broken = whole.copy()
            broken[0][place] = value
            maps, scores = session.run(OUTPUTS["map"], {INPUT: broken})
            cases += 1
            seen += bool(
                np.isnan(scores[0])
                and np.isnan(maps[0]).all()
                and np.isfinite(scores[1:]).all()
                and np.isfinite(maps[1:]).all()
            )
    return Finding("broken pictures are seen", f"{seen} of {cases}", "all", seen == cases)


def map_tensors(batch: int, height: int, width: int) -> tuple[TensorInfo, ...]:
    """The tensor table of a graph in map form."""
    shapes = {INPUT: (batch, 3, height, width), "map": (batch, height, width), "score": (batch,)}
    return tuple(
        TensorInfo(
            name=name,
            direction="output" if name in OUTPUTS["map"] else "input",
            dtype="float32",
            shape=shape,
        )
        for name, shape in shapes.items()
    )
