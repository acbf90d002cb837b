"""What every test may use. Real parts only: no mocks anywhere in the suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two cores: a torch or BLAS pool per test process would only fight over them.
os.environ.setdefault("OMP_NUM_THREADS", "2")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real transistor images and teacher weights, where it exists."""
    if not SHARED.is_dir():
        pytest.skip("real images and teacher weights (../shared/data) are not on this machine")
    return SHARED
