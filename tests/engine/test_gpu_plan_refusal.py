"""What a GPU plan must match before anything is loaded, and what a machine without a GPU says."""

from __future__ import annotations

import msgspec
import pytest
from skrd4ad.engine import cuda_driver
from skrd4ad.engine.backends.gpu_frame import STUDENT, TEACHER, feature_shapes
from skrd4ad.engine.backends.tensorrt_cuda import refuse_foreign
from skrd4ad.engine.cuda_driver import DeviceFacts
from skrd4ad.engine.kernel_build import build_cubin
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.spec import LEVEL_STRIDES, TensorInfo
from skrd4ad.errors import EngineError, PlanError

ORIN = DeviceFacts("Orin", "87", True, "12.6")
BUILT = {"gpu": "Orin", "sm": "87", "tensorrt": "10.3.0"}


def gpu_manifest(plan, layout="hwc8", channels=(64, 128, 256)):
    manifest = plan.manifest
    height, width = manifest.input.height, manifest.input.width
    tensors = [
        TensorInfo(name="image", direction="input", dtype="float16", shape=(1, 3, height, width))
    ]
    for names in (TEACHER, STUDENT):
        tensors += [
            TensorInfo(
                name=name,
                direction="output",
                dtype="float16",
                shape=(1, count, height // stride, width // stride),
                format=layout,
            )
            for name, count, stride in zip(names, channels, LEVEL_STRIDES, strict=True)
        ]
    return msgspec.structs.replace(manifest, tensors=tuple(tensors), build=BUILT)


@pytest.fixture
def plan(tiny_plan):
    return load_plan(tiny_plan)


def with_manifest(plan, manifest):
    return type(plan)(plan.path, manifest, plan.digest, b"", {})


def test_the_device_it_was_built_for_is_accepted(plan):
    refuse_foreign(with_manifest(plan, gpu_manifest(plan)), ORIN, "10.3.0")


@pytest.mark.parametrize(
    ("facts", "version", "both_sides"),
    [
        (ORIN, "10.16.1", ("tensorrt 10.3.0", "tensorrt 10.16.1")),
        (DeviceFacts("L4", "89", False, "13.0"), "10.3.0", ("gpu Orin, sm 87", "gpu L4, sm 89")),
        (DeviceFacts("L4", "89", False, "13.0"), None, ("gpu Orin, sm 87", "gpu L4, sm 89")),
    ],
)
def test_another_device_or_version_is_refused_with_both_sides_named(
    plan, facts, version, both_sides
):
    with pytest.raises(PlanError) as raised:
        refuse_foreign(with_manifest(plan, gpu_manifest(plan)), facts, version)
    assert all(side in raised.value.sentence for side in both_sides)
    assert "skrd4ad compile" in raised.value.hint


def test_the_feature_table_of_a_plan_is_read_and_checked(plan):
    shapes = feature_shapes(gpu_manifest(plan))
    assert shapes.layout == "hwc8"
    assert [level[0] for level in shapes.levels] == [64, 128, 256]
    good = gpu_manifest(plan)
    broken = {
        "no tensor": good.tensors[:-1],
        "needs": (*good.tensors[:-1], msgspec.structs.replace(good.tensors[-1], shape=(1, 8))),
        "formats": (*good.tensors[:-1], msgspec.structs.replace(good.tensors[-1], format="chw4")),
        "float16": (*good.tensors[:-1], msgspec.structs.replace(good.tensors[-1], dtype="int8")),
    }
    for sentence, tensors in broken.items():
        with pytest.raises(PlanError, match=sentence):
            feature_shapes(msgspec.structs.replace(good, tensors=tensors))


def test_a_machine_without_a_driver_says_so_in_one_sentence(monkeypatch):
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda-absent.so.1")
    cuda_driver._driver.cache_clear()
    try:
        with pytest.raises(EngineError, match="no NVIDIA driver on this machine"):
            cuda_driver.probe()
    finally:
        cuda_driver._driver.cache_clear()


def test_a_nonsense_architecture_is_refused_before_nvcc_runs():
    with pytest.raises(EngineError, match="compute capability"):
        build_cubin("87; rm -rf")
