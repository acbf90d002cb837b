"""What every test may use. Real parts only: no mocks anywhere in the suite."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# How long an example takes says nothing on a machine that does other work too.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")
# Two cores: a torch or BLAS pool per test process would only fight over them.
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Idle torch threads of one test process must not spin on the cores of the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real transistor images and teacher weights, where it exists."""
    if not SHARED.is_dir():
        pytest.skip("real images and teacher weights (../shared/data) are not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """The module tests/tiny_plan.py: a real plan of arithmetic, and its numpy reference."""
    spec = importlib.util.spec_from_file_location(
        "tiny_plan", Path(__file__).parent / "tiny_plan.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_plan(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated 64 x 64 plan. Shared by the session: copy it before changing it."""
    return tiny.write_tiny_plan(tmp_path_factory.mktemp("plan") / "tiny.plan")


@pytest.fixture(scope="session")
def write_tiny_plan(tiny: ModuleType) -> Callable[..., Path]:
    """`write_tiny_plan(path, size=64, threshold=..., batch=1, roi=None) -> path`."""
    return tiny.write_tiny_plan


@pytest.fixture(autouse=True)
def priority() -> Iterator[None]:
    """A verb that lowers its own priority must not leave this process and all its later children,
    lines among them, with what other programs leave over."""
    before = os.nice(0), os.sched_getscheduler(0)
    yield
    assert (os.nice(0), os.sched_getscheduler(0)) == before
