"""GPU tests skip, with the reason, on a machine without one; `make gpu` says so too."""

from __future__ import annotations

import pytest
from skrd4ad.engine.cuda_driver import probe
from skrd4ad.errors import EngineError


@pytest.fixture(scope="session", autouse=True)
def a_gpu_is_here() -> None:
    try:
        probe()
    except EngineError as error:
        pytest.skip(str(error))
