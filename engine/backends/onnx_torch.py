"""Runs our own fp16 feature graph with torch functions: six operations, nothing else.

The plan holds ONNX and the engine may not import the trainer, so the torch-cuda backend reads the
graph that `compile` wrote. An operation outside the table is refused by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from ...errors import EngineError

Tensors = Sequence[torch.Tensor]
Attributes = Mapping[str, Any]


class TorchGraph:
    """An ONNX graph with its weights on one device, channels last."""

    def __init__(self, model: bytes, device: str, dtype: torch.dtype = torch.float16) -> None:
        """Raises EngineError for a model that is damaged or holds another operation."""
        try:
            graph = onnx.load_from_string(model).graph
        except Exception as error:  # protobuf's classes depend on its version
            raise EngineError(f"the plan's ONNX file cannot be read: {error}") from error
        unknown = sorted({node.op_type for node in graph.node} - set(_OPERATIONS))
        if unknown:
            raise EngineError(
                f"the torch-cuda backend does not know the operations {', '.join(unknown)}",
                "compile the plan for tensorrt or onnxruntime",
            )
        self.inputs = tuple(value.name for value in graph.input)
        self.outputs = tuple(value.name for value in graph.output)
        self._steps = [
            (
                _OPERATIONS[node.op_type],
                tuple(node.input),
                node.output[0],
                {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            )
            for node in graph.node
        ]
        self._weights = {}
        for weight in graph.initializer:
            values = torch.from_numpy(np.array(numpy_helper.to_array(weight)))
            values = values.to(device=device, dtype=dtype)
            if values.ndim == 4:
                values = values.contiguous(memory_format=torch.channels_last)
            self._weights[weight.name] = values
        uses = Counter(name for _, names, _, _ in self._steps for name in names)
        self._keep = {name: count for name, count in uses.items() if name not in self._weights}

    def __call__(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """(n, 3, H, W) -> the graph's outputs by name. Values are dropped after their last use."""
        values = {self.inputs[0]: image.contiguous(memory_format=torch.channels_last)}
        remaining = dict(self._keep)
        for operation, names, output, attributes in self._steps:
            given = [values[n] if n in values else self._weights[n] for n in names]
            values[output] = operation(given, attributes)
            for name in names:
                if name in remaining:
                    remaining[name] -= 1
                    if remaining[name] == 0 and name not in self.outputs:
                        values.pop(name, None)
        return {name: values[name] for name in self.outputs}


def _conv(x: Tensors, given: Attributes) -> torch.Tensor:
    padding = _symmetric(given.get("pads", [0, 0, 0, 0]))
    return F.conv2d(
        x[0],
        x[1],
        x[2] if len(x) > 2 else None,
        stride=tuple(given.get("strides", (1, 1))),
        padding=padding,
        dilation=tuple(given.get("dilations", (1, 1))),
        groups=given.get("group", 1),
    )


def _conv_transpose(x: Tensors, given: Attributes) -> torch.Tensor:
    return F.conv_transpose2d(
        x[0],
        x[1],
        x[2] if len(x) > 2 else None,
        stride=tuple(given.get("strides", (1, 1))),
        padding=_symmetric(given.get("pads", [0, 0, 0, 0])),
        output_padding=tuple(given.get("output_padding", (0, 0))),
        groups=given.get("group", 1),
        dilation=tuple(given.get("dilations", (1, 1))),
    )


def _max_pool(x: Tensors, given: Attributes) -> torch.Tensor:
    if given.get("ceil_mode", 0):
        raise EngineError("MaxPool with ceil_mode is not an operation of our networks")
    return F.max_pool2d(
        x[0],
        tuple(given["kernel_shape"]),
        stride=tuple(given.get("strides", (1, 1))),
        padding=_symmetric(given.get("pads", [0, 0, 0, 0])),
    )


def _symmetric(pads: Sequence[int]) -> tuple[int, int]:
    """ONNX pads (top, left, bottom, right) -> torch padding (rows, columns)."""
    if len(pads) != 4 or pads[:2] != pads[2:]:
        raise EngineError(f"asymmetric padding {list(pads)} is not one of our networks'")
    return pads[0], pads[1]


_OPERATIONS: dict[str, Callable[[Tensors, Attributes], torch.Tensor]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "Relu": lambda x, given: F.relu(x[0]),
    "Add": lambda x, given: x[0] + x[1],
    "Concat": lambda x, given: torch.cat(list(x), dim=given["axis"]),
}
