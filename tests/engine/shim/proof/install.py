"""Fetch what the engine proof needs into a folder: pycuda built without a GPU, TensorRT-RTX, and
the Python bindings of three TensorRT versions. About 250 MB and three minutes.

Usage: python tests/engine/shim/proof/install.py FOLDER; a piece that is already there is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PYCUDA = "pycuda==2026.1"
PYCUDA_NEEDS = ("pytools", "siphash24", "mako", "platformdirs", "typing_extensions")
TENSORRT_RTX = "tensorrt-rtx==1.7.1.116"
BINDINGS = {
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "10.16": "tensorrt-cu13-bindings==10.16.1.11",
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
}
PLATFORMS = ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux_2_31_x86_64")


def main(folder: Path) -> None:
    site = folder / "site"
    site.mkdir(parents=True, exist_ok=True)
    if not (site / "pycuda").exists():
        wheel = build_pycuda(folder / "pycuda")
        pip("install", "--no-deps", "--target", str(site), str(wheel))
        pip("install", "--target", str(site), "--upgrade", *PYCUDA_NEEDS)
    if not (site / "tensorrt_rtx").exists():
        pip("install", "--no-deps", "--target", str(site), *rtx_parts())
    if not (site / "pybind11_stubgen").exists():
        pip("install", "--target", str(site), "--upgrade", "pybind11-stubgen")
    for version, requirement in BINDINGS.items():
        target = folder / "bindings" / version
        if not target.exists():
            download_bindings(requirement, target)
    print(f"ready: {folder}")


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", *arguments], check=True)


def rtx_parts() -> list[str]:
    version = TENSORRT_RTX.partition("==")[2]
    names = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs")
    return [TENSORRT_RTX, *(f"{name}=={version}" for name in names)]


def build_pycuda(work: Path) -> Path:
    """pycuda's wheel, linked against an empty library in the driver's name."""
    cuda = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")).resolve()
    if not (cuda / "include" / "cuda.h").exists():
        raise SystemExit(f"no CUDA headers in {cuda}: set CUDA_HOME")
    shutil.rmtree(work, ignore_errors=True)
    stub = work / "stub"
    stub.mkdir(parents=True)
    pip("download", "--no-deps", "--no-binary=pycuda", PYCUDA, "-d", str(work))
    pip("install", "setuptools", "wheel")
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
    pip("wheel", "--no-build-isolation", "--no-deps", "-w", str(work), str(source))
    return next(work.glob("pycuda-*.whl"))


def download_bindings(requirement: str, target: Path) -> None:
    downloads = target.with_name(f"{target.name}-wheel")
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    pip("download", "--no-deps", "--only-binary=:all:", *platforms, requirement,
        "-d", str(downloads))  # fmt: skip
    with zipfile.ZipFile(next(downloads.glob("*.whl"))) as wheel:
        wheel.extractall(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
