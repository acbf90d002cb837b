"""CUDA through pycuda: context, memory, modules, streams, events. The only file that imports it.

The primary context is used, because TensorRT and torch use that one too; a second context would
make each other's handles invalid. It is pushed for a block of code and popped again, in whichever
thread that code runs: leaving a thread with a pushed context aborts the process at exit.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import EngineError, MissingExtra
from .cuda_driver import DeviceFacts, Graph, probe
from .gpu_launch import Launch

_POLL_S = 20e-6
_contexts: dict[int, Any] = {}
_contexts_lock = threading.Lock()


class PinnedArray:
    """Page-locked host memory: `array` for the host, `address` for kernels when it was mapped."""

    def __init__(self, array: NDArray[Any], address: int) -> None:
        self.array = array
        self.address = address


class Event:
    """A mark in a stream that the host can wait for."""

    def __init__(self, native: Any) -> None:
        self.native = native

    def record(self, stream: Stream) -> None:
        self.native.record(stream.native)

    def synchronize(self) -> None:
        """Sleep (no spinning: BLOCKING_SYNC) until the mark is passed, however long that takes."""
        self.native.synchronize()

    def wait(self, timeout_s: float) -> bool:
        """True when the mark was passed within `timeout_s`, False when the GPU hangs.

        Polls with short sleeps, because CUDA has no wait with a time limit.
        """
        deadline = time.monotonic() + timeout_s
        while not self.native.query():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True


class Stream:
    """A queue of GPU work; never the default stream, which synchronises with everything."""

    def __init__(self, native: Any) -> None:
        self.native = native
        self.handle = int(native.handle)

    def synchronize(self) -> None:
        self.native.synchronize()


class Module:
    """A loaded cubin; kernels are looked up once and launched by `Launch` values."""

    def __init__(self, native: Any) -> None:
        self.native = native
        self._functions: dict[str, Any] = {}

    def forget_functions(self) -> None:
        self._functions.clear()

    def launch(self, launch: Launch, stream: Stream) -> None:
        function = self._functions.get(launch.kernel)
        if function is None:
            function = self._functions[launch.kernel] = self.native.get_function(launch.kernel)
        # pycuda packs an array of bytes as it is, which is what a struct by value needs.
        parameters = np.frombuffer(launch.parameters, np.uint8)
        function(parameters, grid=launch.grid, block=launch.block, stream=stream.native)


class Gpu:
    """One device. Every method but `current` needs the context current in the calling thread.

    `close()` frees all that was made here, newest first; a `Gpu` is good for one engine.
    """

    def __init__(self, index: int = 0) -> None:
        """Raises EngineError without driver or device, MissingExtra without pycuda."""
        self.facts: DeviceFacts = probe(index)
        self._pycuda = _import_pycuda()
        self._context = _primary_context(self._pycuda, index)
        self._owned = ExitStack()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the device current for the calling thread, and leave the thread as it was.

        A pycuda error inside leaves as EngineError.
        """
        self._context.push()
        try:
            yield
        except self._pycuda.Error as error:
            raise EngineError(f"the GPU failed: {error}", "run skrd4ad doctor") from error
        finally:
            self._context.pop()

    def buffer(self, size: int) -> int:
        """Address of `size` bytes of device memory, 256-byte aligned, not initialised."""
        allocation = self._pycuda.mem_alloc(size)
        self._owned.callback(allocation.free)
        return int(allocation)

    def upload(self, array: NDArray[Any]) -> int:
        """Address of a device copy of `array`."""
        contiguous = np.ascontiguousarray(array)
        address = self.buffer(contiguous.nbytes)
        self._pycuda.memcpy_htod(address, contiguous)
        return address

    def download(self, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A host copy, made at once (not on a stream)."""
        array = np.empty(shape, dtype)
        self._pycuda.memcpy_dtoh(array, address)
        return array

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike, mapped: bool = False) -> PinnedArray:
        """Page-locked host memory, zeroed; with `mapped`, kernels may write it directly."""
        flags = self._pycuda.host_alloc_flags.DEVICEMAP if mapped else 0
        array = self._pycuda.pagelocked_empty(shape, dtype, mem_flags=flags)
        allocation = array.base
        self._owned.callback(allocation.free)
        array.view(np.uint8)[...] = 0
        return PinnedArray(array, int(allocation.get_device_pointer()) if mapped else 0)

    def copy_in(self, address: int, source: PinnedArray, stream: Stream) -> None:
        """Host to device on `stream`."""
        self._pycuda.memcpy_htod_async(address, source.array, stream.native)

    def copy_out(self, target: PinnedArray, address: int, stream: Stream) -> None:
        """Device to host on `stream`; valid once the stream has got there."""
        self._pycuda.memcpy_dtoh_async(target.array, address, stream.native)

    def module(self, cubin: bytes | memoryview) -> Module:
        """Load machine code. Raises EngineError when it is for another GPU or damaged."""
        try:
            module = Module(self._pycuda.module_from_buffer(bytes(cubin)))
        except self._pycuda.Error as error:
            raise EngineError(
                f"the plan's CUDA kernels cannot be loaded on {self.facts.name}"
                f" (sm_{self.facts.compute_capability}): {error}",
                "run skrd4ad compile on this device",
            ) from error
        self._drop_on_close(module)
        self._owned.callback(module.forget_functions)
        return module

    def stream(self) -> Stream:
        stream = Stream(self._pycuda.Stream())
        self._drop_on_close(stream)
        return stream

    def event(self) -> Event:
        flags = self._pycuda.event_flags
        event = Event(self._pycuda.Event(flags.BLOCKING_SYNC | flags.DISABLE_TIMING))
        self._drop_on_close(event)
        return event

    def graph(self, stream: Stream, enqueue: Callable[[], None]) -> Graph:
        """Capture `enqueue()`, which puts work on `stream`; destroyed by `close()`."""
        graph = Graph(stream.handle, enqueue)
        self._owned.callback(graph.close)
        return graph

    def on_close(self, release: Callable[[], None]) -> None:
        """Call `release` after everything made later has been freed."""
        self._owned.callback(release)

    def _drop_on_close(self, holder: Stream | Event | Module) -> None:
        # pycuda frees these with their last reference, which must go while the context is current.
        self._owned.callback(setattr, holder, "native", None)

    def close(self) -> None:
        """Free everything, newest first. The GPU must be idle; harmless when repeated."""
        with self.current():
            self._owned.close()


def _import_pycuda() -> ModuleType:
    try:
        import pycuda.driver
    except ImportError as error:
        if error.name in ("pycuda", "pycuda.driver"):
            raise MissingExtra("pycuda", "tensorrt", "running on an NVIDIA GPU") from error
        raise EngineError(
            f"pycuda is installed but cannot be loaded: {error}",
            "build it again on this machine: pip install --no-binary=pycuda --force pycuda",
        ) from error
    driver: ModuleType = pycuda.driver
    return driver


def _primary_context(pycuda: ModuleType, index: int) -> Any:
    """Retained once per process, as the CUDA runtime itself does, and released at its end.

    pycuda's release leaves the context current in the calling thread, so it may only come last; and
    its destructor calls cuCtxDetach, which a primary context refuses, so it must come before that.
    """
    with _contexts_lock:
        if index not in _contexts:
            pycuda.init()
            _contexts[index] = pycuda.Device(index).retain_primary_context()
            atexit.register(_contexts[index].detach)
        return _contexts[index]
