"""int8 on real small networks: the graph, its guard, an accepted plan, and the refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compile needs the train extra")

import onnx  # noqa: E402
from skrd4ad import cli  # noqa: E402
from skrd4ad.engine import fp16  # noqa: E402
from skrd4ad.engine.export import ExportedModel, export_model  # noqa: E402
from skrd4ad.engine.images import write_png  # noqa: E402
from skrd4ad.engine.int8 import quantised_convolutions, to_int8  # noqa: E402
from skrd4ad.engine.int8_difference import (  # noqa: E402
    JudgedImages,
    measure_difference,
    refuse_if_changed,
)
from skrd4ad.engine.plan import load_plan, plan_bytes  # noqa: E402
from skrd4ad.engine.preprocess import normalise  # noqa: E402
from skrd4ad.engine.spec import InputSpec, Quantisation  # noqa: E402
from skrd4ad.errors import EngineError, PlanError  # noqa: E402
from skrd4ad.trainer.checkpoint import load_run  # noqa: E402
from skrd4ad.trainer.map_head import Inspector  # noqa: E402

SIZE = 64
SPEC = InputSpec(height=SIZE, width=SIZE)
GOOD = (60, 58, 20, 22, 25, 21, 23, 24, 20, 22)
"""Contrast of the held-out parts: the strongest sets the threshold, the judged ones stay below."""


def part(contrast: float, seed: int, spot: bool = False) -> np.ndarray:
    """A noisy light part, uint8; with `spot` a large black one on it."""
    noise = np.random.default_rng(seed).normal(175, contrast, (SIZE, SIZE, 3))
    if spot:
        noise[18:50, 18:50] = 0
    return np.clip(noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]) -> Path:
    held_out = [part(contrast, index) for index, contrast in enumerate(GOOD)]
    fitted = [part(60, 100 + index) for index in range(3)] + [part(40, 103, spot=True)]
    return write_run(tmp_path_factory.mktemp("int8") / "run", held_out=held_out, fitted=fitted)


@pytest.fixture(scope="module")
def exported(run_folder: Path) -> ExportedModel:
    run = load_run(run_folder)
    return export_model(Inspector(run.network, run.input, run.score).eval(), batch=2)


@pytest.fixture(scope="module")
def quantised(exported: ExportedModel) -> onnx.ModelProto:
    pictures = [part(60, 100 + index) for index in range(3)] + [part(40, 103, spot=True)]
    return to_int8(exported.model, np.stack([normalise(p, SPEC) for p in pictures]))


def test_every_convolution_but_the_first_is_quantised_and_the_map_is_not(
    exported: ExportedModel, quantised: onnx.ModelProto
) -> None:
    done, total = quantised_convolutions(quantised)
    assert done + 1 == total == sum(n.op_type.startswith("Conv") for n in exported.model.graph.node)
    assert len(quantised.SerializeToString()) < 0.35 * len(exported.bytes())
    producers = {name: node.op_type for node in quantised.graph.node for name in node.output}
    for node in quantised.graph.node:
        if node.op_type in ("MatMul", "ReduceSum", "Div", "Sqrt"):
            kinds = {producers.get(name) for name in node.input}
            assert "DequantizeLinear" not in kinds, node.name
    inputs = np.stack([normalise(part(c, s), SPEC) for c, s in ((30, 7), (50, 8))])
    exact, rounded = fp16.run_graph(exported.model, inputs), fp16.run_graph(quantised, inputs)
    # A difference there must be, or nothing was quantised; and it must be small.
    assert 1e-5 < np.abs(exact[0] - rounded[0]).max() < 0.1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_picture_becomes_nan_and_its_neighbour_does_not(
    quantised: onnx.ModelProto, value: float
) -> None:
    inputs = np.stack([normalise(part(40, seed), SPEC) for seed in (1, 2)])
    clean = fp16.run_graph(quantised, inputs)
    inputs[0, 1, SIZE - 1, 0] = value
    maps, scores = fp16.run_graph(quantised, inputs)
    assert np.isnan(maps[0]).all()
    assert np.isnan(scores[0])
    np.testing.assert_array_equal(maps[1], clean[0][1])
    assert scores[1] == clean[1][1]


def test_the_guard_changes_no_bit_of_a_whole_picture(quantised: onnx.ModelProto) -> None:
    bare = onnx.ModelProto()
    bare.CopyFrom(quantised)
    for output in bare.graph.output:
        output.name = f"{output.name}.unguarded"
    inputs = np.stack([normalise(part(40, seed), SPEC) for seed in (1, 2)])
    for a, b in zip(fp16.run_graph(quantised, inputs), fp16.run_graph(bare, inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_weight_that_is_nan_is_refused(exported: ExportedModel) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(exported.model)
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    tensor = next(t for t in model.graph.initializer if t.name == convolution.input[1])
    value = onnx.numpy_helper.to_array(tensor).copy()
    value.flat[3] = np.nan
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    with pytest.raises(EngineError, match=r"weight .* holds NaN"):
        to_int8(model, np.zeros((2, 3, SIZE, SIZE), np.float32))


def labelled_data(folder: Path) -> Path:
    """MVTec layout: good parts of low contrast, and parts with a large black spot."""
    for name, pictures in {
        "train/good": [part(30, 200)],
        "test/good": [part(22, 300 + index) for index in range(3)],
        "test/spot": [part(30, 400 + index, spot=True) for index in range(3)],
    }.items():
        (folder / name).mkdir(parents=True)
        for index, pixels in enumerate(pictures):
            write_png(folder / name / f"{index}.png", pixels)
    return folder


def compile_int8(run: Path, out: Path, *more: str) -> int:
    arguments = ["compile", "--run", str(run), "--out", str(out), "--backend", "onnxruntime"]
    return cli.main([*arguments, "--precision", "int8", *more])


def test_an_accepted_plan_holds_its_difference_and_verifies(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "int8.plan", labelled_data(tmp_path / "data")
    assert compile_int8(run_folder, out, "--data", str(data)) == 0
    printed = capsys.readouterr().out
    assert "0 of 11 verdicts changed (3 defective parts)" in printed
    manifest = load_plan(out).manifest
    found = manifest.quantisation
    assert manifest.precision == "int8"
    assert found is not None
    assert (found.threshold_images, found.judged_good, found.judged_defective) == (5, 8, 3)
    assert found.range_images == 4
    assert 0 < found.score_max_abs <= found.map_max_abs < 0.2
    assert found.float32_auroc == found.int8_auroc == 1.0
    assert found.float32_threshold != found.int8_threshold
    assert found.speed_ratio > 0
    parity = manifest.proof.parity[0]
    assert parity.reference == "torch float32"
    assert 0 < parity.map_max_abs <= parity.map_tolerance
    assert manifest.proof.negative_controls["broken pictures are seen"] == "9 of 9"
    assert manifest.build["int8_convolutions"] == "39 of 40"
    assert cli.main(["verify", "--plan", str(out)]) == 0
    verified = capsys.readouterr().out
    assert "onnxruntime-cpu int8" in verified
    assert "verdicts changed" in verified


def test_a_network_that_int8_changes_is_refused_and_nothing_is_written(
    write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranges from nearly uniform parts cut off what strong parts show: their rank is lost."""
    run = write_run(
        tmp_path / "run",
        held_out=[part(contrast, index) for index, contrast in enumerate(GOOD)],
        fitted=[part(12, 100 + index) for index in range(4)],
    )
    out, data = tmp_path / "int8.plan", labelled_data(tmp_path / "data")
    assert compile_int8(run, out, "--data", str(data)) == 4
    said = capsys.readouterr().err
    assert re.search(r"int8 changes [1-9]\d* of 11 verdicts", said), said
    assert "--precision fp32" in said
    assert not out.exists()


def test_flips_are_counted_against_each_precisions_own_threshold(
    tiny: ModuleType, tmp_path: Path
) -> None:
    """A graph whose map is the other's twice changes no verdict; one that is not monotone does."""
    paths = []
    for index in range(12):
        paths.append(tmp_path / f"{index}.png")
        write_png(paths[-1], part(5 + 3 * index, index))
    model = onnx.load_from_string(tiny.tiny_model(SIZE))
    images = JudgedImages(SPEC, paths[:2], paths[2:-1], [(paths[-1], True)])
    nothing = np.zeros((1, 3, SIZE, SIZE), np.float32)

    def against(change: str) -> object:
        other = onnx.ModelProto()
        other.CopyFrom(model)
        for node in other.graph.node:
            node.output[:] = ["score.before" if n == "score" else n for n in node.output]
        node = onnx.helper.make_node
        two = onnx.numpy_helper.from_array(np.float32(2.0), "two")
        other.graph.initializer.append(two)
        operands = ["score.before", "two"] if change == "Mul" else ["two", "score.before"]
        other.graph.node.append(node(change, operands, ["score"]))
        data = (model.SerializeToString(), other.SerializeToString())
        return measure_difference(*data, nothing, images)

    twice = against("Mul")
    assert twice.verdict_flips == 0
    assert twice.int8_threshold == pytest.approx(2 * twice.float32_threshold)
    with pytest.raises(EngineError, match="changes this network too much"):
        refuse_if_changed(twice)
    upside_down = against("Sub")
    assert upside_down.float32_auroc == 1.0
    assert upside_down.int8_auroc == 0.0
    assert upside_down.verdict_flips > 0
    with pytest.raises(EngineError, match=r"changes \d+ of 5 verdicts .* was not written"):
        refuse_if_changed(upside_down)
    refuse_if_changed(msgspec.structs.replace(twice, score_max_abs=1e-6))


@pytest.mark.parametrize(
    ("fitted", "held_out", "sentence"),
    [
        (0, 8, "no images that it was fitted on"),
        (4, 7, r"needs 8 good parts .* holds out 7"),
    ],
)
def test_too_few_pictures_are_refused(fitted: int, held_out: int, sentence: str) -> None:
    path = Path("x.png")
    with pytest.raises(EngineError, match=sentence):
        JudgedImages(SPEC, [path] * fitted, [path] * held_out).check()


def test_a_plan_must_say_what_int8_changed_and_that_no_verdict_did(tiny: ModuleType) -> None:
    float32 = tiny.tiny_manifest()
    quantisation = Quantisation(
        range_images=4, threshold_images=5, judged_good=8, judged_defective=3, map_max_abs=0.01,
        score_max_abs=0.01, verdict_flips=0, float32_threshold=1.0, int8_threshold=1.0,
        float32_auroc=None, int8_auroc=None, speed_ratio=2.0,
    )  # fmt: skip
    replace, members = msgspec.structs.replace, tiny.tiny_members()
    plan_bytes(replace(float32, precision="int8", quantisation=quantisation), members)
    for changes, sentence in (
        ({"precision": "int8"}, "int8 does not go with no record"),
        ({"quantisation": quantisation}, "fp32 does not go with a record"),
        (
            {"precision": "int8", "quantisation": replace(quantisation, verdict_flips=2)},
            "int8 changed 2 verdicts",
        ),
    ):
        with pytest.raises(PlanError, match=sentence):
            plan_bytes(replace(float32, **changes), members)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--precision", "fp16"], "precision of a plan for onnxruntime cannot be fp16"),
        (["--data", "d"], "--data is for judging int8"),
        (["--precision", "fp32", "--data", "d"], "--data is for judging int8"),
    ],
)
def test_impossible_precisions_are_usage_errors(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    options: list[str], sentence: str,
) -> None:  # fmt: skip
    arguments = ["compile", "--run", str(run_folder), "--out", str(tmp_path / "p.plan")]
    assert cli.main([*arguments, "--backend", "onnxruntime", *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
