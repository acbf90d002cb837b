"""The torch-cuda backend: for boxes with a GPU and torch but no TensorRT. Never chosen silently.

torch computes the features in fp16, channels last, on our stream; the kernels, the graph capture
and the proof of a replay are those of the TensorRT backend.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from ...errors import EngineError, MissingExtra, PlanError
from ..cuda import Gpu, Stream
from ..cuda_driver import probe
from ..plan import Plan
from ..spec import Manifest
from .gpu_frame import INPUT, GpuEngine, feature_shapes
from .tensorrt_cuda import KERNELS, refuse_foreign

MODEL = "model.onnx"
_WARM_UP = 3
"""Passes before the capture: cuDNN picks its algorithms and torch's allocator grows in them."""


def open_torch_cuda(plan: Plan) -> GpuEngine:
    """The torch engine for `plan`. Raises PlanError for a plan of another GPU, EngineError when
    the device fails, MissingExtra without torch, onnx or pycuda."""
    facts = probe()
    refuse_foreign(plan, facts, None)
    gpu = Gpu()
    with ExitStack() as undo:
        undo.callback(gpu.close)
        with gpu.current():
            network = TorchNetwork(plan.read(MODEL), plan.manifest)
        undo.pop_all()
    return GpuEngine(
        plan.manifest,
        gpu,
        network,
        plan.read(KERNELS),
        f"torch-cuda {network.version} fp16 on {facts.name} (sm_{facts.compute_capability})",
    )


class TorchNetwork:
    """The plan's fp16 feature graph on torch (a FeatureNetwork)."""

    def __init__(self, model: memoryview, manifest: Manifest) -> None:
        try:
            import torch

            from .onnx_torch import TorchGraph
        except ImportError as error:
            raise MissingExtra(str(error.name), "train", "the torch-cuda backend") from error
        if not torch.cuda.is_available():
            raise EngineError("the installed torch has no CUDA support", "install a CUDA build")
        self.version = torch.__version__
        self._shapes = feature_shapes(manifest)
        if self._shapes.layout != "hwc8":
            raise PlanError("a torch-cuda plan has channels-last features", "compile it again")
        self._manifest = manifest
        self._graph: Any = TorchGraph(bytes(model), "cuda")
        self._pool: Any = None
        self._views: dict[str, Any] = {}

    def bind(self, addresses: dict[str, int]) -> None:
        """Give torch our buffers as tensors, without a copy."""
        import torch

        for tensor in self._manifest.tensors:
            shape = tensor.shape
            if tensor.format == "hwc8":
                shape = (shape[0], shape[2], shape[3], shape[1])
            array = _DeviceArray(addresses[tensor.name], shape)
            view = torch.as_tensor(array, device="cuda")
            if view.data_ptr() != addresses[tensor.name]:
                raise EngineError("torch copied a buffer that it should share")
            if tensor.format == "hwc8":
                view = view.permute(0, 3, 1, 2)
            self._views[tensor.name] = view
        cuda: Any = torch.cuda  # its stream classes are not annotated
        warm = cuda.Stream()
        with torch.no_grad(), torch.cuda.stream(warm):
            for _ in range(_WARM_UP):
                self._graph(self._views[INPUT])
        warm.synchronize()

    def enqueue(self, stream: Stream) -> None:
        """One pass on our stream, within torch's own capture bookkeeping when it is captured."""
        import torch

        cuda: Any = torch.cuda
        external = cuda.ExternalStream(stream.handle)
        with torch.no_grad(), torch.cuda.stream(external):
            if torch.cuda.is_current_stream_capturing():
                # torch's allocator must not hand the graph's memory to anyone else afterwards.
                if self._pool is None:
                    self._pool = torch.cuda.MemPool()
                with torch.cuda.use_mem_pool(self._pool):
                    self._pass()
            else:
                self._pass()

    def close(self) -> None:
        self._views.clear()
        self._graph = self._pool = None

    def _pass(self) -> None:
        for name, value in self._graph(self._views[INPUT]).items():
            self._views[name].copy_(value)


class _DeviceArray:
    """An address in the form in which torch takes foreign device memory (fp16)."""

    def __init__(self, address: int, shape: tuple[int, ...]) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": np.dtype(np.float16).str,
            "data": (address, False),
            "version": 3,
            "strides": None,
        }
