"""From a run folder to a proved plan, and every refusal on the way leaving no file behind."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compile needs the train extra")

from skrd4ad import cli  # noqa: E402
from skrd4ad.engine import compile as compiling  # noqa: E402
from skrd4ad.engine import cpu_plan  # noqa: E402
from skrd4ad.engine.backends.base import open_engine  # noqa: E402
from skrd4ad.engine.backends.onnxruntime_cpu import MODEL  # noqa: E402
from skrd4ad.engine.check_set import read_check_set  # noqa: E402
from skrd4ad.engine.compile import CompileSettings, compile_plan  # noqa: E402
from skrd4ad.engine.images import read_rgb  # noqa: E402
from skrd4ad.engine.plan import load_plan, parse_plan, plan_bytes  # noqa: E402
from skrd4ad.engine.preprocess import to_network_input  # noqa: E402
from skrd4ad.engine.verify import verify_plan  # noqa: E402
from skrd4ad.errors import DataError, EngineError, PlanError  # noqa: E402
from skrd4ad.trainer.checkpoint import load_run  # noqa: E402
from skrd4ad.trainer.map_head import Inspector  # noqa: E402


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]) -> Path:
    return write_run(tmp_path_factory.mktemp("compile") / "run")


@pytest.fixture(scope="module")
def plan_path(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "part.plan"
    arguments = ["compile", "--run", str(run_folder), "--out", str(path)]
    assert cli.main([*arguments, "--backend", "onnxruntime"]) == 0
    return path


def test_the_plan_agrees_with_the_torch_network_on_a_new_image(
    run_folder: Path, plan_path: Path
) -> None:
    run = load_run(run_folder)
    pixels = read_rgb(run_folder / "good3.png")[::-1].copy()
    batch = to_network_input(pixels, run.input)[None]
    with torch.inference_mode():
        expected_map, expected_score = Inspector(run.network, run.input, run.score).eval()(
            torch.from_numpy(batch)
        )
    with open_engine(load_plan(plan_path)) as engine:
        maps, scores = engine.infer(batch)
    np.testing.assert_allclose(maps, expected_map.numpy(), atol=1e-4)
    np.testing.assert_allclose(scores, expected_score.numpy(), atol=1e-4)
    assert scores[0] > 0.01


def test_the_manifest_tells_where_the_plan_comes_from(plan_path: Path) -> None:
    manifest = load_plan(plan_path).manifest
    assert manifest.name == "part"
    assert manifest.teacher.kind == "random"
    assert manifest.run.n_calibration == 10
    assert manifest.proof.parity[0].score_max_abs <= manifest.proof.parity[0].score_tolerance
    assert manifest.proof.negative_controls["NaN input scores"] == "inf"
    assert manifest.proof.negative_controls["NaN weight scores"] == "inf, inf, inf"
    assert 0 < manifest.proof.latency_ms_p50 <= manifest.proof.latency_ms_p99
    assert {"torch", "onnxruntime", "exporter", "opset"} <= manifest.build.keys()
    assert manifest.threshold is None


def test_verify_passes_the_plan_and_says_so_in_json(
    plan_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", "--plan", str(plan_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["passed"]
    assert len(answer["findings"]) >= 10


def test_verify_fails_with_exit_code_4_when_the_reference_differs(
    plan_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plan whose model is intact but does not give the maps it was proved with."""
    plan = load_plan(plan_path)
    check = dict(np.load(plan_path_member(plan, "check.npz")))
    check["maps"] = check["maps"] + np.float32(1e-3)
    changed = tmp_path / "check.npz"
    np.savez(changed, **check)
    members = {name: bytes(plan.read(name)) for name in plan.members()}
    members["check.npz"] = changed.read_bytes()
    target = tmp_path / "changed.plan"
    target.write_bytes(plan_bytes(plan.manifest, members))
    assert cli.main(["verify", "--plan", str(target)]) == 4
    assert "FAILED: 1 check(s)" in capsys.readouterr().out


def plan_path_member(plan: object, name: str):  # type: ignore[no-untyped-def]
    import io

    return io.BytesIO(plan.read(name))


def test_check_images_hold_good_parts_and_patched_copies(plan_path: Path) -> None:
    check = read_check_set(load_plan(plan_path))
    assert len(check.pictures.pixels) == 14
    assert sum(source.endswith(", patched") for source in check.pictures.sources) == 4
    assert check.scores.shape == (14,)


def test_batch_another_size_and_few_images_in_one_plan(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    """Two images are filled up with patterns, and the sources say so."""
    folder = write_run(tmp_path / "run", n_images=2)
    settings = CompileSettings(
        folder, tmp_path / "b.plan", "onnxruntime", batch=2, image_size=(64, 96)
    )
    plan, examination = compile_plan(settings)
    assert plan.manifest.tensors[0].shape == (2, 3, 64, 96)
    assert any(f.name == "alone against in a batch" and f.passed for f in examination.findings)
    sources = read_check_set(plan).pictures.sources
    assert sources[:3] == ("good0.png", "good1.png", "pattern 0")


def test_images_that_have_moved_are_named_and_nothing_is_written(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "good0.png").unlink()
    with pytest.raises(DataError, match=r"good0\.png does not exist"):
        compile_plan(CompileSettings(folder, tmp_path / "out" / "p.plan", "onnxruntime"))
    assert not (tmp_path / "out").exists()


def test_a_failed_check_writes_no_plan_and_leaves_the_older_one(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tolerance that no float32 network meets stands in for a wrong graph."""
    (tmp_path / "p.plan").write_bytes(b"the plan in production")
    monkeypatch.setattr(cpu_plan, "FP32_TOLERANCE", 1e-12)
    with pytest.raises(EngineError, match="was not written") as caught:
        compile_plan(CompileSettings(run_folder, tmp_path / "p.plan", "onnxruntime"))
    assert caught.value.exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["p.plan"]
    assert (tmp_path / "p.plan").read_bytes() == b"the plan in production"


def test_tensorrt_without_a_gpu_is_refused_with_the_extra_named(
    run_folder: Path, tmp_path: Path
) -> None:
    from skrd4ad.engine.devices import gpu_names

    if gpu_names():
        pytest.skip("this machine has a GPU; the refusal is for machines without")
    with pytest.raises(EngineError, match="cannot be made here"):
        compile_plan(CompileSettings(run_folder, tmp_path / "p.plan", "tensorrt"))
    assert not (tmp_path / "p.plan").exists()


def test_a_wrong_model_under_the_same_name_is_refused(plan_path: Path, tmp_path: Path) -> None:
    """The manifest's hash of the model is checked before the model is parsed."""
    plan = load_plan(plan_path)
    data = bytearray(plan.data)
    start, size = plan._spans[MODEL]
    data[start + size // 2] ^= 1
    sealed = bytes(data[:-64])
    forged = sealed + hashlib.sha256(sealed).hexdigest().encode()
    with pytest.raises(PlanError, match=r"model\.onnx.*sha256"):
        open_engine(parse_plan(forged, tmp_path / "forged.plan"))


def test_a_plan_without_proof_is_not_verified(
    tmp_path: Path, write_tiny_plan: Callable[..., Path]
) -> None:
    plan = load_plan(write_tiny_plan(tmp_path / "p"))
    proof = msgspec.structs.replace(plan.manifest.proof, parity=())
    manifest = msgspec.structs.replace(plan.manifest, proof=proof)
    members = {name: bytes(plan.read(name)) for name in plan.members()}
    bare = parse_plan(plan_bytes(manifest, members), tmp_path / "bare.plan")
    with pytest.raises(EngineError, match="carries no proof"):
        verify_plan(bare)


@pytest.mark.parametrize("text", ["256", "256x256", "a,b", "256,"])
def test_an_image_size_that_is_none_is_a_usage_error(text: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    compiling.add_arguments(parser)
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parser.parse_args(["--run", "r", "--out", "o", "--image-size", text])
