"""GPU tests skip, with the reason, on a machine without one; `make gpu` fails there instead.

With SKRD4AD_SHIM_KERNELS set to a library of the kernels compiled for the CPU, and the fake driver
in the place of libcuda.so.1, those that need no silicon run without a GPU (make engine-proof).
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from skrd4ad.engine.cuda_driver import probe
from skrd4ad.engine.kernel_build import build_cubin
from skrd4ad.errors import EngineError

SHIM_KERNELS = os.environ.get("SKRD4AD_SHIM_KERNELS")
if SHIM_KERNELS:
    # Global, because a pycuda linked against an empty stand-in does not ask for the library itself.
    ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)


@pytest.fixture(scope="session", autouse=True)
def a_gpu_is_here() -> None:
    try:
        probe()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def silicon() -> None:
    """For tests that mean nothing on the fake driver: times, sanitizers, real networks."""
    if SHIM_KERNELS:
        pytest.skip("needs a real GPU; this is the fake driver")


@pytest.fixture(scope="session")
def cubin() -> bytes:
    """The product's kernels for this device, by its own nvcc."""
    if SHIM_KERNELS:
        return f"HOSTSO:{SHIM_KERNELS}\n\0".encode()
    return build_cubin(probe().compute_capability)


@pytest.fixture
def gpu() -> Iterator[Any]:
    from skrd4ad.engine.cuda import Gpu

    device = Gpu()
    with device.current():
        yield device
        device.close()


@pytest.fixture(scope="session")
def host_kernels() -> ModuleType:
    """tests/engine/shim/host_kernels.py: the same kernels on this machine's CPU."""
    return _module("skrd4ad_shim_host_kernels", "engine/shim/host_kernels.py")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of an untrained network that does not amplify rounding."""
    pytest.importorskip("torch", reason="a run folder holds a torch network")
    helper = _module("skrd4ad_engine_conftest", "engine/conftest.py")
    folder: Path = helper._write_run(tmp_path_factory.mktemp("gpu") / "run")
    return folder


def _module(name: str, path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).resolve().parents[1] / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
