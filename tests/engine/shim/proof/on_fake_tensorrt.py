"""A program: `skrd4ad compile`, `verify` and inference of a TensorRT plan, from a run folder on.

Everything is the product's own but three things: the driver (fake_cuda.c), TensorRT (stand_in), and
nvcc's output, which is the kernels compiled for the CPU. Run by test_fake_driver.py in a process of
its own. Usage: on_fake_tensorrt.py FOLDER; prints "passed" when all assertions held.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "stand_in"))

import tensorrt  # noqa: E402
from skrd4ad import cli  # noqa: E402
from skrd4ad.engine import gpu_plan  # noqa: E402
from skrd4ad.engine.backends import tensorrt_cuda  # noqa: E402
from skrd4ad.engine.backends.base import open_engine  # noqa: E402
from skrd4ad.engine.images import read_rgb  # noqa: E402
from skrd4ad.engine.plan import load_plan  # noqa: E402
from skrd4ad.engine.preprocess import to_network_input  # noqa: E402

FAKE = ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"skrd4ad_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def skrd4ad(*arguments: object) -> tuple[int, str]:
    """Exit code and everything that was printed."""
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = cli.main([str(argument) for argument in arguments])
    return code, said.getvalue()


def refused(sentences: tuple[str, ...], *arguments: object, code: int = 4) -> None:
    found, said = skrd4ad(*arguments)
    assert found == code, said
    assert all(sentence in said for sentence in sentences), said


def main(folder: Path) -> None:
    host_kernels = module(HERE.parent / "host_kernels.py")
    gpu_plan.build_cubin = lambda capability: f"HOSTSO:{host_kernels.build()}\n\0".encode()
    run = module(HERE.parents[1] / "conftest.py")._write_run(folder / "run")
    plan, cpu = folder / "gpu.plan", folder / "cpu.plan"
    # Small, because the kernels run one thread after the other here.
    compiling = ("compile", "--run", run, "--image-size", "32,32", "--out")

    code, said = skrd4ad(*compiling, plan, "--backend", "tensorrt", "--batch", 2)
    assert code == 0, said
    code, said = skrd4ad(*compiling, cpu, "--backend", "onnxruntime")
    assert code == 0, said
    manifest = load_plan(plan).manifest
    assert (manifest.backend, manifest.precision, manifest.batch) == ("tensorrt", "fp16", 2)
    assert {"model.onnx", "model.trt", "kernels.cubin", "check.npz"} == set(manifest.members)
    assert {t.format for t in manifest.tensors if t.direction == "output"} == {"hwc8"}
    assert 0 < manifest.proof.parity[0].map_max_abs <= manifest.proof.parity[0].map_tolerance
    assert manifest.build["tensorrt"] == tensorrt.__version__
    code, said = skrd4ad("verify", "--plan", plan)
    assert code == 0, said
    assert "tensorrt-" in said
    image = to_network_input(read_rgb(run / "good3.png"), manifest.input)[None]
    scores = []
    for path in (plan, cpu):
        with open_engine(load_plan(path)) as engine:
            scores.append(engine.infer(image)[1][0])
    assert abs(scores[0] - scores[1]) <= manifest.proof.parity[0].score_tolerance, scores
    assert scores[0] != scores[1], "float16 and float32 cannot agree in every bit"

    # A build whose features are wrong must not become a plan, nor replace the one that is there.
    before = plan.read_bytes()
    tensorrt.ERROR_OF_FEATURES = 0.3
    refused(("was not written", "against torch"), *compiling, plan, "--backend", "tensorrt")
    assert plan.read_bytes() == before
    refused(("FAILED", "map against torch"), "verify", "--plan", plan)
    tensorrt.ERROR_OF_FEATURES = 0.0

    # Foreign plans, each refused in under a second with both sides named.
    start = time.process_time()
    FAKE.fake_name(b"NVIDIA L4")
    refused(("built for gpu fake GPU on the CPU", "has gpu NVIDIA L4"), "verify", "--plan", plan)
    FAKE.fake_name(None)
    built, tensorrt.__version__ = tensorrt.__version__, "10.3.0"
    refused((f"tensorrt {built}", "has tensorrt 10.3.0"), "verify", "--plan", plan)
    tensorrt.__version__ = built
    damaged = bytearray(before)
    damaged[len(damaged) // 2] ^= 1
    (folder / "damaged.plan").write_bytes(damaged)
    refused(("is damaged", "sha256"), "verify", "--plan", folder / "damaged.plan")
    assert time.process_time() - start < 3.0

    refused(("precision", "fp16"), *compiling, plan, "--backend", "tensorrt",
            "--precision", "int8", code=2)  # fmt: skip
    assert tensorrt_cuda.engine_tensors(bytes(load_plan(plan).read("model.trt")))
    assert [FAKE.fake_live(kind) for kind in range(4)] == [0, 0, 0, 0]
    assert FAKE.fake_context_depth() == 0
    assert np.isfinite(scores).all()
    print("passed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
