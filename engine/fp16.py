"""FP16 by our own rewrite of the ONNX graph: features in half, cosine and map in float32.

Only operations known to survive half precision are converted; everything else keeps float32 between
explicit casts, as TensorRT's strongly typed networks need it. Weights and activations are checked
against the range of half, and the deviation is measured, not assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..errors import EngineError
from .export import INPUT
from .threads import machine_threads

HALF_MAX = 65504.0
ACTIVATION_LIMIT = HALF_MAX / 4
"""Activations of the check images must stay below this: a defect may be brighter than they are."""

_ALWAYS_HALF = {"Conv", "ConvTranspose"}
_HALF_WITH_A_HALF_INPUT = {"Relu", "Add", "MaxPool", "Concat"}
_FLOAT = {"Mul", "Div", "Sub", "Sqrt", "Pow", "Clip", "ReduceSum", "ReduceMax", "ReduceMean"}
_FLOAT |= {"MatMul", "Where", "IsNaN", "Equal", "LessOrEqual", "And", "Cast", "Flatten", "Reshape"}
_FLOAT |= {"TopK", "Max", "Add", "Squeeze", "Unsqueeze", "Expand", "Reciprocal"}


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far the FP16 graph is from float32 on the check images."""

    feature_rel_rms: tuple[float, ...]
    """RMS(difference)/RMS(reference) of E1, E2, E3, D1, D2, D3."""
    map_max_abs: float
    score_max_abs: float
    verdict_flips: int | None
    """Scores on the other side of the threshold; None while there is no threshold."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a plain graph (engine/onnx_graph.py) in half precision, input included.

    Feature outputs become float16, map and score stay float32. Raises EngineError for an operation
    we have not considered and for a weight that is not finite or beyond the range of half.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    _Rewrite(half.graph).run()
    del half.graph.value_info[:]
    onnx.checker.check_model(half, full_check=True)
    return half


def largest_activation(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> tuple[float, str]:
    """The largest |value| that any tensor of the float32 graph takes, and the tensor's name.

    `inputs` is (n, 3, H, W); n is cut to whole batches of the graph.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    present = {output.name for output in watched.graph.output}
    names = [
        node.output[0]
        for node in watched.graph.node
        if node.op_type in _ALWAYS_HALF | _HALF_WITH_A_HALF_INPUT and node.output[0] not in present
    ]
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    session = _session(watched, optimise=True)
    largest, where = 0.0, ""
    for batch in _batches(model, inputs):
        for name, value in zip(names, session.run(names, {INPUT: batch}), strict=True):
            peak = float(np.abs(value).max())
            if not peak <= largest:  # also true for NaN
                largest, where = peak, name
    return largest, where


def check_activations(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> float:
    """The largest activation; raises EngineError when it comes near the range of half."""
    largest, where = largest_activation(model, inputs)
    if not largest <= ACTIVATION_LIMIT:
        raise EngineError(
            f"activation {where} reaches {largest:.3g}, beyond {ACTIVATION_LIMIT:.0f}, a quarter"
            " of the range of FP16",
            "use --precision fp32 for this network",
        )
    return largest


def measure_deviation(
    features: tuple[onnx.ModelProto, onnx.ModelProto],
    maps: tuple[onnx.ModelProto, onnx.ModelProto],
    inputs: NDArray[np.float32],
    threshold: float | None = None,
) -> Deviation:
    """Compare (float32, FP16) graphs of both forms on ONNX Runtime.

    The FP16 graphs run `with_explicit_rounding` and without graph optimisation, which could fuse
    two operations and skip the rounding between them.
    """
    expected = run_graph(features[0], inputs)
    found = run_graph(with_explicit_rounding(features[1]), inputs, optimise=False)
    rel_rms = tuple(
        float(np.sqrt(np.mean((f - e) ** 2) / np.mean(e**2)))
        for e, f in zip(expected, found, strict=True)
    )
    expected = run_graph(maps[0], inputs)
    found = run_graph(with_explicit_rounding(maps[1]), inputs, optimise=False)
    flips = None
    if threshold is not None:
        flips = int(np.count_nonzero((expected[1] > threshold) != (found[1] > threshold)))
    return Deviation(
        feature_rel_rms=rel_rms,
        map_max_abs=float(np.abs(found[0] - expected[0]).max()),
        score_max_abs=float(np.abs(found[1] - expected[1]).max()),
        verdict_flips=flips,
    )


def run_graph(
    model: onnx.ModelProto, inputs: NDArray[np.float32], optimise: bool = True
) -> list[NDArray[np.float64]]:
    """All outputs for float32 (n, 3, H, W) as float64, concatenated over batches."""
    session = _session(model, optimise)
    results: list[Sequence[NDArray[np.generic]]] = [
        session.run(None, {INPUT: batch}) for batch in _batches(model, inputs)
    ]
    return [np.concatenate(parts).astype(np.float64) for parts in zip(*results, strict=True)]


def with_explicit_rounding(half: onnx.ModelProto) -> onnx.ModelProto:
    """The FP16 graph in float32 tensors, each rounded to half where the FP16 graph stores half.

    ONNX Runtime computes FP16 on a CPU in float32 and drops the casts between neighbours, so the
    FP16 graph itself would show the rounding of its outputs alone. A GPU rounds every tensor it
    stores and accumulates in float32: that is what this graph does.
    """
    typed = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph
    halves = {
        value.name
        for value in (*typed.input, *typed.value_info, *typed.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    rounded = onnx.ModelProto()
    rounded.CopyFrom(half)
    graph = rounded.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            value = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for value_info in (*graph.input, *graph.output):
        value_info.type.tensor_type.elem_type = TensorProto.FLOAT
    nodes = [*_rounding(INPUT, f"{INPUT}.rounded")]
    for node in half.graph.node:
        inputs = [f"{INPUT}.rounded" if name == INPUT else name for name in node.input]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        after: list[onnx.NodeProto] = []
        for index, name in enumerate(node.output):
            if name in halves:
                copy.output[index] = f"{name}.exact"
                after += _rounding(f"{name}.exact", name)
        for item in copy.attribute:
            if copy.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT16:
                item.i = TensorProto.FLOAT
        nodes += [copy, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(rounded, full_check=True)
    return rounded


def _rounding(source: str, target: str) -> list[onnx.NodeProto]:
    half = f"{target}.half"
    return [
        helper.make_node("Cast", [source], [half], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [target], to=TensorProto.FLOAT),
    ]


class _Rewrite:
    """One pass over the nodes in order, tracking which tensors are half."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.half = {value.name for value in graph.input}
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        for node in self.graph.node:
            if self._runs_in_half(node):
                self._convert_to_half(node)
            elif node.op_type in _FLOAT:
                self._keep_float(node)
            else:
                raise EngineError(
                    f"operation {node.op_type} ({node.name}) is not on the FP16 list",
                    "use --precision fp32 for this network",
                )
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        for value in (*self.graph.input, *self.graph.output):
            kind = TensorProto.FLOAT16 if value.name in self.half else TensorProto.FLOAT
            value.type.tensor_type.elem_type = kind
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for name, tensor in self.weights.items() if name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _runs_in_half(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _ALWAYS_HALF:
            return True
        any_half = any(name in self.half for name in node.input)
        return node.op_type in _HALF_WITH_A_HALF_INPUT and any_half

    def _convert_to_half(self, node: onnx.NodeProto) -> None:
        for index, name in enumerate(node.input):
            if name in self.weights:
                node.input[index] = self._half_weight(name)
            elif name and name not in self.half:
                node.input[index] = self._cast(name, TensorProto.FLOAT16)
        self.half.update(node.output)
        self.nodes.append(node)

    def _keep_float(self, node: onnx.NodeProto) -> None:
        target = next((item.i for item in node.attribute if item.name == "to"), None)
        if node.op_type != "Cast":
            for index, name in enumerate(node.input):
                if name in self.half:
                    node.input[index] = self._cast(name, TensorProto.FLOAT)
        elif target == TensorProto.FLOAT16:
            self.half.update(node.output)
        self.nodes.append(node)

    def _cast(self, name: str, kind: int) -> str:
        """`name` as float32 or float16, cast once."""
        if (name, kind) not in self.casts:
            suffix = "half" if kind == TensorProto.FLOAT16 else "float"
            cast = f"{name}.{suffix}"
            self.nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=kind))
            self.casts[name, kind] = cast
            if kind == TensorProto.FLOAT16:
                self.half.add(cast)
        return self.casts[name, kind]

    def _half_weight(self, name: str) -> str:
        tensor = self.weights[name]
        if tensor.data_type != TensorProto.FLOAT:
            return name
        value = numpy_helper.to_array(tensor)
        if not np.isfinite(value).all() or np.abs(value).max(initial=0.0) > HALF_MAX:
            raise EngineError(
                f"weight {name} reaches {np.abs(value).max():.3g}, which FP16 cannot hold",
                "use --precision fp32 for this network",
            )
        half = f"{name}.half"
        if half not in self.weights:
            self.weights[half] = numpy_helper.from_array(value.astype(np.float16), half)
        return half


def _session(model: onnx.ModelProto, optimise: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = machine_threads()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _batches(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    return [inputs[start : start + size] for start in range(0, len(inputs) - size + 1, size)]
