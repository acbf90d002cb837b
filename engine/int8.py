"""Static int8 of the ONNX graph: weights and activations of the convolutions as 8-bit QDQ pairs.

The ranges of the activations come from pictures of good parts. Cosine and map stay float32. A
quantised layer turns NaN into a number, which would let a broken picture pass; so the graph looks
at its input first and hands anything not finite on to map and score.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from ..errors import EngineError
from .export import INPUT, OUTPUTS

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_QUANTISED = (*_CONVOLUTIONS, "Relu", "Add", "MaxPool", "Concat")
GUARD = "skrd4ad.input"
"""Start of the names of the nodes that watch the input."""


def to_int8(model: onnx.ModelProto, pictures: NDArray[np.float32]) -> onnx.ModelProto:
    """A copy of a plain graph in map form: int8 convolutions (but the first), a guard at its input.

    `pictures` is (n, 3, H, W), normalised, of good parts: they fix the range of every activation.
    Weights have 7 bits per channel, so that no CPU's 8-bit products saturate: the same file gives
    the same verdicts with and without VNNI. Raises EngineError for weights or activations that are
    not finite and when ONNX Runtime's quantiser refuses the graph.
    """
    _check_weights(model)
    chosen = _between_the_first_and_the_last_convolution(model.graph)
    if not chosen:
        raise EngineError("the network has no two convolutions, so nothing can run in int8")
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    with tempfile.TemporaryDirectory(prefix="skrd4ad-int8-") as folder, _quiet():
        target = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                _named(model),
                str(target),
                _Pictures(pictures, batch),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED),
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        except Exception as error:  # the quantiser raises ValueError, RuntimeError and ORT's own
            first = str(error).strip().split("\n")[0]
            raise EngineError(
                f"onnxruntime cannot quantise this network: {first}", "use --precision fp32"
            ) from error
        quantised = onnx.load(str(target))
    _check_scales(quantised)
    _guard(quantised.graph)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


class _Pictures(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not annotated
    """Whole batches of the pictures, once."""

    def __init__(self, pictures: NDArray[np.float32], batch: int) -> None:
        whole = np.resize(pictures, (-(-len(pictures) // batch) * batch, *pictures.shape[1:]))
        self._batches = iter(whole.reshape(-1, batch, *whole.shape[1:]))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes all have a name: the quantiser chooses by names."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    for node, name in zip(named.graph.node, _node_names(model.graph), strict=True):
        node.name = name
    return named


def _node_names(graph: onnx.GraphProto) -> list[str]:
    return [f"{node.op_type}.{index}" for index, node in enumerate(graph.node)]


def _between_the_first_and_the_last_convolution(graph: onnx.GraphProto) -> list[str]:
    """Names of every convolution but the first, and of whatever else feeds one.

    The first reads the picture itself, is a hundredth of the work and costs the most accuracy in 8
    bits. What comes after the last one stays float as well: the cosine, the map, and the sums that
    make the student's features.
    """
    needed: set[str] = set()
    chosen: list[str] = []
    order = list(zip(graph.node, _node_names(graph), strict=True))
    convolutions = [index for index, (node, _) in enumerate(order) if node.op_type in _CONVOLUTIONS]
    start = convolutions[1] if len(convolutions) > 1 else len(order)
    for node, name in reversed(order[start:]):
        if node.op_type in _CONVOLUTIONS or needed.intersection(node.output):
            needed.update(node.input)
            if node.op_type in _QUANTISED:
                chosen.append(name)
    return chosen


def _check_weights(model: onnx.ModelProto) -> None:
    """8 bits have no NaN: a broken weight must be refused, because it could not be seen later."""
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and np.isnan(value).any():
            raise EngineError(f"weight {tensor.name} holds NaN", "train again")


def _check_scales(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if tensor.name.endswith("_scale") and not (np.isfinite(value) & (value > 0)).all():
            raise EngineError(
                f"the range of {tensor.name.removesuffix('_scale')} is not finite",
                "use --precision fp32; a network that was hardly trained can do this",
            )


def _guard(graph: onnx.GraphProto) -> None:
    """map and score become map + g and score + g, where g = 0 * (sum of the picture) per image:
    0 for every finite picture, NaN otherwise. The engine makes NaN +inf, which is a reject."""
    float32 = np.float32
    axes, spread = f"{GUARD}.axes", f"{GUARD}.spread"
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([1, 2, 3], np.int64), axes),
            numpy_helper.from_array(np.array([1, 2], np.int64), spread),
            numpy_helper.from_array(np.array(0.0, float32), f"{GUARD}.zero"),
        ]
    )
    map_name, score_name = OUTPUTS["map"]
    for node in graph.node:
        # The score is read off the map before the guard is added, not after.
        renamed = {map_name: f"{map_name}.unguarded", score_name: f"{score_name}.unguarded"}
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    total, guard = f"{GUARD}.sum", f"{GUARD}.guard"
    nodes = [
        helper.make_node("ReduceSum", [INPUT, axes], [total], name=total, keepdims=0),
        helper.make_node("Mul", [total, f"{GUARD}.zero"], [guard], name=guard),
        helper.make_node("Unsqueeze", [guard, spread], [f"{guard}.map"], name=f"{guard}.map"),
    ]
    for name, added in ((map_name, f"{guard}.map"), (score_name, guard)):
        nodes.append(helper.make_node("Add", [f"{name}.unguarded", added], [name], name=name))
    graph.node.extend(nodes)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser recommends its own pre-processing on the root logger; ours has been done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def quantised_convolutions(model: onnx.ModelProto) -> tuple[int, int]:
    """How many convolutions read dequantised weights, and how many there are."""
    dequantised = {
        node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    convolutions = [node for node in model.graph.node if node.op_type in _CONVOLUTIONS]
    return sum(node.input[1] in dequantised for node in convolutions), len(convolutions)
