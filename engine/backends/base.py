"""What every backend offers, and how one is chosen: by the plan, or by name, never silently."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError
from ..plan import Plan
from ..spec import Manifest

logger = logging.getLogger(__name__)

BackendChoice = Literal["auto", "onnxruntime", "tensorrt", "torch-cuda"]
BACKEND_CHOICES: tuple[BackendChoice, ...] = ("auto", "onnxruntime", "tensorrt", "torch-cuda")


class Engine(Protocol):
    """A loaded plan that turns network inputs into maps and scores.

    Used by one thread at a time, inside a `with` block, which releases the device.
    """

    @property
    def manifest(self) -> Manifest: ...

    @property
    def description(self) -> str:
        """For people: backend, precision and device, e.g. "onnxruntime-cpu fp32, 2 threads"."""
        ...

    def infer(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """float32 (n, 3, H, W), 1 <= n <= manifest.batch -> maps (n, H, W), scores (n,).

        The arrays are the caller's to keep. NaN never leaves: it is +inf, which is a reject.
        Raises EngineError when the device fails or the batch has another dtype or shape.
        """
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_engine(plan: Plan, backend: BackendChoice = "auto") -> Engine:
    """The engine for `plan`; "auto" takes the backend that the plan was proved with.

    The choice is logged. Raises EngineError when that backend cannot run here or the plan was not
    made for it; there is no fallback to a slower one.
    """
    manifest = plan.manifest
    chosen = manifest.backend if backend == "auto" else backend
    if chosen != manifest.backend:
        raise EngineError(
            f"{plan.path} was compiled for {manifest.backend}, not for {chosen}",
            f"skrd4ad compile --backend {chosen} makes a plan for it",
        )
    engine = _open(plan, chosen)
    logger.info("plan %s (%s) runs on %s", manifest.name, plan.digest[:19], engine.description)
    return engine


def _open(plan: Plan, backend: str) -> Engine:
    # Imported where chosen: a CPU box needs no CUDA package, a stream never imports torch unasked.
    if backend == "onnxruntime":
        from .onnxruntime_cpu import open_onnxruntime

        return open_onnxruntime(plan)
    if backend == "tensorrt":
        from .tensorrt_cuda import open_tensorrt

        return open_tensorrt(plan)
    if backend == "torch-cuda":
        from .torch_cuda import open_torch_cuda

        return open_torch_cuda(plan)
    raise EngineError(f"unknown backend '{backend}'", f"one of {', '.join(BACKEND_CHOICES)}")


def check_batch(manifest: Manifest, batch: NDArray[np.float32]) -> None:
    """The check at the door: raise EngineError unless `batch` is what the plan takes."""
    height, width = manifest.input.height, manifest.input.width
    shape = batch.shape
    fits = len(shape) == 4 and 1 <= shape[0] <= manifest.batch and shape[1:] == (3, height, width)
    if not fits or batch.dtype != np.float32:
        raise EngineError(
            f"expected float32 (1 ... {manifest.batch}, 3, {height}, {width}), got {batch.dtype}"
            f" {tuple(shape)}"
        )


def without_nan(
    maps: NDArray[np.float32], scores: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """NaN becomes +inf, in place. A map is searched only when its score is not finite."""
    for index in np.flatnonzero(~np.isfinite(scores)):
        scores[index] = np.inf
        maps[index][np.isnan(maps[index])] = np.inf
    return maps, scores
