"""Export by both exporters, of every backbone, variant and size, against the torch network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch", reason="export needs the train extra")

from skrd4ad.engine import fp16  # noqa: E402
from skrd4ad.engine.export import OPSET, OUTPUTS, export_model  # noqa: E402
from skrd4ad.engine.onnx_graph import fold_batch_norm, plain_graph  # noqa: E402
from skrd4ad.engine.spec import InputSpec, NetworkSpec, ScoreContract  # noqa: E402
from skrd4ad.errors import EngineError  # noqa: E402
from skrd4ad.trainer.map_head import Inspector  # noqa: E402
from skrd4ad.trainer.network import Network  # noqa: E402

FEATURE_OPS = {"Conv", "ConvTranspose", "Relu", "Add", "MaxPool", "Concat"}
VARIANTS = (
    NetworkSpec(),
    NetworkSpec(fusion="official"),
    NetworkSpec(fusion="none"),
    NetworkSpec(fusion="corresponding"),
    NetworkSpec(additional_skip=True),
    NetworkSpec(bottleneck=False),
    NetworkSpec(skip_gate="cosine"),
)


def damped(spec: NetworkSpec, height: int, width: int, contract: ScoreContract) -> Inspector:
    """An untrained network whose layers do not amplify rounding, with real BatchNorm statistics."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    network = Network(spec).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 0.5)
            torch.nn.init.uniform_(module.bias, 0.0, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    return Inspector(network, InputSpec(height=height, width=width), contract).eval()


def check_map_form(inspector: Inspector, exporter: str, inputs: np.ndarray) -> onnx.ModelProto:
    """The map form's names, opset and shapes, and its agreement with torch."""
    batch, _, *size = inputs.shape
    model = export_model(inspector, batch, "map", exporter).model
    assert [entry.version for entry in model.opset_import] == [OPSET]
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in shape] == [batch, 3, *size]
    assert tuple(output.name for output in model.graph.output) == OUTPUTS["map"]
    with torch.inference_mode():
        expected = [value.numpy() for value in inspector(torch.from_numpy(inputs))]
    for got, wanted in zip(fp16.run_graph(model, inputs), expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    return model


def check_both_forms(spec: NetworkSpec, exporter: str, size: tuple[int, int]) -> None:
    """Both forms against torch, then the FP16 rewrite of both against float32."""
    inspector = damped(spec, *size, ScoreContract())
    inputs = np.random.default_rng(1).normal(size=(1, 3, *size)).astype(np.float32)
    maps = check_map_form(inspector, exporter, inputs)
    features = export_model(inspector, 1, "features", exporter).model
    assert tuple(output.name for output in features.graph.output) == OUTPUTS["features"]
    with torch.inference_mode():
        pyramid = inspector.network(torch.from_numpy(inputs))
    expected = [value.numpy() for value in (*pyramid.teacher, *pyramid.student)]
    for got, wanted in zip(fp16.run_graph(features, inputs), expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())
    used = {node.op_type for node in features.graph.node}
    assert spec.skip_gate == "cosine" or used <= FEATURE_OPS, used - FEATURE_OPS

    half_features, half_maps = fp16.to_fp16(features), fp16.to_fp16(maps)
    kinds = {value.type.tensor_type.elem_type for value in half_features.graph.output}
    assert kinds == {TensorProto.FLOAT16}
    deviation = fp16.measure_deviation((features, half_features), (maps, half_maps), inputs, 1e9)
    # Rounding to half is 2.8e-4 relative RMS at the least; none at all would mean no FP16.
    assert all(3e-4 < value < 1e-2 for value in deviation.feature_rel_rms), deviation
    assert 0 < deviation.map_max_abs < 5e-3
    assert deviation.verdict_flips == 0


@pytest.mark.parametrize("spec", [VARIANTS[0], VARIANTS[6]])
def test_variants_by_the_legacy_exporter(spec: NetworkSpec) -> None:
    check_both_forms(spec, "legacy", (64, 32))


def test_the_dynamo_exporter_wide_input_batch_and_top_mean() -> None:
    inspector = damped(NetworkSpec(), 32, 96, ScoreContract(score="top-mean", top_fraction=0.01))
    inputs = np.random.default_rng(1).normal(size=(2, 3, 32, 96)).astype(np.float32)
    check_map_form(inspector, "dynamo", inputs)


def compared_at(size: tuple[int, int], batch: int, exporter: str) -> None:
    inspector = damped(NetworkSpec(), *size, ScoreContract())
    inputs = np.random.default_rng(2).normal(size=(batch, 3, *size)).astype(np.float32)
    check_map_form(inspector, exporter, inputs)


def test_the_largest_batch_at_the_smallest_size() -> None:
    compared_at((32, 32), 8, "legacy")


@pytest.mark.soak
@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("batch", range(1, 9))
@pytest.mark.parametrize("size", [(32, 64), (160, 32), (96, 224)])
def test_every_batch_and_any_multiple_of_32(
    size: tuple[int, int], batch: int, exporter: str
) -> None:
    compared_at(size, batch, exporter)


@pytest.mark.soak
@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
@pytest.mark.parametrize("spec", VARIANTS)
@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "wide_resnet50_2"])
def test_every_backbone_variant_and_exporter(
    backbone: str, spec: NetworkSpec, exporter: str
) -> None:
    import msgspec

    check_both_forms(msgspec.structs.replace(spec, backbone=backbone), exporter, (64, 96))


def convolution_and_norm(kind: str, shared: bool = False) -> onnx.ModelProto:
    """conv -> BatchNormalization, built by hand; `shared` lets a second node read the conv."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(4, 6, 2, 2)).astype(np.float32)
    channels_in, channels = (6, 4) if kind == "Conv" else (4, 6)
    values = {"w": kernel, "b": random.normal(size=channels), "gamma": random.random(channels)}
    values |= {"beta": random.normal(size=channels), "mean": random.normal(size=channels)}
    values["var"] = random.random(channels) + 0.5
    floats = TensorProto.FLOAT
    nodes = [
        helper.make_node(kind, ["x", "w", "b"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["y"]),
    ]
    if shared:
        nodes.append(helper.make_node("Relu", ["c"], ["z"]))
    outputs = ["y", "z"] if shared else ["y"]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", floats, [1, channels_in, 5, 5])],
        [helper.make_tensor_value_info(name, floats, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_batch_norm_is_folded_into_both_kinds_of_convolution(kind: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = convolution_and_norm(kind)
    before = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(1).normal(size=before.get_inputs()[0].shape).astype(np.float32)
    expected = before.run(None, {"x": x})[0]
    assert fold_batch_norm(model.graph) == 1
    assert [node.op_type for node in model.graph.node] == [kind]
    after = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(after.run(None, {"x": x})[0], expected, atol=2e-6)


def test_a_batch_norm_that_cannot_be_folded_is_refused() -> None:
    with pytest.raises(EngineError, match="keeps BatchNormalization"):
        plain_graph(convolution_and_norm("Conv", shared=True))


def test_fp16_refuses_unknown_operations_and_weights_beyond_its_range() -> None:
    model = convolution_and_norm("Conv")
    with pytest.raises(EngineError, match=r"BatchNormalization .* not on the FP16 list"):
        fp16.to_fp16(model)
    for value in (7e4, np.inf, np.nan):
        model = convolution_and_norm("Conv")
        fold_batch_norm(model.graph)
        weight = next(t for t in model.graph.initializer if t.name.endswith(".weight"))
        changed = numpy_helper.to_array(weight).copy()
        changed.flat[0] = value
        weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
        with pytest.raises(EngineError, match="which FP16 cannot hold"):
            fp16.to_fp16(model)


def test_activations_near_the_range_of_half_are_refused() -> None:
    model = convolution_and_norm("Conv")
    fold_batch_norm(model.graph)
    model.graph.node.append(helper.make_node("Relu", ["y"], ["out"]))
    model.graph.input[0].name = "image"
    model.graph.node[0].input[0] = "image"
    model.graph.output[0].name = "out"
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    modest = np.ones(shape, np.float32)
    assert 0 < fp16.check_activations(model, modest) < 100
    with pytest.raises(EngineError, match="activation y reaches"):
        fp16.check_activations(model, modest * 1e5)
    with pytest.raises(EngineError, match="activation y reaches nan"):
        fp16.check_activations(model, modest * np.nan)
