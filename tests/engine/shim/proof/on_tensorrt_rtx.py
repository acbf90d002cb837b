"""A program: our builder module, unchanged, on TensorRT-RTX's real parser and builder.

TensorRT-RTX shares TensorRT 11's API and builds without a GPU; its engines are not TensorRT's. It
stands in for the package `tensorrt` in this process. Usage: on_tensorrt_rtx.py BACKBONE
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import tensorrt_rtx
import torch

sys.modules["tensorrt"] = tensorrt_rtx

from skrd4ad.engine.export import export_model  # noqa: E402
from skrd4ad.engine.fp16 import to_fp16  # noqa: E402
from skrd4ad.engine.spec import InputSpec, NetworkSpec, ScoreContract  # noqa: E402
from skrd4ad.engine.tensorrt_build import BuildOptions, build_serialized  # noqa: E402
from skrd4ad.errors import EngineError  # noqa: E402
from skrd4ad.trainer.map_head import Inspector  # noqa: E402
from skrd4ad.trainer.network import Network  # noqa: E402


def refused(onnx: bytes, sentence: str) -> None:
    try:
        build_serialized(onnx, BuildOptions())
    except EngineError as error:
        if sentence not in str(error):
            raise AssertionError(f"expected '{sentence}' in '{error}'") from error
        return
    raise AssertionError(f"nothing was raised, expected '{sentence}'")


def main(backbone: str) -> None:
    torch.manual_seed(0)
    spec = InputSpec(height=64, width=96)
    network = Network(NetworkSpec(backbone=backbone))  # type: ignore[arg-type]
    exported = export_model(Inspector(network, spec, ScoreContract()).eval(), 2, "features")
    half = to_fp16(exported.model).SerializeToString()
    cache = Path(tempfile.mkdtemp()) / "timings"
    seen: list[tuple[str, int, int]] = []
    built = build_serialized(
        half, BuildOptions(timing_cache=cache), lambda *step: seen.append(step)
    )
    assert built.strongly_typed
    assert len(built.engine) > len(half) // 2
    assert cache.stat().st_size > 0
    assert seen
    assert all(0 <= done <= steps for _, done, steps in seen)
    again = build_serialized(half, BuildOptions(timing_cache=cache))
    assert len(again.engine) == len(built.engine)
    refused(exported.bytes(), "not half")  # float32 outputs
    refused(b"no model", "cannot read the network")
    print("passed", built.tensorrt_version, len(built.engine))


if __name__ == "__main__":
    main(sys.argv[1])
