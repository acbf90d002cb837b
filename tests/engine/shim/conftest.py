"""The CUDA kernels on this CPU, for every test below this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def shim() -> ModuleType:
    """The module host_kernels.py of this folder."""
    path = Path(__file__).with_name("host_kernels.py")
    spec = importlib.util.spec_from_file_location("skrd4ad_shim_host_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def kernel_library(shim: ModuleType) -> Any:
    """The compiled kernels. Fails, never skips, when g++ is missing: nothing else tests them."""
    return shim.HostKernels(shim.build())


@pytest.fixture
def kernels(kernel_library: Any) -> Any:
    """The kernels in their plain state: ascending order, every barrier in place."""
    kernel_library.set_order(0)
    kernel_library.drop_barrier("", 0)
    yield kernel_library
    kernel_library.set_order(0)
    kernel_library.drop_barrier("", 0)
