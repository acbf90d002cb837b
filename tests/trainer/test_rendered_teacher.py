"""The project's own teacher: a function of its seed, in torchvision's names, from honest images."""

from __future__ import annotations

import numpy as np
import torch
from skrd4ad.trainer.rendered_teacher import rendered_teacher_state
from skrd4ad.trainer.resnet import ResNetTrunk
from skrd4ad.trainer.texture_world import KINDS, TEXTURES, draw_mosaic

SHORT = {"steps": 3, "batch": 4, "side_px": 32}


def test_teacher_is_a_function_of_its_seed_and_leaves_global_randomness_alone() -> None:
    before = torch.random.get_rng_state()
    one = rendered_teacher_state("resnet18", 1, **SHORT)
    again = rendered_teacher_state("resnet18", 1, **SHORT)
    other = rendered_teacher_state("resnet18", 2, **SHORT)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_teacher_fills_every_tensor_of_the_trunk_with_finite_values() -> None:
    state = rendered_teacher_state("resnet18", 0, **SHORT)
    trunk = ResNetTrunk("resnet18")
    untrained = {name: value.clone() for name, value in trunk.state_dict().items()}
    trunk.load_state_dict(state, strict=True)
    assert all(torch.isfinite(value).all() for value in state.values())
    moved = [n for n in state if n.startswith("layer3") and not torch.equal(state[n], untrained[n])]
    assert moved  # the deepest level is trained, too
    levels = trunk.eval()(torch.randn(1, 3, 64, 64))
    assert [tuple(level.shape[1:]) for level in levels] == [(64, 16, 16), (128, 8, 8), (256, 4, 4)]


def test_texture_world_is_deterministic_and_shows_every_kind() -> None:
    one, two = (draw_mosaic(np.random.default_rng(5), 48) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    rng = np.random.default_rng(0)
    mosaics = [draw_mosaic(rng, 48) for _ in range(120)]
    kinds = np.unique(np.concatenate([mosaic.kind.ravel() for mosaic in mosaics]))
    assert kinds.tolist() == list(range(KINDS))
    assert len(TEXTURES) < KINDS
    for mosaic in mosaics:
        for picture in (mosaic.seen, mosaic.clean):
            assert picture.dtype == np.float32
            assert picture.shape == (48, 48, 3)
            assert 0.0 <= picture.min() <= picture.max() <= 1.0
