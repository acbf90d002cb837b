"""What the losses measure, and what they cannot be cheated with."""

from __future__ import annotations

import pytest
import torch
from skrd4ad.engine.spec import NetworkSpec
from skrd4ad.trainer.losses import (
    ReconstructionHead,
    cosine_loss,
    inter_group_loss,
    relative_skip_loss,
    triple_loss,
)
from skrd4ad.trainer.network import Features
from skrd4ad.trainer.preset import PRESETS, LossWeights
from torch.nn import functional


def pyramid(seed: int, n: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.rand((n, 8 << k, 16 >> k, 16 >> k), generator=generator) + 0.01 for k in range(3)
    )


@pytest.mark.parametrize("scale", [0.01, 1.0, 37.0])
def test_cosine_loss_is_zero_when_features_agree_up_to_scale(scale: float) -> None:
    taught = pyramid(0)
    assert float(cosine_loss(taught, tuple(scale * level for level in taught))) == pytest.approx(
        0.0, abs=1e-6
    )


@pytest.mark.parametrize("level", [0, 1, 2])
def test_cosine_loss_is_positive_as_soon_as_one_level_differs(level: int) -> None:
    taught = pyramid(0)
    rebuilt = list(taught)
    rebuilt[level] = rebuilt[level].clone()
    rebuilt[level][0, 0, 0, 0] += 1.0
    assert float(cosine_loss(taught, tuple(rebuilt))) > 1e-5


def test_cosine_loss_flattens_each_sample_and_sums_levels() -> None:
    taught, rebuilt = pyramid(0), pyramid(1)
    expected = sum(
        (1.0 - functional.cosine_similarity(e.flatten(1), d.flatten(1))).mean()
        for e, d in zip(taught, rebuilt, strict=True)
    )
    assert torch.allclose(cosine_loss(taught, rebuilt), expected, atol=1e-6)


def test_a_scale_that_differs_between_pixels_is_not_free() -> None:
    """The flat form constrains the norms' profile; the per-pixel form would be zero here."""
    taught = pyramid(0)
    ramp = torch.linspace(0.5, 2.0, 16).view(1, 1, 1, 16)
    rebuilt = (taught[0] * ramp, taught[1], taught[2])
    assert float(cosine_loss(taught, rebuilt)) > 1e-2


def test_no_loss_sends_a_gradient_to_the_teacher() -> None:
    taught = tuple(level.requires_grad_() for level in pyramid(0))
    rebuilt = tuple(level.requires_grad_() for level in pyramid(1))
    skips = (rebuilt[1] * 2.0, rebuilt[2] * 2.0)
    total = (
        cosine_loss(taught, rebuilt)
        + relative_skip_loss(taught, skips)
        + inter_group_loss(taught, rebuilt)
    )
    total.backward()
    assert all(level.grad is None for level in taught)
    assert all(level.grad is not None for level in rebuilt)


def test_the_skip_loss_cannot_be_met_by_the_teacher_term() -> None:
    """A student that contributes nothing to the fused tensor pays the full relative error."""
    taught = pyramid(0)
    silent = (torch.zeros_like(taught[1]), torch.zeros_like(taught[2]))
    assert float(relative_skip_loss(taught, silent)) == pytest.approx(1.0, abs=1e-5)
    assert float(relative_skip_loss(taught, (taught[1], taught[2]))) == pytest.approx(0.0)


def test_the_skip_loss_is_relative_to_the_energy_of_each_sample() -> None:
    taught, other = pyramid(0), pyramid(1)
    louder = tuple(100.0 * level for level in taught)
    skips = (other[1], other[2])
    louder_skips = (100.0 * other[1], 100.0 * other[2])
    assert torch.allclose(
        relative_skip_loss(taught, skips), relative_skip_loss(louder, louder_skips)
    )


def test_the_poster_s_literal_reading_is_degenerate() -> None:
    """With the printed fusion D1 = S1 + E2, E2 - D1 is -S1: learning nothing is optimal."""
    taught, own = pyramid(0), pyramid(1)[1]
    fused = own + taught[1]
    assert torch.allclose((taught[1] - fused).square().sum(), own.square().sum(), rtol=1e-4)


def test_inter_group_loss_is_the_released_formula() -> None:
    taught, rebuilt = pyramid(0), pyramid(1)

    def raised(level: torch.Tensor, size: int) -> torch.Tensor:
        return functional.interpolate(level, size, mode="bilinear", align_corners=True)

    mse = functional.mse_loss
    expected = (
        mse(raised(taught[2], 8), raised(rebuilt[2], 8)) - mse(taught[1], rebuilt[1])
    ).abs() + (
        mse(raised(taught[1], 16), raised(rebuilt[1], 16)) - mse(taught[0], rebuilt[0])
    ).abs()
    assert torch.allclose(inter_group_loss(taught, rebuilt), expected, rtol=1e-5)


def test_the_reconstruction_head_gives_an_image_of_the_input_s_size() -> None:
    head = ReconstructionHead(NetworkSpec())
    assert head(torch.rand(2, 64, 16, 24)).shape == (2, 3, 64, 96)


def test_the_total_is_the_weighted_sum_and_unused_terms_are_not_computed() -> None:
    taught, rebuilt = pyramid(0), pyramid(1)
    features = Features(taught, rebuilt, (rebuilt[1], rebuilt[2]))
    x, image = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)
    terms = triple_loss(features, x, image, LossWeights(0.3, 2.0, 0.7, "relative"))
    by_hand = 0.3 * terms.reconstruction + 2.0 * terms.cosine + 0.7 * terms.skip
    assert torch.allclose(terms.total, by_hand)
    assert float(terms.reconstruction) == pytest.approx(float((x - image).square().mean()))
    alone = triple_loss(features, None, None, LossWeights(0.0, 1.0, 0.0, "relative"))
    assert float(alone.skip) == float(alone.reconstruction) == 0.0
    assert torch.equal(alone.total, alone.cosine)


def test_presets_are_the_documented_recipes() -> None:
    assert PRESETS["rd4ad"][:4] == ("none", 0.0, 1.0, 0.0)
    assert PRESETS["official"] == ("official", 0.0, 1.0, 0.005, "inter_group")
    assert PRESETS["poster"] == ("poster", 0.01, 1.0, 0.05, "relative")
