"""The residual trunk of teacher and bottleneck: ResNet-18, -34, -50 and Wide-ResNet-50-2.

Parameter names are torchvision's, so its ImageNet files load key by key; `fc` does not exist here
and `layer4` only on request. Stride 2 sits on the 3x3 convolution ("v1.5"), as in torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..engine.spec import Backbone


class Shape(NamedTuple):
    """What distinguishes one backbone from another."""

    blocks: tuple[int, int, int, int]
    """Residual blocks of layer1..layer4."""
    expansion: int
    """Channels out of a block over its `planes`: 1 basic, 4 bottleneck blocks."""
    width_factor: int
    """Inner width of a bottleneck block over its `planes` (2 in the wide network)."""

    def channels(self, level: int) -> int:
        """Channels of E_level (level 1..4): 64e, 128e, 256e, 512e."""
        return (64 << (level - 1)) * self.expansion


SHAPES: dict[Backbone, Shape] = {
    "resnet18": Shape((2, 2, 2, 2), 1, 1),
    "resnet34": Shape((3, 4, 6, 3), 1, 1),
    "resnet50": Shape((3, 4, 6, 3), 4, 1),
    "wide_resnet50_2": Shape((3, 4, 6, 3), 4, 2),
}


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


def conv1x1(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)


def initialise(module: nn.Module) -> None:
    """He initialisation (fan out) for convolutions; transposed ones keep torch's default.

    That asymmetry is RD4AD's (its loop tests for Conv2d only) and is kept on purpose.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, a shortcut: (N, c_in, h, w) -> (N, planes, h/stride, w/stride)."""

    def __init__(self, channels_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels_in, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return torch.relu(y)


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut: (N, c_in, h, w) -> (N, 4 planes, h/stride, w/stride)."""

    def __init__(self, channels_in: int, planes: int, stride: int, width_factor: int) -> None:
        super().__init__()
        width = planes * width_factor
        self.conv1 = conv1x1(channels_in, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, planes * 4)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(channels_in, planes * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return torch.relu(y)


def shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    """The projection on the shortcut; None where the identity fits."""
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(conv1x1(channels_in, channels_out, stride), nn.BatchNorm2d(channels_out))


def stage(shape: Shape, channels_in: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """One residual stage; the first block carries the stride."""

    def block(channels: int, step: int) -> nn.Module:
        if shape.expansion == 1:
            return BasicBlock(channels, planes, step)
        return BottleneckBlock(channels, planes, step, shape.width_factor)

    first = block(channels_in, stride)
    rest = (block(planes * shape.expansion, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


class ResNetTrunk(nn.Module):
    """Stem to layer3 (layer4 on request): x (N, 3, H, W) -> E1, E2, E3[, E4].

    E_k is the output of layer k after its last ReLU, so E_k >= 0, at stride 4, 8, 16[, 32].
    """

    def __init__(self, backbone: Backbone, with_layer4: bool = False) -> None:
        super().__init__()
        shape = SHAPES[backbone]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(shape, 64, 64, shape.blocks[0], stride=1)
        self.layer2 = stage(shape, shape.channels(1), 128, shape.blocks[1], stride=2)
        self.layer3 = stage(shape, shape.channels(2), 256, shape.blocks[2], stride=2)
        self.layer4 = (
            stage(shape, shape.channels(3), 512, shape.blocks[3], stride=2) if with_layer4 else None
        )
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        e1 = self.layer1(x)
        e2 = self.layer2(e1)
        e3 = self.layer3(e2)
        if self.layer4 is None:
            return e1, e2, e3
        return e1, e2, e3, self.layer4(e3)


@torch.no_grad()
def calibrate_batch_norm(
    module: nn.Module,
    forward: Callable[..., object],
    batches: Iterable[tuple[Tensor, ...]],
) -> None:
    """Replace the running statistics of every BatchNorm in `module` by those of `batches`.

    `forward(*batch)` must run `module`. The result is the plain average over the batches
    ("precise BN"): independent of momentum, and of their order up to rounding.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches:
        forward(*batch)
    for norm, (momentum, training) in zip(norms, before, strict=True):
        norm.momentum = momentum
        norm.train(training)
