"""The few CUDA driver calls pycuda does not have, through ctypes: probing and graphs.

pycuda knows no CUDA graphs. Their six calls take the stream handle that pycuda gives, and nothing
else of pycuda. ctypes releases the GIL during each call.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from ..errors import EngineError

LIBRARY = "libcuda.so.1"
_CAPTURE_THREAD_LOCAL = 1
"""CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: a global capture would break the CUDA calls of every other
thread in the process (error 906) while it lasts."""
_COMPUTE_MAJOR, _COMPUTE_MINOR, _INTEGRATED = 75, 76, 18  # CUdevice_attribute


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a plan is bound to, and what `doctor` shows."""

    name: str
    compute_capability: str
    """Without the dot: "87"."""
    integrated: bool
    """True where CPU and GPU share one memory (Jetson)."""
    driver_cuda: str
    """The CUDA version the driver supports, such as "13.0"."""


def probe(index: int = 0) -> DeviceFacts:
    """Facts of GPU `index`, without creating a context. Raises EngineError when there is none."""
    driver = _driver()
    _check(driver.cuInit(0), "cuInit")
    count = ctypes.c_int()
    _check(driver.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if index >= count.value:
        raise EngineError(f"GPU {index} does not exist: the driver sees {count.value}")
    device, version = ctypes.c_int(), ctypes.c_int()
    _check(driver.cuDeviceGet(ctypes.byref(device), index), "cuDeviceGet")
    name = ctypes.create_string_buffer(256)
    _check(driver.cuDeviceGetName(name, len(name), device), "cuDeviceGetName")
    _check(driver.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        _check(driver.cuDeviceGetAttribute(ctypes.byref(value), number, device), "attribute")
        return value.value

    return DeviceFacts(
        name=name.value.decode(errors="replace"),
        compute_capability=f"{attribute(_COMPUTE_MAJOR)}{attribute(_COMPUTE_MINOR)}",
        integrated=bool(attribute(_INTEGRATED)),
        driver_cuda=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )


class Graph:
    """A captured sequence of GPU work, replayed with one call. The context must be current."""

    def __init__(self, stream: int, enqueue: Callable[[], None]) -> None:
        """Capture what `enqueue` puts on `stream` (never the default stream).

        Addresses, sizes and launches are frozen. Run the same work once uncaptured before: lazy
        module loading and TensorRT's first enqueue may not be captured. Raises EngineError.
        """
        driver = _driver()
        self._stream = ctypes.c_void_p(stream)
        self._graph, self._executable = ctypes.c_void_p(), ctypes.c_void_p()
        with _capturing(self._stream, self._graph):
            enqueue()
        try:
            _check(
                driver.cuGraphInstantiateWithFlags(
                    ctypes.byref(self._executable), self._graph, ctypes.c_ulonglong(0)
                ),
                "cuGraphInstantiateWithFlags",
            )
            _check(driver.cuGraphUpload(self._executable, self._stream), "cuGraphUpload")
        except EngineError:
            self.close()
            raise
        self._launch = driver.cuGraphLaunch

    def launch(self) -> None:
        """Enqueue one replay on the stream it was captured on; returns at once."""
        code = self._launch(self._executable, self._stream)
        if code:
            _check(code, "cuGraphLaunch")

    def close(self) -> None:
        """Destroy it; harmless when repeated. Must come before the work's buffers are freed."""
        driver = _driver()
        executable, self._executable = self._executable, ctypes.c_void_p()
        graph, self._graph = self._graph, ctypes.c_void_p()
        if executable.value:
            _check(driver.cuGraphExecDestroy(executable), "cuGraphExecDestroy")
        if graph.value:
            _check(driver.cuGraphDestroy(graph), "cuGraphDestroy")


@contextmanager
def _capturing(stream: ctypes.c_void_p, graph: ctypes.c_void_p) -> Iterator[None]:
    """Capture between entry and exit; the stream leaves capture mode whatever happens inside."""
    driver = _driver()
    _check(driver.cuStreamBeginCapture_v2(stream, _CAPTURE_THREAD_LOCAL), "cuStreamBeginCapture")
    try:
        yield
    except BaseException:
        # The half-made graph is thrown away; the error inside says more than EndCapture would.
        driver.cuStreamEndCapture(stream, ctypes.byref(graph))
        if graph.value:
            driver.cuGraphDestroy(graph)
        raise
    _check(driver.cuStreamEndCapture(stream, ctypes.byref(graph)), "cuStreamEndCapture")
    if not graph.value:
        raise EngineError("the driver captured an empty graph")


@cache
def _driver() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise EngineError(
            f"no NVIDIA driver on this machine ({LIBRARY} cannot be loaded)",
            "install the driver, or compile a plan for onnxruntime",
        ) from error
    if not hasattr(library, "cuGraphInstantiateWithFlags"):
        raise EngineError("the NVIDIA driver is too old for CUDA graphs", "install CUDA 11.4+")
    return library


def _check(code: int, call: str) -> None:
    if code == 0:
        return
    text = ctypes.c_char_p()
    known = _driver().cuGetErrorString(code, ctypes.byref(text)) == 0 and text.value
    meaning = text.value.decode(errors="replace") if known and text.value else "unknown error"
    raise EngineError(f"{call} failed: {meaning} (CUDA error {code})", "run skrd4ad doctor")
