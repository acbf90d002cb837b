"""What the tests of the line share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def parts() -> ModuleType:
    """The module tests/pipeline/line_parts.py."""
    spec = importlib.util.spec_from_file_location(
        "line_parts", Path(__file__).parent / "line_parts.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    # Dataclasses look their module up by name.
    sys.modules["line_parts"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def box_parts() -> ModuleType:
    """The module tests/pipeline/bridge_parts.py."""
    spec = importlib.util.spec_from_file_location(
        "bridge_parts", Path(__file__).parent / "bridge_parts.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bridge_parts"] = module
    spec.loader.exec_module(module)
    return module
