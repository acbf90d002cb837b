"""Half precision learns what float32 learns, keeps its loss scale, and survives an overflow."""

from __future__ import annotations

import pytest
import torch
from skrd4ad.trainer.config import TrainConfig
from skrd4ad.trainer.learner import Learner
from skrd4ad.trainer.network import Network
from skrd4ad.trainer.preset import PRESETS, LossWeights, Precision

CONFIG = TrainConfig(data="", out="")
RATE = 1e-3


def learner_of(precision: Precision, compiled: bool = False) -> tuple[Learner, torch.Tensor]:
    torch.manual_seed(0)
    network = Network(CONFIG.network_spec())
    learner = Learner(
        network,
        CONFIG.loss_weights(),
        clip_norm=1.0,
        ema_decay=0.999,
        precision=precision,
        compiled=compiled,
    )
    return learner, torch.randn(4, 3, 64, 64)


def losses(precision: Precision, steps: int = 3) -> list[float]:
    learner, x = learner_of(precision)
    taught = learner.network.teach(x)
    figures = [learner.step(number, taught, x, RATE) for number in range(steps)]
    return [figure.total for figure in figures if figure is not None]


@pytest.mark.timeout(400)  # float16 on a CPU is slow, on a busy one very
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_follows_float32(precision: Precision) -> None:
    exact, half = losses("fp32"), losses(precision)
    assert len(half) == len(exact)
    assert exact[-1] < exact[0]
    assert half == pytest.approx(exact, rel=0.03)


def test_weights_statistics_and_loss_stay_float32() -> None:
    learner, x = learner_of("fp16")
    learner.step(0, learner.network.teach(x), x, RATE)
    state = learner.trained.state_dict()
    assert all(v.dtype == torch.float32 for v in state.values() if v.is_floating_point())


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    learner, x = learner_of("fp16")
    taught = learner.network.teach(x)
    learner.step(0, taught, x, RATE)
    before = learner.state()
    state = learner.scaler.state_dict() | {"scale": 2.0**127}
    learner.scaler.load_state_dict(state)
    assert learner.step(1, taught, x, RATE) is None
    after = learner.state()
    assert learner.restores == 0
    assert float(after["loss_scale"]) == 2.0**126
    for name in ("model.", "average.", "adam."):
        kept = [key for key in before if key.startswith(name) and "num_batches" not in key]
        weights = [key for key in kept if "running" not in key]
        assert weights
        assert all(torch.equal(before[key], after[key]) for key in weights)


def test_the_loss_scale_comes_back_with_the_state() -> None:
    learner, x = learner_of("fp16")
    taught = learner.network.teach(x)
    learner.step(0, taught, x, RATE)
    learner.scaler.update(1024.0)
    middle = learner.state()
    first = learner.step(1, taught, x, RATE)
    other, _ = learner_of("fp16")
    other.restore(middle)
    assert float(other.state()["loss_scale"]) == 1024.0
    assert other.step(1, taught, x, RATE) == first


def test_a_loss_in_words_tells_recipes_apart() -> None:
    recipe = PRESETS["official"]
    weights = LossWeights(recipe.reconstruction, recipe.cosine, recipe.skip, recipe.skip_loss)
    assert weights.text() == "1 cosine + 0.005 inter_group skip"
    assert CONFIG.loss_weights().text() == "0.01 recon + 1 cosine + 0.05 relative skip"
