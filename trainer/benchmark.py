"""Time of one training step: ours against the released recipe, interleaved on this machine.

The released SK-RD4AD loop runs the teacher with autograd and layer4 in every step and evaluates
its loss twice; it is rebuilt here from our modules, without its image loading, which is left out
on both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..engine.spec import NetworkSpec
from ..errors import ConfigError
from .learner import BETAS, Learner
from .losses import inter_group_loss
from .network import Network
from .preset import PRESETS, LossWeights
from .resnet import SHAPES, ResNetTrunk

RELEASED_SKIP_RATE = 0.005


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="resnet18", help="any of " + ", ".join(SHAPES))
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())


def run(arguments: argparse.Namespace) -> int:
    if arguments.backbone not in SHAPES:
        raise ConfigError(f"unknown backbone '{arguments.backbone}'", ", ".join(SHAPES))
    torch.set_num_threads(arguments.threads)
    x = torch.randn(arguments.batch, 3, arguments.image_size, arguments.image_size)
    kinds = {
        "released": released_step(arguments.backbone, x),
        "ours, cached teacher": our_step(arguments.backbone, x, cached=True),
        "ours, teacher every step": our_step(arguments.backbone, x, cached=False),
    }
    seconds = interleave(kinds, arguments.steps)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        spread = max(seconds[name]) - min(seconds[name])
        ratio = median / medians["released"]
        print(f"{name:26} {median:7.3f} s a step  (spread {spread:.3f})  ratio {ratio:.2f}")
    print(
        json.dumps(
            {
                "seconds": medians,
                "ratio_cached": medians["ours, cached teacher"] / medians["released"],
                "ratio_uncached": medians["ours, teacher every step"] / medians["released"],
                "backbone": arguments.backbone,
                "image_size": arguments.image_size,
                "batch": arguments.batch,
                "steps": arguments.steps,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    )
    return 0


def interleave(kinds: dict[str, Callable[[], None]], steps: int) -> dict[str, list[float]]:
    """Seconds of `steps` calls of each kind, taken in turns so that a busy moment hits all."""
    for step in kinds.values():
        step()  # the first call allocates and picks algorithms
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(steps):
        for name, step in kinds.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def our_step(backbone: str, x: Tensor, *, cached: bool) -> Callable[[], None]:
    """One step of preset poster, channels last, with or without the teacher's forward pass."""
    recipe = PRESETS["poster"]
    network = Network(_spec(backbone, "poster")).to(memory_format=torch.channels_last)
    weights = LossWeights(recipe.reconstruction, recipe.cosine, recipe.skip, recipe.skip_loss)
    learner = Learner(network, weights, clip_norm=1.0, ema_decay=0.999)
    inputs = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        kept = network.teach(inputs)

    def step() -> None:
        with torch.no_grad():
            taught = kept if cached else network.teach(inputs)
        learner.step(0, taught, inputs, 1e-4)

    return step


def released_step(backbone: str, x: Tensor) -> Callable[[], None]:
    """One step as the released main.py does it."""
    network = Network(_spec(backbone, "official"))
    encoder = ResNetTrunk(network.spec.backbone, with_layer4=True).eval()  # grad stays required
    assert network.bottleneck is not None
    trained = [*network.student.parameters(), *network.bottleneck.parameters()]
    optimizer = torch.optim.Adam(trained, lr=5e-3, betas=BETAS)
    network.train()

    def losses() -> tuple[Tensor, Tensor]:
        cosine = x.new_zeros(())
        for e, d in zip(state["taught"], state["rebuilt"], strict=True):
            cosine = cosine + (1 - functional.cosine_similarity(e.flatten(1), d.flatten(1))).mean()
        return cosine, inter_group_loss(state["taught"], state["rebuilt"])

    state: dict[str, tuple[Tensor, ...]] = {}

    def step() -> None:
        taught = encoder(x)[:3]
        state["taught"], state["rebuilt"] = taught, network.learn(taught).student
        loss = losses()[0] + RELEASED_SKIP_RATE * losses()[1]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _spec(backbone: str, fusion: str) -> NetworkSpec:
    return NetworkSpec(backbone=backbone, fusion=fusion)  # type: ignore[arg-type]
