"""Rewrites that make an exported ONNX graph plain: no Identity, no Constant node, no BatchNorm.

What is left of a network is Conv, ConvTranspose, Relu, Add, MaxPool, Concat and the map head, which
every backend reads alike and the FP16 pass can check op by op.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from ..errors import EngineError

OUTPUT_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}


def plain_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A checked copy of `model` without Identity, Constant, Dropout and foldable BatchNorm nodes.

    Raises EngineError when a BatchNormalization is left (it would run in another precision).
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    _constants_to_initializers(graph)
    _drop_identities(graph)
    _drop_unit_factors(graph)
    fold_batch_norm(graph)
    _drop_unused(graph)
    left = [node.name for node in graph.node if node.op_type == "BatchNormalization"]
    if left:
        raise EngineError(f"the exported graph keeps BatchNormalization nodes: {', '.join(left)}")
    del graph.value_info[:]  # shapes are inferred again; stale ones would contradict the rewrite
    onnx.checker.check_model(plain, full_check=True)
    return plain


def fold_batch_norm(graph: onnx.GraphProto) -> int:
    """Fold each BatchNormalization into the Conv or ConvTranspose before it; returns how many.

    W' = W * s and b' = (b - mean) * s + beta with s = gamma / sqrt(var + epsilon), per output
    channel, in float64. Exporters fold Conv, but leave ConvTranspose as it is.
    """
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    uses = Counter(_tensors_read(graph))
    folded: list[onnx.NodeProto] = []
    for norm in graph.node:
        if norm.op_type != "BatchNormalization":
            continue
        convolution = producers.get(norm.input[0])
        if convolution is None or not _foldable(convolution, norm, weights, uses):
            continue
        _fold_one(graph, convolution, norm, weights)
        folded.append(norm)
    for norm in folded:
        graph.node.remove(norm)
    return len(folded)


def _foldable(
    convolution: onnx.NodeProto,
    norm: onnx.NodeProto,
    weights: dict[str, onnx.TensorProto],
    uses: Counter[str],
) -> bool:
    parameters = [*convolution.input[1:], *norm.input[1:]]
    group = next((item.i for item in convolution.attribute if item.name == "group"), 1)
    return (
        convolution.op_type in OUTPUT_CHANNEL_AXIS
        and (convolution.op_type == "Conv" or group == 1)
        and uses[convolution.output[0]] == 1
        and all(name in weights for name in parameters)
    )


def _fold_one(
    graph: onnx.GraphProto,
    convolution: onnx.NodeProto,
    norm: onnx.NodeProto,
    weights: dict[str, onnx.TensorProto],
) -> None:
    gamma, beta, mean, variance = (_float64(weights[name]) for name in norm.input[1:5])
    epsilon = next((item.f for item in norm.attribute if item.name == "epsilon"), 1e-5)
    scale = gamma / np.sqrt(variance + epsilon)
    kernel = _float64(weights[convolution.input[1]])
    bias = _float64(weights[convolution.input[2]]) if len(convolution.input) > 2 else 0.0
    shape = [1] * kernel.ndim
    shape[OUTPUT_CHANNEL_AXIS[convolution.op_type]] = -1
    # New names: an exporter shares one initializer between nodes with equal values.
    stem = norm.output[0]
    for name, value in (
        (f"{stem}.weight", kernel * scale.reshape(shape)),
        (f"{stem}.bias", (bias - mean) * scale + beta),
    ):
        tensor = numpy_helper.from_array(value.astype(np.float32), name)
        graph.initializer.append(tensor)
        weights[name] = tensor
    del convolution.input[1:]
    convolution.input.extend([f"{stem}.weight", f"{stem}.bias"])
    convolution.output[0] = norm.output[0]


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        tensor = numpy_helper.from_array(_constant_value(node), node.output[0])
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _constant_value(node: onnx.NodeProto) -> NDArray[np.generic]:
    for item in node.attribute:
        if item.name == "value":
            value: NDArray[np.generic] = numpy_helper.to_array(item.t)
            return value
        if item.name == "value_float":
            return np.array(item.f, np.float32)
        if item.name == "value_floats":
            return np.array(item.floats, np.float32)
        if item.name == "value_int":
            return np.array(item.i, np.int64)
        if item.name == "value_ints":
            return np.array(item.ints, np.int64)
    raise EngineError(f"Constant node {node.output[0]} of the exported graph has no plain value")


def _drop_identities(graph: onnx.GraphProto) -> None:
    """Readers of an Identity or an idle Dropout read its source; graph outputs keep theirs."""
    results = {output.name for output in graph.output}
    source: dict[str, str] = {}
    for node in list(graph.node):
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)
        if node.op_type in ("Identity", "Dropout") and node.output[0] not in results:
            source[node.output[0]] = node.input[0]
            graph.node.remove(node)


def _drop_unit_factors(graph: onnx.GraphProto) -> None:
    """x * 1.0 becomes x (an open skip gate); one exporter does this itself, the other does not."""
    results = {output.name for output in graph.output}
    ones = {
        tensor.name
        for tensor in graph.initializer
        if list(tensor.dims) in ([], [1]) and numpy_helper.to_array(tensor) == 1.0
    }
    source: dict[str, str] = {}
    for node in list(graph.node):
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)
        factors = [name for name in node.input if name not in ones]
        if node.op_type == "Mul" and len(factors) == 1 and node.output[0] not in results:
            source[node.output[0]] = factors[0]
            graph.node.remove(node)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that no output depends on."""
    while True:
        read = set(_tensors_read(graph))
        idle = [node for node in graph.node if not read.intersection(node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _tensors_read(graph: onnx.GraphProto) -> Iterable[str]:
    for node in graph.node:
        yield from node.input
    for output in graph.output:
        yield output.name


def _float64(tensor: onnx.TensorProto) -> NDArray[np.float64]:
    value: NDArray[np.float64] = numpy_helper.to_array(tensor).astype(np.float64)
    return value


def poisoned_copies(model: onnx.ModelProto) -> Iterable[onnx.ModelProto]:
    """Copies with one NaN weight: in the first, the middle and the last convolution.

    They are the negative control of "NaN scores +inf": the features themselves become NaN.
    """
    convolutions = [node for node in model.graph.node if node.op_type in OUTPUT_CHANNEL_AXIS]
    for node in (convolutions[0], convolutions[len(convolutions) // 2], convolutions[-1]):
        poisoned = onnx.ModelProto()
        poisoned.CopyFrom(model)
        for tensor in poisoned.graph.initializer:
            if tensor.name == node.input[1]:
                value = numpy_helper.to_array(tensor).copy()
                value.flat[0] = np.nan
                tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        yield poisoned


def multiply_adds(model: onnx.ModelProto) -> int:
    """Multiply-adds of all convolutions and matrix products of one run, from the static shapes."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":
            # Each output value sums over input channels (of its group) and the kernel.
            total += prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":
            # Each input value goes to output channels (of its group) and the kernel.
            total += prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
        elif node.op_type == "MatMul":
            total += prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return total
