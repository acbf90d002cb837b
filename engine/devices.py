"""What can run here: which packages, which driver, which GPU. Looks, but starts nothing heavy."""

from __future__ import annotations

import ctypes
import importlib.util
from importlib.metadata import PackageNotFoundError, version

from .spec import Backend

_CUDA_SUCCESS = 0
_NAME_BYTES = 128

NEEDED_PACKAGES: dict[Backend, tuple[tuple[str, str], ...]] = {
    "onnxruntime": (("onnxruntime", ""),),
    "tensorrt": (("tensorrt", "tensorrt"), ("pycuda", "tensorrt")),
    "torch-cuda": (("torch", "train"), ("pycuda", "tensorrt")),
}
"""Backend -> (package, the extra that brings it; empty for the base installation)."""


def obstacle(backend: Backend) -> str | None:
    """Why `backend` cannot run on this machine, in words, or None when nothing is in its way."""
    missing = [
        f"{package} (pip install 'skrd4ad[{extra}]')" if extra else package
        for package, extra in NEEDED_PACKAGES[backend]
        if importlib.util.find_spec(package) is None
    ]
    problems = [f"not installed: {', '.join(missing)}"] if missing else []
    if backend != "onnxruntime" and not gpu_names():
        problems.append("no NVIDIA GPU with a working driver")
    return "; ".join(problems) or None


def fastest_backend() -> Backend:
    """TensorRT where its GPU, driver and packages are all there, else ONNX Runtime."""
    return "onnxruntime" if obstacle("tensorrt") else "tensorrt"


def gpu_names() -> tuple[str, ...]:
    """Names of the GPUs that the CUDA driver offers, empty without a driver.

    Asked through ctypes, because TensorRT's own bindings crash where there is no driver.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    if driver.cuInit(0) != _CUDA_SUCCESS:
        return ()
    count = ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) != _CUDA_SUCCESS:
        return ()
    names = []
    for index in range(count.value):
        device = ctypes.c_int(0)
        text = ctypes.create_string_buffer(_NAME_BYTES)
        if driver.cuDeviceGet(ctypes.byref(device), index) == _CUDA_SUCCESS and (
            driver.cuDeviceGetName(text, _NAME_BYTES, device) == _CUDA_SUCCESS
        ):
            names.append(text.value.decode("utf-8", "replace"))
    return tuple(names)


def package_version(package: str) -> str | None:
    """The installed version of `package`, None when it is absent (or has no metadata)."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
