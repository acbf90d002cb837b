"""A program: real pycuda, the fake driver, the real kernels, ONNX Runtime in TensorRT's place.

Run by test_fake_driver.py in a process of its own, because the driver must be the fake one from the
first import on. Usage: on_fake_driver.py SCENARIO; prints "passed" when all assertions held.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from skrd4ad.engine import cuda
from skrd4ad.engine.backends.gpu_frame import STUDENT, TEACHER, GpuEngine
from skrd4ad.engine.cuda_driver import Graph, probe
from skrd4ad.engine.score_map import combine, cosine_distance, image_score
from skrd4ad.engine.spec import (
    LEVEL_STRIDES,
    InputSpec,
    Manifest,
    NetworkSpec,
    Proof,
    RunOrigin,
    ScoreContract,
    TeacherOrigin,
    TensorInfo,
)
from skrd4ad.errors import EngineError

HEIGHT, WIDTH, BATCH, CHANNELS = 64, 96, 2, (16, 24, 32)
# Global, because a pycuda linked against an empty stand-in does not ask for the library itself.
FAKE = ctypes.CDLL("libcuda.so.1", mode=ctypes.RTLD_GLOBAL)


def feature_model() -> bytes:
    """A small real FP32 network image -> six features, with strides 4, 8, 16."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for names in (TEACHER, STUDENT):
        for name, channels, stride in zip(names, CHANNELS, LEVEL_STRIDES, strict=True):
            kernel = rng.standard_normal((channels, 3, stride, stride)) / stride
            weights.append(numpy_helper.from_array(kernel.astype(np.float32), f"{name}_w"))
            nodes.append(
                helper.make_node(
                    "Conv", ["image", f"{name}_w"], [f"{name}_c"], strides=[stride, stride]
                )
            )
            nodes.append(helper.make_node("Relu", [f"{name}_c"], [name]))
    graph = helper.make_graph(
        nodes,
        "features",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [BATCH, 3, HEIGHT, WIDTH])],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [BATCH, channels, HEIGHT // stride, WIDTH // stride]
            )
            for names in (TEACHER, STUDENT)
            for name, channels, stride in zip(names, CHANNELS, LEVEL_STRIDES, strict=True)
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def manifest(layout: str) -> Manifest:
    shapes = [
        (BATCH, c, HEIGHT // s, WIDTH // s) for c, s in zip(CHANNELS, LEVEL_STRIDES, strict=True)
    ]
    tensors = [
        TensorInfo(
            name="image", direction="input", dtype="float16", shape=(BATCH, 3, HEIGHT, WIDTH)
        )
    ]
    for names in (TEACHER, STUDENT):
        tensors += [
            TensorInfo(name=n, direction="output", dtype="float16", shape=s, format=layout)
            for n, s in zip(names, shapes, strict=True)
        ]
    return Manifest(
        name="fake", created="", product_version="0", network=NetworkSpec(),
        teacher=TeacherOrigin(kind="random", detail="", sha256=""),
        input=InputSpec(height=HEIGHT, width=WIDTH), score=ScoreContract(), backend="tensorrt",
        precision="fp16", batch=BATCH, tensors=tuple(tensors), build={},
        run=RunOrigin(name="", weights_sha256="", split_sha256="", seed=0, epochs=0, n_fit=0,
                      n_calibration=0),
        proof=Proof(parity=(), negative_controls={}, latency_ms_p50=0, latency_ms_p99=0),
        members={},
    )  # fmt: skip


class OnnxNetwork:
    """A FeatureNetwork: ONNX Runtime reads and writes the "device" addresses.

    It runs as a host function in the stream (cuLaunchHostFunc), so a capture records it and every
    replay runs it, as TensorRT's kernels would.
    """

    def __init__(self, layout: str) -> None:
        self.layout, self.closed, self.runs = layout, False, 0
        self.after: Callable[[dict[str, np.ndarray]], None] = lambda features: None
        self._session = onnxruntime.InferenceSession(feature_model())
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._run)
        self._addresses: dict[str, int] = {}

    def bind(self, addresses: dict[str, int]) -> None:
        self._addresses = addresses

    def enqueue(self, stream: cuda.Stream) -> None:
        code = FAKE.cuLaunchHostFunc(ctypes.c_void_p(stream.handle), self._callback, None)
        if code:
            raise EngineError(f"cuLaunchHostFunc failed: {code}")

    def close(self) -> None:
        self.closed = True

    def features(self, image: np.ndarray) -> dict[str, np.ndarray]:
        names = (*TEACHER, *STUDENT)
        values = self._session.run(names, {"image": image.astype(np.float32)})
        return {n: v.astype(np.float16) for n, v in zip(names, values, strict=True)}

    def _run(self, _: int) -> None:
        self.runs += 1
        image = at(self._addresses["image"], (BATCH, 3, HEIGHT, WIDTH), np.float16)
        for name, value in self.features(image).items():
            stored = value.transpose(0, 2, 3, 1) if self.layout == "hwc8" else value
            at(self._addresses[name], stored.shape, np.float16)[...] = stored


def at(address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def cubin() -> bytes:
    path = Path(__file__).resolve().parents[1] / "host_kernels.py"
    spec = importlib.util.spec_from_file_location("skrd4ad_shim_host_kernels", path)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return f"HOSTSO:{module.build()}\n\0".encode()


def open_engine(layout: str = "hwc8", **changes: object) -> tuple[GpuEngine, OnnxNetwork]:
    network = OnnxNetwork(layout)
    described = msgspec.structs.replace(manifest(layout), **changes)
    return GpuEngine(described, cuda.Gpu(), network, cubin(), "fake"), network


def expected(network: OnnxNetwork, batch: np.ndarray, contract: ScoreContract) -> tuple:
    padded = np.zeros((BATCH, 3, HEIGHT, WIDTH), np.float32)
    padded[: len(batch)] = batch
    features = network.features(padded.astype(np.float16))
    distances = [
        cosine_distance(features[t], features[s]) for t, s in zip(TEACHER, STUDENT, strict=True)
    ]
    maps = combine(distances, contract, (HEIGHT, WIDTH))[: len(batch)]
    return maps, image_score(maps, contract)


def images(seed: int, count: int = BATCH) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, HEIGHT, WIDTH), np.float32)


@contextmanager
def refused(sentence: str) -> Iterator[None]:
    """The block must raise an EngineError that says `sentence`."""
    try:
        yield
    except EngineError as error:
        if sentence not in str(error):
            raise AssertionError(f"expected '{sentence}' in '{error}'") from error
        return
    raise AssertionError(f"nothing was raised, expected '{sentence}'")


def nothing_is_left() -> None:
    assert [FAKE.fake_live(kind) for kind in range(4)] == [0, 0, 0, 0]
    assert FAKE.fake_context_depth() == 0


def end_to_end(layout: str) -> None:
    """Graph replays follow the input, frame after frame, for full and partial batches."""
    engine, network = open_engine(layout)
    with engine:
        for seed, count in ((1, 2), (2, 1), (3, 2), (1, 2)):
            batch = images(seed, count)
            maps, scores = engine.infer(batch)
            maps_64, scores_64 = expected(network, batch, ScoreContract())
            assert maps.shape == (count, HEIGHT, WIDTH)
            assert np.abs(maps - maps_64).max() <= 1e-6
            assert np.abs(scores - scores_64).max() <= 1e-6
        first, second = engine.infer(images(5))[0], engine.infer(images(6))[0]
        assert not np.array_equal(first, second), "results must be the caller's to keep"
    assert network.closed
    nothing_is_left()


def scenario_nan_input() -> None:
    engine, _ = open_engine()
    with engine:
        batch = images(1)
        batch[1, 0, 5, 5] = np.nan
        _, scores = engine.infer(batch)
        assert np.isfinite(scores[0])
        assert scores[1] == np.inf
        assert np.isfinite(engine.infer(images(1))[1]).all(), "the poison must not stay"
    nothing_is_left()


def scenario_other_threads() -> None:
    """Opened here, used and closed elsewhere, as the line does."""
    engine, network = open_engine()
    problems: list[BaseException] = []

    def work() -> None:
        try:
            scores = engine.infer(images(1))[1]
            reference = expected(network, images(1), ScoreContract())[1]
            assert np.abs(scores - reference).max() <= 1e-6
            assert FAKE.fake_context_depth() == 0
            engine.__exit__(None, None, None)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not problems, problems
    nothing_is_left()


def scenario_top_mean() -> None:
    contract = ScoreContract(score="top-mean", top_fraction=0.01)
    engine, network = open_engine(score=contract)
    with engine:
        scores = engine.infer(images(4))[1]
        reference = expected(network, images(4), contract)[1]
        assert np.abs(scores - reference).max() <= 1e-6
    nothing_is_left()


def scenario_shared_memory() -> None:
    """A device that shares the host's memory (Jetson): kernels write the host's page."""
    FAKE.fake_integrated(1)
    assert probe().integrated
    end_to_end("hwc8")


def scenario_hung_gpu() -> None:
    engine, _ = open_engine()
    FAKE.fake_hang(1)
    for sentence in ("did not finish", "hung on an earlier frame"):
        with refused(sentence):
            engine.infer(images(1))
    engine.__exit__(None, None, None)
    assert FAKE.fake_context_depth() == 0


def scenario_stale_result() -> None:
    """The network works, but the result never arrives: the previous one must not be believed."""
    engine, _ = open_engine()
    with engine:
        engine.infer(images(1))
        frame = engine._frame
        assert frame is not None
        frame._graph.launch = lambda: None  # type: ignore[method-assign]
        with refused("stale"):
            engine.infer(images(2))
    nothing_is_left()


def scenario_failed_start() -> None:
    """Whatever fails while an engine is opened, nothing stays allocated and no context current."""
    for planted in ("bind", "enqueue"):
        network = OnnxNetwork("hwc8")

        def refuse(*_: object) -> None:
            raise EngineError("planted")

        setattr(network, planted, refuse)
        with refused("planted"):
            GpuEngine(manifest("hwc8"), cuda.Gpu(), network, cubin(), "fake")
        assert network.closed
        nothing_is_left()
    with refused("kernels cannot be loaded"):
        GpuEngine(manifest("hwc8"), cuda.Gpu(), OnnxNetwork("hwc8"), b"\x7fELF\0", "fake")
    nothing_is_left()


def scenario_failed_capture() -> None:
    """An error during the capture leaves the stream usable and the error visible."""
    gpu = cuda.Gpu()
    with gpu.current():
        stream = gpu.stream()

        def refuse() -> None:
            raise EngineError("planted")

        with refused("planted"):
            gpu.graph(stream, refuse)
        stream.synchronize()
        graph = Graph(stream.handle, lambda: None)
        graph.close()
        graph.close()
    with refused("cuStreamBeginCapture"):
        Graph(stream.handle, lambda: None)
    gpu.close()
    nothing_is_left()


def scenario_wrong_batch() -> None:
    engine, _ = open_engine()
    with engine:
        for bad in (images(1, 3), images(1).astype(np.float64), images(1)[:, :, :32]):
            with refused("expected float32"):
                engine.infer(bad)
    nothing_is_left()


def scenario_many_frames() -> None:
    """No growth over frames, and the frame number wraps around past 2^32 - 1."""
    engine, network = open_engine()
    with engine:
        engine.infer(images(1))
        live = [FAKE.fake_live(kind) for kind in range(4)]
        frame = engine._frame
        assert frame is not None
        frame._frame = 0xFFFFFFFE
        for _ in range(50):
            scores = engine.infer(images(1))[1]
        assert frame._frame == 49
        assert np.abs(scores - expected(network, images(1), ScoreContract())[1]).max() <= 1e-6
        assert live == [FAKE.fake_live(kind) for kind in range(4)]
        assert network.runs == 2 + 51  # eager, first replay, then one each
    nothing_is_left()


def scenario_hwc8() -> None:
    end_to_end("hwc8")


def scenario_linear() -> None:
    end_to_end("linear")


if __name__ == "__main__":
    globals()[f"scenario_{sys.argv[1]}"]()
    print("passed")
