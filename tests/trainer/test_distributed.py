"""Two processes with half a batch each learn what one process learns with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skrd4ad.errors import ConfigError
from skrd4ad.trainer.checkpoint import load_run
from skrd4ad.trainer.config import load_config
from skrd4ad.trainer.distributed import Team, team
from skrd4ad.trainer.network import Network
from skrd4ad.trainer.train import train


def test_shares_are_equal_and_cover_the_batch() -> None:
    indices = np.arange(12)
    parts = [Team(rank, 3).share(indices) for rank in range(3)]
    assert np.concatenate(parts).tolist() == indices.tolist()
    assert Team().share(indices).tolist() == indices.tolist()
    assert [Team(rank, 2).leads for rank in range(2)] == [True, False]


def test_a_batch_that_cannot_be_shared_evenly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="cannot be divided"), team(torch.device("cpu"), 16):
        pass


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "good").mkdir()
    for index in range(16):
        pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "good" / f"{index}.png")
    options = tmp_path / "config.yaml"
    values = {
        "data": str(tmp_path / "good"),
        "backbone_weights": "random",
        "image_size": 64,
        "epochs": 2,
        "batch": 8,
        "learning_rate": 1e-4,
        "tensorboard": False,
        "nuisance": {"light": 0.1},
    }
    options.write_text(json.dumps(values))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*command, "-m", "skrd4ad", "train", "--config", options, "--out", tmp_path / "two"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        timeout=100,
        stderr=subprocess.DEVNULL,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = train(load_config(options, {"out": str(tmp_path / "one")}))
    torch.set_num_threads(threads)
    two = load_run(tmp_path / "two")
    assert two.origin.split_sha256 == one.origin.split_sha256
    torch.manual_seed(0)
    start = Network(one.spec)  # the same seeded initialisation as in the runs
    changes, differences = [], []
    for (name, p), q, begin in zip(
        one.network.named_parameters(), two.network.parameters(), start.parameters(), strict=True
    ):
        if not name.startswith("teacher"):
            changes.append((p - begin).detach().flatten())
            differences.append((p - q).detach().flatten())
    # Half a batch's own statistics or gradients would differ by a large part of the change.
    assert float(torch.cat(changes).norm()) > 0.0
    assert float(torch.cat(differences).norm()) < 0.05 * float(torch.cat(changes).norm())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = one.network(x), two.network(x)
    for ours, theirs in zip(a.student, b.student, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-2, atol=1e-2 * float(ours.abs().max()))
