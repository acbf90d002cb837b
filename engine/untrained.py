"""A plan with untrained weights, in memory, to measure a network's speed before training one.

It inspects nothing, carries no proof and is never written: `bench --untrained` alone uses it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from .. import __version__
from ..errors import MissingExtra
from .backends.onnxruntime_cpu import MODEL
from .plan import Plan, parse_plan, plan_bytes
from .preprocess import check_input_spec
from .spec import (
    Backbone,
    InputSpec,
    Manifest,
    NetworkSpec,
    Proof,
    RunOrigin,
    ScoreContract,
    TeacherOrigin,
)


def untrained_plan(backbone: Backbone, size: tuple[int, int], batch: int) -> Plan:
    """A float32 onnxruntime plan of the default network; `size` is (height, width).

    Raises ConfigError for a size that is no multiple of 32, MissingExtra without the train extra.
    """
    spec = msgspec.structs.replace(InputSpec(), height=size[0], width=size[1])
    check_input_spec(spec)
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("torch", "train", "making an untrained network") from error
    from ..trainer.map_head import Inspector
    from ..trainer.network import Network
    from .cpu_plan import build_facts, map_tensors
    from .export import export_model

    torch.manual_seed(0)
    network, contract = NetworkSpec(backbone=backbone), ScoreContract()
    inspector = Inspector(Network(network), spec, contract).eval()
    exported = export_model(inspector, batch)
    nothing = "0" * 64
    manifest = Manifest(
        name=f"untrained-{backbone}",
        created="",
        product_version=__version__,
        network=network,
        teacher=TeacherOrigin(kind="random", detail="untrained, for timing only", sha256=nothing),
        input=spec,
        score=contract,
        backend="onnxruntime",
        precision="fp32",
        batch=batch,
        tensors=map_tensors(batch, *size),
        build=build_facts(exported),
        run=RunOrigin(
            name="untrained", weights_sha256=nothing, split_sha256=nothing, seed=0, epochs=0,
            n_fit=0, n_calibration=0,
        ),
        proof=Proof(parity=(), negative_controls={}, latency_ms_p50=0.0, latency_ms_p99=0.0),
        members={},
    )  # fmt: skip
    return parse_plan(plan_bytes(manifest, {MODEL: exported.bytes()}), Path(manifest.name))
