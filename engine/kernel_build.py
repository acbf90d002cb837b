"""Compile the CUDA kernels for one GPU with that device's own nvcc. Run by `skrd4ad compile`.

A plan stores the result, so that a line never needs a compiler. A cubin runs on its own compute
capability alone, and a device's own toolkit never makes one that its driver cannot load.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import EngineError

KERNELS = Path(__file__).parent / "kernels"
NVCC_FLAGS = (
    # Multiply-adds fuse only where the source says fmaf: the CPU tests then mean the same bits.
    *("-cubin", "-std=c++17", "-O3", "--fmad=false", "--prec-div=true", "--prec-sqrt=true"),
)
ARCHITECTURES = ("75", "80", "86", "87", "88", "89", "90", "100", "103", "110", "120", "121")
"""Compute capabilities (without the dot) the kernels are compiled for in `make engine-proof`."""


def find_nvcc() -> str:
    """The path of nvcc: $CUDA_HOME/bin, then PATH, then /usr/local/cuda. Raises EngineError."""
    places = [Path(os.environ["CUDA_HOME"]) / "bin"] if "CUDA_HOME" in os.environ else []
    for folder in (*places, None, Path("/usr/local/cuda/bin")):
        found = shutil.which("nvcc", path=None if folder is None else str(folder))
        if found is not None:
            return found
    raise EngineError(
        "nvcc is not installed, so the CUDA kernels cannot be compiled for this device",
        "install the CUDA toolkit (JetPack: apt install cuda-nvcc-*), or set CUDA_HOME",
    )


def nvcc_version() -> str:
    """The release of the nvcc that would be used, such as "13.0"."""
    text = _run([find_nvcc(), "--version"])
    match = re.search(r"release (\d+\.\d+)", text)
    if match is None:
        raise EngineError(f"nvcc --version says nothing known: {text.strip()[:200]}")
    return match.group(1)


def build_cubin(compute_capability: str) -> bytes:
    """Machine code of kernels/all.cu for e.g. "87" (sm_87). Raises EngineError, nvcc's words in it.

    The result depends on the sources and on nvcc; it is stored in the plan as `kernels.cubin`.
    """
    if re.fullmatch(r"\d{2,3}[a-z]?", compute_capability) is None:
        raise EngineError(f"'{compute_capability}' is not a compute capability such as 87 or 90")
    with tempfile.TemporaryDirectory(prefix="skrd4ad-nvcc-") as folder:
        target = Path(folder) / "kernels.cubin"
        _run(
            [
                *(find_nvcc(), *NVCC_FLAGS, f"-arch=sm_{compute_capability}"),
                *(str(KERNELS / "all.cu"), "-o", str(target)),
            ]
        )
        return target.read_bytes()


def sources_sha256() -> str:
    """One hash over every kernel source: recorded in the manifest beside the cubin."""
    digest = hashlib.sha256()
    for path in sorted(KERNELS.glob("*.cu*")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise EngineError(f"{Path(command[0]).name} failed: {said[-1500:]}")
    return done.stdout
