"""Real pycuda, captured and replayed graphs, real kernels, end to end, on a driver made for it.

Needs pycuda (tests/engine/shim/proof/install.py builds it without a GPU): run by
`make engine-proof`, where everything here fails rather than skips when something is missing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine_proof

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "on_fake_driver.py"
SCENARIOS = re.findall(r"^def scenario_(\w+)", PROGRAM.read_text(), re.MULTILINE)


@pytest.fixture(scope="session")
def fake_driver(proof_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libcuda.so.1: fake_cuda.c and a refusal for whatever else pycuda links."""
    extension = next((proof_folder / "site" / "pycuda").glob("_driver*.so"))
    wanted = symbols(extension, "--undefined-only")
    folder = tmp_path_factory.mktemp("driver")
    partial, library = folder / "partial.so", folder / "libcuda.so.1"
    compile_c([HERE.parent / "fake_cuda.c"], partial)
    rest = folder / "rest.c"
    missing = sorted(wanted - symbols(partial, "--defined-only"))
    rest.write_text("".join(f"int {name}(void) {{ return 801; }}\n" for name in missing))
    compile_c([HERE.parent / "fake_cuda.c", rest], library)
    return folder


def symbols(library: Path, which: str) -> set[str]:
    listed = subprocess.run(
        ["nm", "-D", which, library], capture_output=True, text=True, check=True
    ).stdout
    return set(re.findall(r"\b(cu[A-Z]\w*)$", listed, re.MULTILINE))


def compile_c(sources: list[Path], library: Path) -> None:
    flags = ["-std=gnu11", "-O1", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["gcc", *flags, *sources, "-o", library, "-ldl"], check=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_on_the_fake_driver(fake_driver, proof_environment, scenario):
    environment = proof_environment | {"LD_LIBRARY_PATH": str(fake_driver)}
    done = subprocess.run(
        [sys.executable, PROGRAM, scenario],
        env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "passed"), done.stderr
    assert "PyCUDA WARNING" not in done.stderr


def test_compile_and_verify_of_a_tensorrt_plan(fake_driver, proof_environment, tmp_path):
    """From a run folder to a plan, through every refusal, with a stand-in for TensorRT alone."""
    environment = proof_environment | {"LD_LIBRARY_PATH": str(fake_driver)}
    done = subprocess.run(
        [sys.executable, HERE / "on_fake_tensorrt.py", tmp_path],
        env=environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "passed"), done.stderr


def test_the_gpu_tests_run_on_the_fake_driver(fake_driver, proof_environment, shim):
    """tests/gpu as a GPU machine would run them, but the large sizes and what needs silicon."""
    environment = proof_environment | {
        "LD_LIBRARY_PATH": str(fake_driver),
        "SKRD4AD_SHIM_KERNELS": str(shim.build()),
    }
    tests = HERE.parents[2] / "gpu" / "test_gpu_frame.py"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
         "--timeout=600", "-k", "not hundred_thousand and not size1", tests],
        env=environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b1[0-9] passed", done.stdout), done.stdout
    assert "skipped" not in done.stdout
