"""The parts of a GPU plan that need no GPU: tolerances, tensor table, refusal without a device."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="reads an ONNX graph")

from skrd4ad.engine.cuda_driver import probe  # noqa: E402
from skrd4ad.engine.export import ExportedModel  # noqa: E402
from skrd4ad.engine.fp16 import Deviation  # noqa: E402
from skrd4ad.engine.gpu_plan import (  # noqa: E402
    MAP_LIMIT,
    TOLERANCE_FLOOR,
    build_gpu_content,
    channels_last_tensors,
    tolerances,
)
from skrd4ad.errors import EngineError  # noqa: E402

NAMES = ("teacher1", "teacher2", "teacher3", "student1", "student2", "student3")


def deviation(feature: float, anomaly_map: float, score: float) -> Deviation:
    return Deviation((feature,) * 6, anomaly_map, score, None)


def test_tolerances_follow_the_expected_deviation_between_floor_and_cap() -> None:
    assert tolerances(deviation(1e-3, 4e-4, 2e-4)) == (pytest.approx(1.6e-3), pytest.approx(8e-4))
    assert tolerances(deviation(1e-4, 1e-6, 1e-7)) == (TOLERANCE_FLOOR, TOLERANCE_FLOOR)
    assert tolerances(deviation(9e-3, 4.9e-3, 4.9e-3)) == (MAP_LIMIT, MAP_LIMIT)


@pytest.mark.parametrize(
    "too_far",
    [deviation(1.1e-2, 1e-4, 1e-4), deviation(1e-3, 5.1e-3, 1e-4), deviation(np.nan, 1e-4, 1e-4)],
)
def test_a_network_that_fp16_changes_too_much_is_refused(too_far: Deviation) -> None:
    with pytest.raises(EngineError, match="FP16 changes this network too much"):
        tolerances(too_far)


def six_features() -> onnx.ModelProto:
    half = onnx.TensorProto.FLOAT16
    helper = onnx.helper
    nodes = [helper.make_node("Relu", ["image"], [name]) for name in NAMES]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", half, [2, 3, 64, 32])],
        [helper.make_tensor_value_info(name, half, [2, 3, 64, 32]) for name in NAMES],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_the_tensor_table_lists_a_linear_input_and_channels_last_features() -> None:
    table = channels_last_tensors(six_features())
    assert [tensor.name for tensor in table] == ["image", *NAMES]
    assert table[0].direction == "input"
    assert table[0].format == "linear"
    assert {(t.direction, t.dtype, t.format) for t in table[1:]} == {("output", "float16", "hwc8")}
    assert table[0].shape == (2, 3, 64, 32)


def test_without_a_gpu_the_build_is_refused_before_any_work() -> None:
    try:
        probe()
    except EngineError:
        model = ExportedModel(six_features(), "features", "legacy", 2, "")
        inputs = np.zeros((2, 3, 64, 32), np.float32)
        with pytest.raises(EngineError):
            build_gpu_content(model, model, inputs, "tensorrt")
    else:
        pytest.skip("this machine has a GPU; the refusal is for machines without")


def test_compile_without_onnx_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The edge installation has no onnx: the verb must say so, not fall over."""
    import sys

    from skrd4ad import cli

    for name in ("onnx", "skrd4ad.engine.export", "skrd4ad.engine.compile"):
        monkeypatch.setitem(sys.modules, name, None)
        if name != "onnx":
            monkeypatch.delitem(sys.modules, name)
    assert cli.main(["compile", "--run", "r", "--out", "p"]) == 2
    assert "pip install 'skrd4ad[train]'" in capsys.readouterr().err
