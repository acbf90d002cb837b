"""In the place of TensorRT where there is no GPU: the calls our two TensorRT files make, no more.

An "engine" is the ONNX file behind a mark. ONNX Runtime runs it at the "device" addresses as a host
function of the stream, so that a captured graph replays it as it would replay TensorRT's kernels.
Like the real one it reports failure by None or False and through its logger.
"""

from __future__ import annotations

import ctypes
import enum
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime

__version__ = "11.4.0-stand-in"
_MARK = b"stand-in engine\0"
_DRIVER = ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)
ERROR_OF_FEATURES = 0.0
"""A test sets this: the relative error of every student feature, as a broken build would have."""


class DataType(enum.Enum):
    HALF = onnx.TensorProto.FLOAT16
    FLOAT = onnx.TensorProto.FLOAT


class TensorFormat(enum.IntEnum):
    LINEAR = 0
    HWC8 = 2


TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT")
MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "DETAILED")
BuilderFlag = enum.Enum("BuilderFlag", "TF32")  # TensorRT 11 has no FP16 any more
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0})


class ILogger:
    Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


class IProgressMonitor:
    """Subclassed by the product."""


class Builder:
    def __init__(self, log: ILogger) -> None:
        self.log = log

    def create_network(self, flags: int) -> Network:
        return Network()

    def create_builder_config(self) -> SimpleNamespace:
        return SimpleNamespace(set_memory_pool_limit=lambda pool, size: None, progress_monitor=None)

    def build_serialized_network(self, network: Network, config: SimpleNamespace) -> bytes | None:
        if any(int(t.allowed_formats) != 1 << TensorFormat.HWC8 for t in network.outputs):
            self.log.log(ILogger.Severity.ERROR, "the outputs were not asked for as HWC8")
            return None
        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building", None, 2)
            config.progress_monitor.step_complete("Building", 0)
            config.progress_monitor.phase_finish("Building")
        return _MARK + network.model.SerializeToString()


class Network:
    def __init__(self) -> None:
        self.inputs: list[SimpleNamespace] = []
        self.outputs: list[SimpleNamespace] = []
        self.model = onnx.ModelProto()

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))

    def get_input(self, index: int) -> SimpleNamespace:
        return self.inputs[index]

    def get_output(self, index: int) -> SimpleNamespace:
        return self.outputs[index]


class OnnxParser:
    def __init__(self, network: Network, log: ILogger) -> None:
        self.network, self.num_errors = network, 0

    def parse(self, data: bytes) -> bool:
        self.network.model = onnx.load_from_string(data)
        graph = self.network.model.graph
        self.network.inputs = [_described(value) for value in graph.input]
        self.network.outputs = [_described(value) for value in graph.output]
        return True


class Runtime:
    def __init__(self, log: ILogger) -> None:
        self.log = log

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        data = bytes(data)
        if not data.startswith(_MARK):
            self.log.log(ILogger.Severity.ERROR, "Magic tag does not match")
            return None
        return Engine(data[len(_MARK) :])


class Engine:
    def __init__(self, model: bytes) -> None:
        graph = onnx.load_from_string(model).graph
        self.model = model
        self.tensors = {value.name: _described(value) for value in (*graph.input, *graph.output)}
        self.inputs = {value.name for value in graph.input}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.tensors[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat.LINEAR if name in self.inputs else TensorFormat.HWC8

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.addresses = engine, {}
        self.session = onnxruntime.InferenceSession(
            engine.model, providers=["CPUExecutionProvider"]
        )
        self.callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._run)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.tensors

    def execute_async_v3(self, stream: int) -> bool:
        return _DRIVER.cuLaunchHostFunc(ctypes.c_void_p(stream), self.callback, None) == 0

    def _run(self, _: int) -> None:
        names = [name for name in self.engine.tensors if name not in self.engine.inputs]
        feed = {name: self._at(name) for name in self.engine.inputs}
        for name, value in zip(names, self.session.run(names, feed), strict=True):
            if name.startswith("student"):
                checker = np.indices(value.shape[1:]).sum(axis=0) % 2
                value = (value * (1 + ERROR_OF_FEATURES * checker)).astype(np.float16)
            self._at(name)[...] = value.transpose(0, 2, 3, 1)

    def _at(self, name: str) -> np.ndarray:
        shape = self.engine.tensors[name].shape
        if name not in self.engine.inputs:
            shape = (shape[0], shape[2], shape[3], shape[1])
        size = 2 * int(np.prod(shape))
        memory = (ctypes.c_char * size).from_address(self.addresses[name])
        return np.frombuffer(memory, np.float16).reshape(shape)


def _described(value: onnx.ValueInfoProto) -> SimpleNamespace:
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in kind.shape.dim)
    return SimpleNamespace(
        name=value.name, dtype=DataType(kind.elem_type), shape=shape, allowed_formats=0
    )
