"""The one-class bottleneck: three teacher levels fused (MFF) and embedded (OCE) at stride 32.

Paper: Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR
2022, section 3.3. The unused 1x1 convolution of the authors' release is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..engine.spec import Backbone
from .resnet import SHAPES, conv3x3, initialise, stage

EMBEDDING_BLOCKS: dict[Backbone, int] = {
    "resnet18": 2,
    "resnet34": 3,
    "resnet50": 3,
    "wide_resnet50_2": 3,
}


def halve(channels_in: int) -> nn.Sequential:
    """Half the size, twice the channels: conv3x3 stride 2, BN, ReLU."""
    return nn.Sequential(
        conv3x3(channels_in, 2 * channels_in, stride=2),
        nn.BatchNorm2d(2 * channels_in),
        nn.ReLU(inplace=True),
    )


class Bottleneck(nn.Module):
    """E1 (N, 64e, H/4, W/4), E2 (128e, /8), E3 (256e, /16) -> z (N, 512e, H/32, W/32)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        shape = SHAPES[backbone]
        self.reduce1 = nn.Sequential(halve(shape.channels(1)), halve(shape.channels(2)))
        self.reduce2 = halve(shape.channels(2))
        blocks = EMBEDDING_BLOCKS[backbone]
        self.embed = stage(shape, 3 * shape.channels(3), 512, blocks, stride=2)
        initialise(self)

    def forward(self, e1: Tensor, e2: Tensor, e3: Tensor) -> Tensor:
        fused = torch.cat([self.reduce1(e1), self.reduce2(e2), e3], dim=1)
        embedded: Tensor = self.embed(fused)
        return embedded
