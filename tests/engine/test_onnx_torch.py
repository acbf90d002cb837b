"""The torch-cuda backend's graph reader, on this CPU: the same features as ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from skrd4ad.engine.backends.onnx_torch import TorchGraph
from skrd4ad.engine.backends.onnxruntime_cpu import open_session
from skrd4ad.engine.export import OUTPUTS, export_model
from skrd4ad.engine.spec import InputSpec, NetworkSpec, ScoreContract
from skrd4ad.errors import EngineError
from skrd4ad.trainer.map_head import Inspector
from skrd4ad.trainer.network import Network


@pytest.mark.parametrize("backbone", ["resnet18", pytest.param("resnet50", marks=pytest.mark.soak)])
def test_features_are_those_of_onnxruntime(backbone):
    torch.manual_seed(0)
    network = Network(NetworkSpec(backbone=backbone, fusion="poster"))
    spec = InputSpec(height=32, width=64)
    inspector = Inspector(network, spec, ScoreContract()).eval()
    model = export_model(inspector, 2, "features").bytes()
    image = np.random.default_rng(0).standard_normal((2, 3, 32, 64), np.float32)
    graph = TorchGraph(model, "cpu", torch.float32)
    with torch.inference_mode():
        ours = graph(torch.from_numpy(image))
    theirs = open_session(model, 2).run(OUTPUTS["features"], {"image": image})
    assert tuple(ours) == OUTPUTS["features"]
    for value, expected in zip(ours.values(), theirs, strict=True):
        # Untrained networks amplify rounding (docs/engine.md), so the bound is relative and loose.
        difference = np.sqrt(np.mean((value.numpy() - expected) ** 2) / np.mean(expected**2))
        assert difference < 1e-3


def small_model(operation: str, **attributes: object) -> bytes:
    graph = helper.make_graph(
        [helper.make_node(operation, ["image"], ["y"], **attributes)],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return bytes(helper.make_model(graph).SerializeToString())


def test_an_operation_outside_the_table_is_refused_by_name():
    with pytest.raises(EngineError, match="Softmax"):
        TorchGraph(small_model("Softmax"), "cpu")


def test_padding_torch_cannot_express_is_refused():
    graph = TorchGraph(small_model("MaxPool", kernel_shape=[2, 2], pads=[0, 0, 1, 1]), "cpu")
    with pytest.raises(EngineError, match="asymmetric"):
        graph(torch.zeros(1, 3, 8, 8, dtype=torch.float16))


def test_a_damaged_model_is_an_engine_error():
    with pytest.raises(EngineError, match="cannot be read"):
        TorchGraph(b"\xff" * 100, "cpu")


def test_an_output_used_by_a_later_step_is_not_dropped():
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["image"], ["first"]),
            helper.make_node("Add", ["first", "first"], ["second"]),
        ],
        "kept",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("first", "second")],
    )
    model = helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    values = TorchGraph(model.SerializeToString(), "cpu", torch.float32)(torch.ones(1, 3, 8, 8))
    assert values["first"].unique().tolist() == [1.0]
    assert values["second"].unique().tolist() == [2.0]
