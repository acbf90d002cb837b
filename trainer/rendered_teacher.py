"""A teacher the project makes itself: a short dense pretext training on procedural textures.

The trunk (stem to layer3) learns, at each of its three levels, to name the texture under every cell
and to paint the surface's colours without the light and noise it sees. Nothing of an inspected
part or of its defects occurs in that world (`texture_world.py`), so a result on rendered parts
stays an honest one. It is no substitute for ImageNet weights, and in the demo it did not beat
random weights given the same time (docs/LOG.md, "Demo and rendered teacher").
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.spec import IMAGENET_MEAN, IMAGENET_STD, LEVEL_STRIDES, Backbone
from .resnet import SHAPES, ResNetTrunk
from .texture_world import KINDS, draw_mosaic

log = logging.getLogger(__name__)

PATCH_PX = 4
"""Each cell paints a patch of 4 × 4 colours; at stride 8 and 16 these are averaged pixels."""


def rendered_teacher_state(
    backbone: Backbone,
    seed: int,
    steps: int = 240,
    batch: int = 32,
    side_px: int = 64,
    learning_rate: float = 2e-3,
) -> dict[str, Tensor]:
    """Train a trunk on the texture world; return its state dict with torchvision's names.

    About a minute for a ResNet-18 on two cores. The same arguments, machine and torch give the
    same weights. Global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = ResNetTrunk(backbone)
        heads = nn.ModuleList(
            nn.Conv2d(SHAPES[backbone].channels(level), KINDS + 3 * PATCH_PX**2, 1)
            for level in (1, 2, 3)
        )
    trunk.train()
    parameters = [*trunk.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, learning_rate, total_steps=steps, pct_start=0.2
    )
    rng = np.random.default_rng([seed, 7])
    started = time.monotonic()
    for step in range(steps):
        seen, clean, kind = _batch(rng, batch, side_px)
        loss = _loss(trunk(seen), heads, clean, kind)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 40 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            log.info(
                "rendered teacher: step %d/%d, loss %.3f, %.0f s",
                step + 1,
                steps,
                loss.item(),
                seconds,
            )
    return {name: value.detach().clone() for name, value in trunk.state_dict().items()}


def _batch(rng: np.random.Generator, count: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised images and clean colours (N, 3, side, side), kinds (N, side, side)."""
    mosaics = [draw_mosaic(rng, side) for _ in range(count)]
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    seen = torch.from_numpy(np.stack([mosaic.seen for mosaic in mosaics]))
    clean = torch.from_numpy(np.stack([mosaic.clean for mosaic in mosaics]))
    kind = torch.from_numpy(np.stack([mosaic.kind for mosaic in mosaics])).long()
    return ((seen - mean) / std).permute(0, 3, 1, 2), clean.permute(0, 3, 1, 2), kind


def _loss(levels: tuple[Tensor, ...], heads: nn.ModuleList, clean: Tensor, kind: Tensor) -> Tensor:
    """Cross-entropy of the texture plus 4 × the L1 error of the colours, over three levels."""
    losses = []
    for level, head, stride in zip(levels, heads, LEVEL_STRIDES, strict=True):
        answer = head(level)
        named = F.cross_entropy(
            answer[:, :KINDS], kind[:, stride // 2 :: stride, stride // 2 :: stride]
        )
        pixels = F.avg_pool2d(clean, stride // PATCH_PX) if stride > PATCH_PX else clean
        painted = F.pixel_shuffle(answer[:, KINDS:], PATCH_PX)
        losses.append(named + 4.0 * F.l1_loss(painted, pixels))
    return torch.stack(losses).sum()
