"""What the tests of the line share."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _load(name: str, *needs: str) -> ModuleType:
    """A module beside this file, and before it those that it imports."""
    if name in sys.modules:
        return sys.modules[name]
    for one in needs:
        _load(one)
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
    return _load("bridge_parts", "free_ports")


@pytest.fixture
def box(box_parts: ModuleType) -> Iterator[Any]:
    """A box that publishes from a thread; nobody listens yet."""
    opened = box_parts.Box()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def streams() -> ModuleType:
    """The module tests/pipeline/stream_process.py."""
    return _load("stream_process")


@pytest.fixture(scope="session")
def screen_parts() -> ModuleType:
    """The module tests/pipeline/screen_parts.py."""
    return _load("screen_parts")


@pytest.fixture(scope="session")
def page_processes() -> ModuleType:
    """The module tests/pipeline/page_processes.py; on CI there has to be a browser for it."""
    kit = _load("page_processes", "free_ports", "core_shares")
    if kit.CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("no chromium on this machine")
    return kit


@pytest.fixture(scope="session")
def core_shares() -> ModuleType:
    """The module tests/pipeline/core_shares.py."""
    return _load("core_shares")


@pytest.fixture(scope="session")
def gige() -> ModuleType:
    """The module tests/pipeline/fake_gige.py, where Aravis is installed."""
    _need_gobject("Aravis-0.8")
    return _load("fake_gige", "camera_process")


@pytest.fixture(scope="session")
def gstreamer() -> None:
    """GStreamer's Python binding is there."""
    _need_gobject("Gst-1.0", "GstApp-1.0")


@pytest.fixture(scope="session")
def rtsp() -> ModuleType:
    """The module tests/pipeline/rtsp_camera.py, where its server is installed."""
    _need_gobject("Gst-1.0", "GstRtspServer-1.0")
    return _load("rtsp_camera", "camera_process", "free_ports")


def _need_gobject(*names: str) -> None:
    """Skip where GObject libraries for cameras are missing; on CI they have to be there."""
    try:
        import gi

        for name, version in (one.split("-") for one in names):
            gi.require_version(name, version)
    except (ImportError, ValueError) as error:
        text = f"{' '.join(names)} is not on this machine ({error}); docs/cameras.md says how"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
