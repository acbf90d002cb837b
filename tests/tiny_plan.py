"""A real plan with a very small real network, for every test that needs one (no torch).

Its "teacher" and "student" are arithmetic: pooled colour against ImageNet's mean grey. A part of
that grey scores about 0; a bright, dark or coloured spot raises the map where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skrd4ad.engine.check_set import CheckPictures, check_set_bytes
from skrd4ad.engine.plan import write_plan
from skrd4ad.engine.preprocess import crop_and_resize
from skrd4ad.engine.score_map import combine, image_score, resampling_matrix
from skrd4ad.engine.spec import (
    LEVEL_STRIDES,
    InputSpec,
    Manifest,
    NetworkSpec,
    Parity,
    Proof,
    Roi,
    RunOrigin,
    ScoreContract,
    TeacherOrigin,
    TensorInfo,
    Threshold,
)

THRESHOLD = Threshold(
    value=1.0,
    method="manual",
    target_false_reject_rate=0.01,
    attainable_rate=0.01,
    n_normals=99,
    score_quantiles=(0.0,) * 7,
    source="tiny plan",
)

PARITY = Parity(
    reference="numpy float64",
    n_images=9,
    map_max_abs=0.0,
    map_tolerance=1e-5,
    score_max_abs=0.0,
    score_tolerance=1e-5,
)


def tiny_model(size: int = 64, batch: int = 1) -> bytes:
    """ONNX, opset 17: image (b, 3, s, s) -> map (b, s, s), score (b,). NaN becomes +inf."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(operation: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    one = constant("one", np.float32([1.0]))
    levels = []
    for stride in LEVEL_STRIDES:
        pooled = add(
            "AveragePool",
            ["image"],
            f"pool{stride}",
            kernel_shape=[stride] * 2,
            strides=[stride] * 2,
        )
        square = add("Mul", [pooled, pooled], f"square{stride}")
        energy = add("ReduceSum", [square, "channels"], f"energy{stride}", keepdims=0)
        length = add("Sqrt", [add("Add", [energy, one], f"plus{stride}")], f"length{stride}")
        distance = add("Sub", [one, add("Div", [one, length], f"cosine{stride}")], f"a{stride}")
        matrix = resampling_matrix(size // stride, size, ScoreContract()).astype(np.float32)
        rows = constant(f"rows{stride}", matrix)
        columns = constant(f"columns{stride}", matrix.T)
        half = add("MatMul", [rows, distance], f"half{stride}")
        levels.append(add("MatMul", [half, columns], f"level{stride}"))
    constant("channels", np.int64([1]))
    constant("infinity", np.float32(np.inf))
    total = add("Sum", levels, "total")
    add("Where", [add("IsNaN", [total], "lost"), "infinity", total], "map")
    add("ReduceMax", ["map"], "score", axes=[1, 2], keepdims=0)
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", floats, [batch, 3, size, size])],
        [
            helper.make_tensor_value_info("map", floats, [batch, size, size]),
            helper.make_tensor_value_info("score", floats, [batch]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_reference(
    images: NDArray[np.float32], contract: ScoreContract | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same network in numpy float64: (n, 3, s, s) -> maps (n, s, s), scores (n,)."""
    contract = contract or ScoreContract()
    count, _, size, _ = images.shape
    distances = []
    for stride in LEVEL_STRIDES:
        side = size // stride
        tiles = images.astype(np.float64).reshape(count, 3, side, stride, side, stride)
        energy = (tiles.mean(axis=(3, 5)) ** 2).sum(axis=1)
        distances.append(1.0 - 1.0 / np.sqrt(1.0 + energy))
    maps = combine(distances, contract, (size, size))
    return maps, image_score(maps, contract)


def tiny_manifest(
    size: int = 64,
    batch: int = 1,
    threshold: Threshold | None = THRESHOLD,
    roi: Roi | None = None,
) -> Manifest:
    """What a compiled plan says about itself, for the tiny network."""
    nothing = "0" * 64
    shapes = {"image": (batch, 3, size, size), "map": (batch, size, size), "score": (batch,)}
    return Manifest(
        name="tiny",
        created="2026-01-01T00:00:00Z",
        product_version="0.0.0",
        network=NetworkSpec(),
        teacher=TeacherOrigin(kind="random", detail="arithmetic, for tests", sha256=nothing),
        input=InputSpec(height=size, width=size, roi=roi),
        score=ScoreContract(),
        backend="onnxruntime",
        precision="fp32",
        batch=batch,
        tensors=tuple(
            TensorInfo(
                name=name,
                direction="input" if name == "image" else "output",
                dtype="float32",
                shape=shape,
            )
            for name, shape in shapes.items()
        ),
        build={"onnx_opset": "17"},
        run=RunOrigin(
            name="tiny",
            weights_sha256=nothing,
            split_sha256=nothing,
            seed=0,
            epochs=0,
            n_fit=0,
            n_calibration=0,
        ),
        proof=Proof(parity=(PARITY,), negative_controls={}, latency_ms_p50=0.0, latency_ms_p99=0.0),
        members={},
        threshold=threshold,
    )


def tiny_members(size: int = 64, batch: int = 1, seed: int = 1) -> Mapping[str, bytes]:
    """`model.onnx` and `check.npz` (nine pictures with their float64 reference)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (8, 5, 5, 3), np.uint8)
    spec = InputSpec(height=size, width=size)
    pixels = [crop_and_resize(picture, spec) for picture in coarse]
    patched = pixels[0].copy()
    patched[: size // 4, : size // 4] = 255
    pictures = CheckPictures(
        np.stack([*pixels, patched]), (*(f"random {n}" for n in range(8)), "random 0, patched")
    )
    maps, scores = tiny_reference(pictures.network_input(spec))
    check = check_set_bytes(pictures, maps, scores)
    return {"model.onnx": tiny_model(size, batch), "check.npz": check}


def write_tiny_plan(
    path: Path,
    size: int = 64,
    threshold: Threshold | None = THRESHOLD,
    batch: int = 1,
    roi: Roi | None = None,
) -> Path:
    """Write the tiny plan to `path` and return `path`. `threshold=None` leaves it uncalibrated."""
    write_plan(path, tiny_manifest(size, batch, threshold, roi), tiny_members(size, batch))
    return path
