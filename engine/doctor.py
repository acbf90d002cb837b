"""Say in one screen what is installed here, which backends can run, and what to do about the rest.

Exit code 4 when no backend can run at all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from ..errors import EngineError
from .devices import NEEDED_PACKAGES, gpu_names, obstacle, package_version
from .native_resize import library
from .spec import Backend
from .threads import machine_threads

PACKAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("base", ("numpy", "opencv-python", "pillow", "pyzmq", "pyyaml", "onnxruntime", "msgspec")),
    ("train", ("torch", "torchvision", "onnx", "onnxscript", "safetensors", "scikit-learn")),
    ("tensorrt", ("tensorrt", "pycuda")),
)
"""Extra -> the distributions that matter to a user of it."""


class BackendReport(NamedTuple):
    """One backend: None when it can run, else what is in its way."""

    name: Backend
    obstacle: str | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `skrd4ad doctor`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(arguments: argparse.Namespace) -> int:
    """Look and print."""
    backends = [BackendReport(name, obstacle(name)) for name in NEEDED_PACKAGES]
    if arguments.json:
        print(json.dumps(report(backends)))
    else:
        print("\n".join(screen(backends)))
    able = any(backend.obstacle is None for backend in backends)
    return 0 if able else EngineError.exit_code


def report(backends: Sequence[BackendReport]) -> dict[str, object]:
    """All findings as plain values."""
    return {
        "skrd4ad": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "threads": machine_threads(),
        "gpus": list(gpu_names()),
        "nvcc": shutil.which("nvcc"),
        "packages": {extra: {n: package_version(n) for n in names} for extra, names in PACKAGES},
        "backends": {backend.name: backend.obstacle for backend in backends},
        "cameras": _video_devices(),
        "gstreamer": importlib.util.find_spec("gi") is not None,
        "native_resize": library() is not None,
    }


def screen(backends: Sequence[BackendReport]) -> list[str]:
    """The same as lines for a person."""
    gpus = ", ".join(gpu_names()) or "none with a working NVIDIA driver"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    lines = [
        f"skrd4ad {__version__}   Python {platform.python_version()}   {platform.platform()}",
        f"processor  {_processor()}, {cores} CPUs, {machine_threads()} threads used",
        f"GPU        {gpus}",
        f"nvcc       {shutil.which('nvcc') or 'not found (compiling a TensorRT plan needs it)'}",
        f"cameras    {', '.join(_video_devices()) or 'no /dev/video*'}",
        f"gstreamer  {_gstreamer()}",
        f"resize     {_resize()}",
        "",
    ]
    for extra, names in PACKAGES:
        found = [f"{name} {package_version(name) or '-'}" for name in names]
        lines.append(f"{extra:<10} {'  '.join(found)}")
    lines += ["", "backends"]
    lines += [f"  {backend.name:<12} {backend.obstacle or 'can run'}" for backend in backends]
    return [*lines, "", *_advice(backends)]


def _advice(backends: Sequence[BackendReport]) -> list[str]:
    problems = {backend.name: backend.obstacle for backend in backends}
    if problems["onnxruntime"]:
        return ["to do: the base installation is incomplete: pip install --force-reinstall skrd4ad"]
    if problems["tensorrt"] is None:
        return ["to do: nothing; `skrd4ad compile` will make TensorRT plans here"]
    if gpu_names():
        return [
            "to do: there is a GPU, but plans run on the CPU: pip install 'skrd4ad[tensorrt]'",
            "       (on Jetson: a venv with --system-site-packages, so that JetPack's is found)",
        ]
    return ["to do: nothing; plans run on the CPU with onnxruntime"]


def _gstreamer() -> str:
    if importlib.util.find_spec("gi") is None:
        return "its Python binding is absent: csi:, gst: and aravis: cameras need python3-gi"
    return "its Python binding is installed"


def _resize() -> str:
    if library() is None:
        return "Pillow's; with a C compiler (gcc) at installation it takes a third of the time"
    return "compiled for this processor"


def _video_devices() -> list[str]:
    return sorted(str(path) for path in Path("/dev").glob("video*"))


def _processor() -> str:
    """The model's name: Linux keeps it in /proc/cpuinfo, elsewhere the platform's word counts."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
