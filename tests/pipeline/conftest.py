"""What the tests of the line share."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    """A module beside this file."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    # Dataclasses look their module up by name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parts() -> ModuleType:
    """The module tests/pipeline/line_parts.py."""
    return _load("line_parts")


@pytest.fixture(scope="session")
def box_parts() -> ModuleType:
    """The module tests/pipeline/bridge_parts.py."""
    return _load("bridge_parts")


@pytest.fixture(scope="session")
def screen_parts() -> ModuleType:
    """The module tests/pipeline/screen_parts.py."""
    return _load("screen_parts")
