"""Time of a training step and epoch: ours against the released recipe, interleaved on this machine.

The released SK-RD4AD loop runs the teacher with autograd and layer4 in every step and evaluates
its loss twice; it is rebuilt here from our modules, without its image loading, which is left out
on both sides. Our epoch counts everything it does: its steps, the check on held-out parts, and its
share of the one pass of the teacher over all images.
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
from .losses import cosine_loss, inter_group_loss
from .network import Network
from .preset import PRESETS, LossWeights, Precision
from .resnet import SHAPES, ResNetTrunk
from .schedule import steps_per_epoch

RELEASED_SKIP_RATE = 0.005
RELEASED, CACHED, UNCACHED = "released", "ours, cached teacher", "ours, teacher every step"
HALVES: tuple[Precision, ...] = ("bf16", "fp16")
TEACH, CHECK = "(teacher alone)", "(check of held-out parts)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backbone", default="resnet18", help="any of " + ", ".join(SHAPES))
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--images", type=int, default=170, help="learned from in an epoch")
    parser.add_argument("--held-out", type=int, default=43, help="checked after an epoch")
    parser.add_argument("--epochs", type=int, default=100, help="share the teacher's one pass")
    parser.add_argument("--threads", type=int, help="of torch (default: as many as it takes)")
    parser.add_argument("--half", action="store_true", help="time bf16 and fp16 as well")
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well")


def run(arguments: argparse.Namespace) -> int:
    if arguments.backbone not in SHAPES:
        raise ConfigError(f"unknown backbone '{arguments.backbone}'", ", ".join(SHAPES))
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    backbone = arguments.backbone
    x = torch.randn(arguments.batch, 3, arguments.image_size, arguments.image_size)
    kinds = {
        RELEASED: released_step(backbone, x),
        CACHED: our_step(backbone, x, cached=True),
        UNCACHED: our_step(backbone, x, cached=False),
        TEACH: teacher_pass(backbone, x),
        CHECK: held_out_check(backbone, x),
    }
    if arguments.half:
        for precision in ("bf16", "fp16"):
            kinds[f"{CACHED}, {precision}"] = our_step(
                backbone, x, cached=True, precision=precision
            )
    if arguments.compile:
        kinds[f"{CACHED}, compiled"] = our_step(backbone, x, cached=True, compiled=True)
    seconds = interleave(kinds, arguments.steps)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        spread = max(seconds[name]) - min(seconds[name])
        ratio = median / medians[RELEASED]
        print(f"{name:28} {median:7.3f} s a step  (spread {spread:.3f})  ratio {ratio:.2f}")
    epochs = epoch_seconds(
        medians, arguments.images, arguments.held_out, arguments.batch, arguments.epochs
    )
    for name, value in epochs.items():
        ratio = value / epochs[RELEASED]
        print(f"{name:28} {value:7.1f} s an epoch of {arguments.images} images  ratio {ratio:.2f}")
    print(
        json.dumps(
            {
                "seconds": medians,
                "epoch_seconds": epochs,
                "ratio_cached": medians[CACHED] / medians[RELEASED],
                "ratio_uncached": medians[UNCACHED] / medians[RELEASED],
                "epoch_ratio_cached": epochs[CACHED] / epochs[RELEASED],
                "epoch_ratio_uncached": epochs[UNCACHED] / epochs[RELEASED],
                "backbone": backbone,
                "image_size": arguments.image_size,
                "batch": arguments.batch,
                "steps": arguments.steps,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    )
    return 0


def epoch_seconds(
    medians: dict[str, float], images: int, held_out: int, batch: int, epochs: int
) -> dict[str, float]:
    """Seconds of a whole epoch of each kind, from the medians of its parts."""
    steps = steps_per_epoch(images, batch)
    checks = held_out / batch * medians[CHECK]
    teaching = (images + held_out) / batch * medians[TEACH] / epochs
    whole = {RELEASED: -(-images // batch) * medians[RELEASED]}
    for name, seconds in medians.items():
        if name.startswith(CACHED):
            whole[name] = steps * seconds + checks + teaching
        elif name == UNCACHED:
            whole[name] = steps * seconds + checks
    return whole


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


def our_step(
    backbone: str,
    x: Tensor,
    *,
    cached: bool,
    precision: Precision = "fp32",
    compiled: bool = False,
) -> Callable[[], None]:
    """One step of preset poster, channels last, with or without the teacher's forward pass."""
    recipe = PRESETS["poster"]
    network = Network(_spec(backbone, "poster")).to(memory_format=torch.channels_last)
    weights = LossWeights(recipe.reconstruction, recipe.cosine, recipe.skip, recipe.skip_loss)
    learner = Learner(
        network,
        weights,
        clip_norm=1.0,
        ema_decay=0.999,
        precision=precision,
        compiled=compiled,
    )
    inputs = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        kept = network.teach(inputs)

    def step() -> None:
        with torch.no_grad():
            taught = kept if cached else network.teach(inputs)
        learner.step(0, taught, inputs, 1e-4)

    return step


def teacher_pass(backbone: str, x: Tensor) -> Callable[[], None]:
    """The teacher over one batch, as it is done once for the cache."""
    network = Network(_spec(backbone, "poster")).to(memory_format=torch.channels_last)
    inputs = x.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.no_grad():
            network.teach(inputs)

    return step


def held_out_check(backbone: str, x: Tensor) -> Callable[[], None]:
    """Student and loss over one batch of held-out parts whose teacher features are kept."""
    network = Network(_spec(backbone, "poster")).to(memory_format=torch.channels_last).eval()
    with torch.no_grad():
        taught = network.teach(x.contiguous(memory_format=torch.channels_last))

    def step() -> None:
        with torch.no_grad():
            features = network.learn(taught)
            cosine_loss(features.teacher, features.student)

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
