"""What a backend contributes to a plan, before the plan is sealed and examined."""

from __future__ import annotations

from dataclasses import dataclass

from .proof import Finding
from .spec import Quantisation, TensorInfo


@dataclass(frozen=True, slots=True)
class PlanContent:
    """Members, tensors and facts of a plan, and the tolerances it will be held to."""

    members: dict[str, bytes]
    tensors: tuple[TensorInfo, ...]
    build: dict[str, str]
    map_tolerance: float
    score_tolerance: float
    controls: tuple[Finding, ...] = ()
    """Negative controls that only `compile` can run."""
    quantisation: Quantisation | None = None
