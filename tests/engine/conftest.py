"""A run folder without training: an untrained network that does not amplify rounding."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

SIZE = 64


@pytest.fixture(scope="session")
def write_run() -> Callable[..., Path]:
    """`write_run(folder, n_images=10, held_out=None, fitted=())` -> folder; pictures are uint8."""
    pytest.importorskip("torch", reason="a run folder holds a torch network")
    return _write_run


def _write_run(
    folder: Path,
    n_images: int = 10,
    held_out: Sequence[np.ndarray] | None = None,
    fitted: Sequence[np.ndarray] = (),
) -> Path:
    import torch
    from skrd4ad.engine.images import write_png
    from skrd4ad.engine.spec import (
        InputSpec,
        NetworkSpec,
        RunOrigin,
        ScoreContract,
        TeacherOrigin,
    )
    from skrd4ad.trainer.checkpoint import RunFile, run_file_bytes, weights_bytes
    from skrd4ad.trainer.network import Network
    from skrd4ad.trainer.split import SplitRow, write_split

    torch.manual_seed(0)
    torch.set_num_threads(2)
    network = Network(NetworkSpec()).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.4, 0.6)
            torch.nn.init.uniform_(module.bias, 0.0, 0.2)
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    if held_out is None:
        shape = (SIZE + 16, SIZE, 3)
        noise = [np.clip(random.normal(120, 30, shape), 0, 255) for _ in range(n_images)]
        held_out = [pixels.astype(np.uint8) for pixels in noise]
    rows = []
    for role, pictures in (("calibration", held_out), ("fit", fitted)):
        for index, pixels in enumerate(pictures):
            path = folder / f"{'good' if role == 'calibration' else role}{index}.png"
            write_png(path, pixels)
            rows.append(SplitRow(path, hashlib.sha256(path.read_bytes()).hexdigest(), role))
    weights, split = weights_bytes(network), write_split(rows).encode()
    (folder / "weights.safetensors").write_bytes(weights)
    (folder / "split.csv").write_bytes(split)
    run_file = RunFile(
        network=NetworkSpec(),
        input=InputSpec(height=SIZE, width=SIZE),
        score=ScoreContract(),
        teacher=TeacherOrigin(kind="random", detail="for a test", sha256="0" * 64),
        origin=RunOrigin(
            name="test",
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            split_sha256=hashlib.sha256(split).hexdigest(),
            seed=0,
            epochs=0,
            n_fit=len(fitted),
            n_calibration=len(held_out),
        ),
        config={},
    )
    (folder / "run.yaml").write_bytes(run_file_bytes(run_file))
    return folder
