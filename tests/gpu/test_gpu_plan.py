"""Plans for this GPU from a run folder on: compile, verify, infer, and what is refused.

Never run so far (docs/engine.md, open list). torch-cuda is asked of every GPU machine; TensorRT is
tested where it is installed, and the skip says that it is not.
"""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest
from skrd4ad import cli
from skrd4ad.engine.backends.base import open_engine
from skrd4ad.engine.images import read_rgb
from skrd4ad.engine.plan import load_plan, plan_bytes
from skrd4ad.engine.preprocess import to_network_input
from skrd4ad.errors import PlanError

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("silicon")]

FRAMES = 2_000


@pytest.fixture(scope="module", params=["torch-cuda", "tensorrt"])
def gpu_plan(request, run_folder, tmp_path_factory) -> Path:
    if request.param == "tensorrt" and importlib.util.find_spec("tensorrt") is None:
        pytest.skip("tensorrt is not installed on this machine")
    path = tmp_path_factory.mktemp("plans") / f"{request.param}.plan"
    arguments = ["compile", "--run", str(run_folder), "--out", str(path), "--batch", "2"]
    assert cli.main([*arguments, "--backend", request.param]) == 0
    return path


@pytest.fixture(scope="module")
def cpu_plan(run_folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "cpu.plan"
    arguments = ["compile", "--run", str(run_folder), "--out", str(path)]
    assert cli.main([*arguments, "--backend", "onnxruntime"]) == 0
    return path


@pytest.mark.timeout(900)
def test_a_plan_verifies_and_agrees_with_the_cpu(gpu_plan, cpu_plan, run_folder):
    assert cli.main(["verify", "--plan", str(gpu_plan)]) == 0
    manifest = load_plan(gpu_plan).manifest
    assert manifest.precision == "fp16"
    images = [read_rgb(path) for path in sorted(run_folder.glob("good*.png"))]
    inputs = np.stack([to_network_input(image, manifest.input) for image in images])
    with open_engine(load_plan(gpu_plan)) as ours, open_engine(load_plan(cpu_plan)) as theirs:
        for image in inputs:
            maps, scores = ours.infer(image[None])
            exact, exact_scores = theirs.infer(image[None])
            assert np.abs(maps - exact).max() <= manifest.proof.parity[0].map_tolerance
            assert abs(scores[0] - exact_scores[0]) <= manifest.proof.parity[0].score_tolerance
        broken = inputs[:2].copy()
        broken[1, 0, 5, 5] = np.nan
        _, scores = ours.infer(broken)
        assert np.isfinite(scores[0])
        assert scores[1] == np.inf


@pytest.mark.timeout(900)
def test_frames_of_a_whole_engine_leak_nothing(gpu_plan, capsys):
    import pycuda.driver as driver

    manifest = load_plan(gpu_plan).manifest
    shape = (manifest.batch, 3, manifest.input.height, manifest.input.width)
    batch = np.random.default_rng(0).standard_normal(shape, np.float32)
    taken = []
    with open_engine(load_plan(gpu_plan)) as engine:
        for _ in range(50):
            engine.infer(batch)
        with engine._gpu.current():
            free = driver.mem_get_info()[0]
        for _ in range(FRAMES):
            start = time.perf_counter()
            engine.infer(batch)
            taken.append(time.perf_counter() - start)
        with engine._gpu.current():
            assert free - driver.mem_get_info()[0] < 1 << 20
        with capsys.disabled():
            p50, p99 = np.percentile(taken, [50, 99]) * 1e3
            print(f"\n{engine.description}: batch of 2, p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def test_a_plan_of_another_gpu_is_refused_within_a_second(gpu_plan):
    import msgspec

    plan = load_plan(gpu_plan)
    foreign = msgspec.structs.replace(
        plan.manifest, build=plan.manifest.build | {"gpu": "another GPU", "sm": "75"}
    )
    members = {name: bytes(plan.read(name)) for name in plan.members()}
    other = gpu_plan.with_name("foreign.plan")
    other.write_bytes(plan_bytes(foreign, members))
    start = time.process_time()
    with pytest.raises(PlanError, match="sm"):
        open_engine(load_plan(other))
    assert time.process_time() - start < 1.0
