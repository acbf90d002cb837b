"""The CPU backend: ONNX Runtime on `model.onnx`, map head included in the graph."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...errors import EngineError
from ..plan import Plan
from ..spec import Manifest
from ..threads import machine_threads
from .base import check_batch, without_nan

MODEL = "model.onnx"
INPUT, MAP, SCORE = "image", "map", "score"


class OnnxRuntimeEngine:
    """One session of one plan. See `backends.base.Engine` for the meaning of each member."""

    def __init__(self, plan: Plan, threads: int) -> None:
        self.manifest: Manifest = plan.manifest
        self.description = f"onnxruntime-cpu {plan.manifest.precision}, {threads} threads"
        self._session = open_session(plan.read(MODEL), threads)
        _check_tensors(self._session, self.manifest, plan.path)

    def infer(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `Engine.infer`. Fewer images than the plan's batch are padded with zeros."""
        check_batch(self.manifest, batch)
        count = len(batch)
        if count < self.manifest.batch:
            batch = self._padded(batch)
        try:
            maps, scores = self._session.run((MAP, SCORE), {INPUT: batch})
        except Exception as error:  # onnxruntime's own classes share no public base
            raise EngineError(f"onnxruntime failed: {_first_line(error)}") from error
        return without_nan(maps[:count], scores[:count])

    def _padded(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        padded = np.zeros((self.manifest.batch, *batch.shape[1:]), np.float32)
        padded[: len(batch)] = batch
        return padded

    def __enter__(self) -> OnnxRuntimeEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to release by hand: the session frees its memory with the last reference."""


def open_onnxruntime(plan: Plan, threads: int | None = None) -> OnnxRuntimeEngine:
    """The CPU engine for `plan`, with `machine_threads()` threads unless told otherwise."""
    return OnnxRuntimeEngine(plan, threads or machine_threads())


def open_session(
    model: bytes | memoryview, threads: int, spinning: bool = False
) -> onnxruntime.InferenceSession:
    """A session on the CPU provider alone. Raises EngineError when the model is refused.

    Its idle threads sleep. ONNX Runtime would let them spin, which takes the cores away from the
    line's capture and publish threads; `skrd4ad bench --spinning` measures what either costs.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings about constant folding are not the user's business
    try:
        return onnxruntime.InferenceSession(
            bytes(model), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own classes share no public base
        raise EngineError(
            f"onnxruntime {onnxruntime.__version__} refuses the plan's model: {_first_line(error)}",
            "compile the plan again with the onnxruntime installed here",
        ) from error


def _check_tensors(session: onnxruntime.InferenceSession, manifest: Manifest, path: Path) -> None:
    """The graph's inputs and outputs must be the ones that the manifest promises."""
    found = {node.name: (node.type, tuple(node.shape)) for node in session.get_inputs()}
    found |= {node.name: (node.type, tuple(node.shape)) for node in session.get_outputs()}
    batch, height, width = manifest.batch, manifest.input.height, manifest.input.width
    expected = {
        INPUT: ("tensor(float)", (batch, 3, height, width)),
        MAP: ("tensor(float)", (batch, height, width)),
        SCORE: ("tensor(float)", (batch,)),
    }
    if found != expected:
        raise EngineError(
            f"{path}: the model has tensors {found}, expected {expected}", "compile the plan again"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
