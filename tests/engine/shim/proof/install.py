"""Fetch what the engine proof needs into a folder: pycuda built without a GPU, TensorRT-RTX, the
Python bindings of three TensorRT versions, and nvcc where this machine has no CUDA toolkit.

Usage: python tests/engine/shim/proof/install.py FOLDER; a part that is already there is kept.
Whatever cannot be had ends the program with a sentence and exit code 1: nothing is left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

PYCUDA = "pycuda==2026.1"
PYCUDA_NEEDS = ("pytools", "siphash24", "mako", "platformdirs", "typing_extensions")
TENSORRT_RTX = "tensorrt-rtx==1.7.1.116"
STUBGEN = "pybind11-stubgen"
BINDINGS = {
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "10.16": "tensorrt-cu13-bindings==10.16.1.11",
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
}
PLATFORMS = ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux_2_31_x86_64")
NVCC = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime")
NVCC += ("nvidia-cuda-cccl",)
CUDA = "13.0"
"""Knows every architecture we name, up to sm_121; another release may spill other registers."""
PAUSE_S = 10


def main(folder: Path) -> None:
    absent = [tool for tool in ("gcc", "g++", "nm") if shutil.which(tool) is None]
    if absent:
        refuse(f"{', '.join(absent)} not found", "on Debian and Ubuntu: apt install g++ binutils")
    folder.mkdir(parents=True, exist_ok=True)
    site = folder / "site"
    part(folder, "nvcc", lambda: find_toolkit(folder))
    part(folder, "pycuda", lambda: install_pycuda(folder, site))
    part(folder, "tensorrt-rtx", lambda: pip("install", "--no-deps", *into(site), *rtx_parts()))
    part(folder, "stubgen", lambda: pip("install", *into(site), STUBGEN))
    for version, requirement in BINDINGS.items():
        target = folder / "bindings" / version
        part(folder, f"bindings-{version}", lambda r=requirement, t=target: fetch_bindings(r, t))
    print(f"ready: {folder}")


def part(folder: Path, name: str, make: Callable[[], object]) -> None:
    """Run `make` unless it was finished before; only a finished part leaves its mark."""
    mark = folder / "finished" / name
    if mark.exists():
        return
    start = time.monotonic()
    make()
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    print(f"{name}: {time.monotonic() - start:.0f} s", flush=True)


def refuse(sentence: str, hint: str) -> None:
    raise SystemExit(f"error: engine-proof: {sentence}; {hint}")


def into(site: Path) -> tuple[str, ...]:
    return "--target", str(site), "--upgrade"


def pip(*arguments: str, environment: dict[str, str] | None = None) -> None:
    """One retry: a registry may be out of reach for a moment."""
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *arguments]
    for attempt in (1, 2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if attempt == 1:
            time.sleep(PAUSE_S)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    problem = next((line for line in reversed(said) if "ERROR" in line), (said or ["nothing"])[-1])
    print(done.stderr, file=sys.stderr)
    refuse(
        f"pip {arguments[0]} of {arguments[-1]} failed twice: {problem.strip()}",
        "the proof needs the package registry, and Python 3.10 to 3.12 for TensorRT 10.3",
    )


def find_toolkit(folder: Path) -> None:
    """Write a CUDA toolkit's path to `cuda_home`: the machine's own, else NVIDIA's packages."""
    nvcc = shutil.which("nvcc")
    places = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places += [str(Path(nvcc).resolve().parents[1])] if nvcc else []
    for place in filter(None, places):
        home = Path(place).resolve()
        if (home / "bin" / "nvcc").exists() and (home / "include" / "cuda.h").exists():
            (folder / "cuda_home").write_text(str(home))
            return
    pip("install", *into(folder / "cuda"), *(f"{name}=={CUDA}.*" for name in NVCC))
    home = next((folder / "cuda" / "nvidia").glob("cu*"))
    if not (home / "include" / "cuda.h").exists():
        refuse(f"NVIDIA's packages in {home} have no cuda.h", "install the CUDA toolkit instead")
    (folder / "cuda_home").write_text(str(home))


def install_pycuda(folder: Path, site: Path) -> None:
    wheel = build_pycuda(folder / "pycuda", Path((folder / "cuda_home").read_text()))
    pip("install", "--no-deps", *into(site), str(wheel))
    pip("install", *into(site), *PYCUDA_NEEDS)


def rtx_parts() -> list[str]:
    version = TENSORRT_RTX.partition("==")[2]
    names = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs")
    return [TENSORRT_RTX, *(f"{name}=={version}" for name in names)]


def build_pycuda(work: Path, cuda: Path) -> Path:
    """pycuda's wheel, linked against an empty library in the driver's name. Two CPU minutes."""
    shutil.rmtree(work, ignore_errors=True)
    stub, tools = work / "stub", work / "tools"
    stub.mkdir(parents=True)
    pip("download", "--no-deps", "--no-binary=pycuda", "-d", str(work), PYCUDA)
    pip("install", *into(tools), "setuptools", "wheel")  # numpy: the interpreter's
    with tarfile.open(next(work.glob("pycuda-*.tar.gz"))) as archive:
        archive.extractall(work, filter="data")
    source = next(path for path in work.glob("pycuda-*") if path.is_dir())
    empty = work / "empty.c"
    empty.write_text("")
    soname = "-Wl,-soname,libcuda.so.1"
    compiler = ["gcc", "-shared", "-fPIC", soname, str(empty), "-o", str(stub / "libcuda.so")]
    subprocess.run(compiler, check=True)
    (source / "siteconf.py").write_text(
        f"CUDA_ROOT = {str(cuda)!r}\nCUDA_INC_DIR = [{str(cuda / 'include')!r}]\n"
        f"CUDADRV_LIB_DIR = [{str(stub)!r}]\nCUDADRV_LIBNAME = ['cuda']\n"
        "CUDA_ENABLE_CURAND = False\nUSE_SHIPPED_BOOST = True\nCXXFLAGS = ['-O1']\nLDFLAGS = []\n"
    )
    pip(
        *("wheel", "--no-build-isolation", "--no-deps", "-w", str(work), str(source)),
        environment=os.environ | {"PYTHONPATH": str(tools)},
    )
    return next(work.glob("pycuda-*.whl"))


def fetch_bindings(requirement: str, target: Path) -> None:
    """Unpack the wheel alone: its dependencies are TensorRT's libraries of several gigabytes."""
    downloads = target.with_name(f"{target.name}-wheel")
    shutil.rmtree(downloads, ignore_errors=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    pip(
        *("download", "--no-deps", "--only-binary=:all:", *platforms, "-d", str(downloads)),
        requirement,
    )
    with zipfile.ZipFile(next(downloads.glob("*.whl"))) as wheel:
        wheel.extractall(target)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        refuse("it takes one argument", "python tests/engine/shim/proof/install.py FOLDER")
    main(Path(sys.argv[1]).resolve())
