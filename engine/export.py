"""From a trained network to ONNX: opset 17, static shapes, plain ops, two forms.

"map" ends in the map and the score (CPU backend, and the oracle of every other one); "features"
ends in the six feature maps that the CUDA kernels of the GPU backends compare.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import EngineError, MissingExtra

try:
    import onnx
    import onnx.version_converter
except ImportError as missing:  # the verb's module is imported before its options are read
    raise MissingExtra("onnx", "train", "exporting a network") from missing

from .onnx_graph import plain_graph

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..trainer.map_head import Inspector

OPSET = 17
DYNAMO_OPSET = 18
"""The oldest that torch's dynamo exporter writes; we convert the plain graph down ourselves."""
IR_VERSION = 8
"""The ONNX file version that belongs to opset 17; onnxruntime from 1.13 on reads it."""

Form = Literal["map", "features"]
Exporter = Literal["legacy", "dynamo"]

INPUT = "image"
OUTPUTS: dict[Form, tuple[str, ...]] = {
    "map": ("map", "score"),
    "features": ("teacher1", "teacher2", "teacher3", "student1", "student2", "student3"),
}


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """An ONNX model and how it came about."""

    model: onnx.ModelProto
    form: Form
    exporter: Exporter
    """ "legacy" is torch's TorchScript tracer, "dynamo" its torch.export successor."""
    batch: int
    torch_version: str

    def bytes(self) -> bytes:
        """The file's content."""
        return bytes(self.model.SerializeToString())


def export_model(
    inspector: Inspector,
    batch: int = 1,
    form: Form = "map",
    exporter: Exporter = "legacy",
) -> ExportedModel:
    """Export `inspector` (eval mode) for float32 (batch, 3, H, W) of its own input size.

    Inputs and outputs are named INPUT and OUTPUTS[form]; BatchNorm is folded in float64.
    Raises EngineError when the exporter fails, MissingExtra without torch or onnxscript.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "train", "exporting a network") from error
    if inspector.training:
        raise ValueError("export needs eval mode: BatchNorm statistics must be frozen")
    module = inspector if form == "map" else _features_only(inspector)
    height, width = _input_size(inspector)
    example = torch.zeros(batch, 3, height, width)
    with warnings.catch_warnings(), torch.no_grad():
        # Both exporters warn about each other and about shapes that are static on purpose.
        warnings.simplefilter("ignore")
        raw = _EXPORTERS[exporter](module, example, OUTPUTS[form])
    model = _in_our_opset(plain_graph(raw))
    model.ir_version = IR_VERSION
    _check_opset(model)
    return ExportedModel(model, form, exporter, batch, str(torch.__version__))


def _legacy(module: nn.Module, example: Tensor, outputs: tuple[str, ...]) -> onnx.ModelProto:
    import torch

    buffer = io.BytesIO()
    try:
        torch.onnx.export(
            module,
            (example,),
            buffer,  # type: ignore[arg-type]  # the annotation forgets file objects
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(outputs),
        )
    except Exception as error:  # the exporter raises classes of several torch versions
        raise EngineError(f"torch's legacy ONNX exporter failed: {_first_line(error)}") from error
    return onnx.load_from_string(buffer.getvalue())


def _dynamo(module: nn.Module, example: Tensor, outputs: tuple[str, ...]) -> onnx.ModelProto:
    import torch

    try:
        import onnxscript  # noqa: F401  (torch imports it late and fails with a long report)
    except ImportError as error:
        raise MissingExtra("onnxscript", "train", "torch's dynamo ONNX exporter") from error
    try:
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=DYNAMO_OPSET,
            input_names=[INPUT],
            output_names=list(outputs),
            verbose=False,
        )
    except Exception as error:  # the exporter raises classes of several torch versions
        raise EngineError(f"torch's dynamo ONNX exporter failed: {_first_line(error)}") from error
    if program is None:
        raise EngineError("torch's dynamo ONNX exporter returned nothing")
    model: onnx.ModelProto = program.model_proto
    return model


_EXPORTERS = {"legacy": _legacy, "dynamo": _dynamo}


def _features_only(inspector: Inspector) -> nn.Module:
    from torch import nn

    class FeaturesOnly(nn.Module):
        """x -> E1, E2, E3, D1, D2, D3."""

        def __init__(self) -> None:
            super().__init__()
            self.network = inspector.network

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            features = self.network(x)
            return (*features.teacher, *features.student)

    return FeaturesOnly().eval()


def _input_size(inspector: Inspector) -> tuple[int, int]:
    """Height and width, from the finest level's matrices (they are part of the network)."""
    buffers = dict(inspector.head.named_buffers())
    return int(buffers["rows1"].shape[0]), int(buffers["columns1"].shape[1])


def _in_our_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert downwards when needed. On a plain graph, because ONNX's converter wants constant
    axes as initializers and torch hands them over as Constant nodes."""
    if all(entry.version == OPSET for entry in model.opset_import):
        return model
    for node in model.graph.node:
        for item in list(node.attribute):
            if item.name == "noop_with_empty_axes" and item.i == 0:  # the converter keeps it
                node.attribute.remove(item)
    try:
        return plain_graph(onnx.version_converter.convert_version(model, OPSET))
    except RuntimeError as error:
        raise EngineError(
            f"the exported graph cannot be expressed in opset {OPSET}: {_first_line(error)}",
            "use --exporter legacy",
        ) from error


def _check_opset(model: onnx.ModelProto) -> None:
    found = {entry.domain: entry.version for entry in model.opset_import}
    used = {node.domain for node in model.graph.node}
    if found.get("", 0) != OPSET or used - {""}:
        raise EngineError(f"the exporter produced opsets {found}, expected {OPSET} of ONNX alone")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
