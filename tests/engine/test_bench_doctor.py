"""The measuring verbs on the tiny plan: every figure is there, positive and consistent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from skrd4ad import cli
from skrd4ad.engine import devices, doctor
from skrd4ad.engine.bench import Stage, measure_stages, summary
from skrd4ad.engine.limits import Limits, copy_gbytes_per_s, sgemm_gflops
from skrd4ad.engine.onnx_graph import multiply_adds
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.spec import Roi


def test_bench_ends_in_one_json_line_with_every_stage(
    tiny_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--plan", str(tiny_plan), "--seconds", "0.2"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    for stage in ("infer", "preprocess", "bare_session"):
        p50, p90, p99 = (figures[f"{stage}_ms_p{percent}"] for percent in (50, 90, 99))
        assert 0 < p50 <= p90 <= p99
    ratio = figures["infer_ms_p50"] / figures["bare_session_ms_p50"]
    assert figures["infer_to_bare_session"] == pytest.approx(ratio)
    assert figures["images_per_s"] == pytest.approx(1e3 / figures["infer_ms_p50"])
    assert figures["sgemm_gflops"] > 0.1
    assert figures["copy_gbytes_per_s"] > 0.1


def test_the_camera_image_covers_the_region_of_interest(
    write_tiny_plan: Callable[..., Path], tmp_path: Path
) -> None:
    from skrd4ad.engine.backends.base import open_engine

    path = write_tiny_plan(tmp_path / "p", roi=Roi(x=300, y=10, width=80, height=70), batch=2)
    plan = load_plan(path)
    with open_engine(plan) as engine:
        stages = measure_stages(plan, engine, (64, 64), 0.05)
    assert all(len(stage.samples_ms) >= 5 for stage in stages)


def test_the_rate_counts_multiply_adds_twice(tiny_plan: Path) -> None:
    import msgspec

    plan = load_plan(tiny_plan)
    build = {"multiply_adds": "1000000"}
    counted = msgspec.structs.replace(plan.manifest, build=build)
    object.__setattr__(plan, "manifest", counted)
    stages = (Stage("infer", np.full(9, 2.0)), Stage("preprocess", np.full(9, 1.0)))
    figures = summary(plan, "a test", stages, Limits(50.0, 10.0))
    assert figures["infer_gflops"] == pytest.approx(1.0)  # 2 MFLOP in 2 ms
    assert figures["infer_to_sgemm"] == pytest.approx(1.0 / 50.0)
    assert "infer_to_bare_session" not in figures


def test_multiply_adds_of_a_known_graph() -> None:
    onnx = pytest.importorskip("onnx", reason="counts on an ONNX graph")
    floats = onnx.TensorProto.FLOAT
    helper = onnx.helper
    weights = {"a": (8, 3, 3, 3), "b": (8, 4, 2, 2), "c": (12, 5)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "a"], ["y"], pads=[1, 1, 1, 1]),
            helper.make_node("ConvTranspose", ["y", "b"], ["z"], strides=[2, 2]),
            helper.make_node("MatMul", ["z", "c"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", floats, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("out", floats, None)],
        [onnx.numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    convolution = 8 * 6 * 6 * 3 * 9
    transposed = 8 * 6 * 6 * 4 * 4
    product = 4 * 12 * 5 * 12
    assert multiply_adds(model) == convolution + transposed + product


def test_of_two_measurements_of_a_limit_the_better_one_counts() -> None:
    assert Limits(100.0, 8.0).or_better(Limits(90.0, 9.0)) == Limits(100.0, 9.0)


def test_bench_times_an_untrained_network_and_says_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torch", reason="makes an untrained network")
    arguments = ["bench", "--untrained", "resnet18", "--image-size", "32", "64", "--batch", "2"]
    assert cli.main([*arguments, "--seconds", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert "untrained weights: for timing only" in printed
    figures = json.loads(printed.splitlines()[-1])
    assert figures["backbone"] == "resnet18"
    assert figures["input"] == [2, 3, 32, 64]
    assert figures["infer_to_sgemm"] > 0
    assert cli.main([*arguments[:3], "--image-size", "33", "64"]) == 2
    assert "not a positive multiple of 32" in capsys.readouterr().err
    assert cli.main(["bench", "--untrained", "resnet18", "--batch", "9"]) == 2


def test_bench_compares_sleeping_and_spinning_threads(
    tiny_plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--plan", str(tiny_plan), "--spinning", "--seconds", "0.1"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["rounds"] >= 5
    for name in ("latency_back_to_back", "latency_with_pauses", "cpu_time_with_pauses"):
        assert 0 < figures[name] < 1000


def test_the_limits_are_rates_of_real_work() -> None:
    assert 0.1 < sgemm_gflops(0.01) < 1e5
    assert 0.1 < copy_gbytes_per_s(0.01) < 1e4


def test_doctor_fits_one_screen_and_names_every_backend(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 24
    for word in ("onnxruntime  can run", "tensorrt", "torch-cuda", "to do:"):
        assert word in text


def test_doctor_json_says_what_is_in_each_backends_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["backends"]["onnxruntime"] is None
    assert answer["threads"] >= 1
    assert answer["packages"]["base"]["numpy"] == np.__version__
    if not answer["gpus"]:
        assert "no NVIDIA GPU" in answer["backends"]["tensorrt"]


def test_doctor_advises_the_extra_where_only_the_packages_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "gpu_names", lambda: ("NVIDIA L4",))
    reports = [
        doctor.BackendReport("onnxruntime", None),
        doctor.BackendReport("tensorrt", "not installed: tensorrt"),
        doctor.BackendReport("torch-cuda", None),
    ]
    text = "\n".join(doctor.screen(reports))
    assert "NVIDIA L4" in text
    assert "pip install 'skrd4ad[tensorrt]'" in text


def test_the_fastest_backend_is_the_cpu_where_tensorrt_cannot_run() -> None:
    expected = "onnxruntime" if devices.obstacle("tensorrt") else "tensorrt"
    assert devices.fastest_backend() == expected
    assert devices.package_version("no-such-package") is None
