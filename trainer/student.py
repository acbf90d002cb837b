"""The student: a mirrored ResNet that rebuilds the teacher's features from the embedding.

Between its stages sits the Asymmetric Skip Knowledge Module: the teacher's E^{k+1} joins the input
of the stage that makes D^k. D^k is compared with E^k, so no level ever sees its own target.

    S^k = ReLU(P_k D^{k+1})        P_k: Conv1x1 ("poster"), identity ("official", "none")
    D^k = Stage_k(S^k + g E^{k+1}) for k = 2, 1; nothing is added with "none"

P_k starts as the identity, so an untrained "poster" student equals the "official" one exactly
(ReLU(D) = D because every D ends in a ReLU). docs/method.md gives the reading of the poster.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..engine.spec import NetworkSpec
from .resnet import SHAPES, Shape, conv1x1, conv3x3, initialise


class Reconstruction(NamedTuple):
    """Student features D1, D2, D3 and the student's own part S1, S2 of each stage's input."""

    student: tuple[Tensor, Tensor, Tensor]
    skips: tuple[Tensor, Tensor]


def deconv2x2(channels_in: int, channels_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels_in, channels_out, 2, stride=2, bias=False)


def rising_shortcut(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(deconv2x2(channels_in, channels_out), nn.BatchNorm2d(channels_out))


class RisingBasicBlock(nn.Module):
    """BasicBlock whose first convolution doubles the size when `rises`."""

    def __init__(self, channels_in: int, planes: int, rises: bool) -> None:
        super().__init__()
        self.conv1 = deconv2x2(channels_in, planes) if rises else conv3x3(channels_in, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.upsample = rising_shortcut(channels_in, planes) if rises else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.upsample is None else self.upsample(x)
        return torch.relu(y)


class RisingBottleneckBlock(nn.Module):
    """BottleneckBlock whose middle convolution doubles the size when `rises`."""

    def __init__(self, channels_in: int, planes: int, rises: bool, width_factor: int) -> None:
        super().__init__()
        width = planes * width_factor
        self.conv1 = conv1x1(channels_in, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = deconv2x2(width, width) if rises else conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, planes * 4)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.upsample = rising_shortcut(channels_in, planes * 4) if rises else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.upsample is None else self.upsample(x)
        return torch.relu(y)


def rising_stage(shape: Shape, channels_in: int, planes: int, blocks: int) -> nn.Sequential:
    """One student stage: the first block doubles the size, the others keep it."""

    def block(channels: int, rises: bool) -> nn.Module:
        if shape.expansion == 1:
            return RisingBasicBlock(channels, planes, rises)
        return RisingBottleneckBlock(channels, planes, rises, shape.width_factor)

    first = block(channels_in, True)
    rest = (block(planes * shape.expansion, False) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def cosine_gate(own: Tensor, taught: Tensor) -> Tensor:
    """How far the teacher's feature agrees with what the student expects: (N, 1, h, w) in [0, 1].

    Where a defect makes them disagree the gate closes, so the defect does not leak through the
    skip (same idea as the guided injection of URD, AAAI 2025). No gradient flows through it.
    """
    own32, taught32 = own.detach().float(), taught.detach().float()
    dot = (own32 * taught32).sum(1, keepdim=True)
    norms = own32.square().sum(1, keepdim=True) * taught32.square().sum(1, keepdim=True)
    return (dot * norms.clamp_min(1e-12).rsqrt()).clamp(0.0, 1.0).to(own.dtype)


class Student(nn.Module):
    """z (N, 512e, H/32, W/32) and the teacher's E1..E4 -> D3, D2, D1 and S2, S1.

    Blocks per stage follow the encoder's order (RD4AD): the deepest stage has as many as layer1.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        shape = SHAPES[spec.backbone]
        self.fusion = spec.fusion
        self.additional_skip = spec.additional_skip
        self.gated = spec.skip_gate == "cosine"
        self.stage3 = rising_stage(shape, shape.channels(4), 256, shape.blocks[0])
        self.stage2 = rising_stage(shape, shape.channels(3), 128, shape.blocks[1])
        self.stage1 = rising_stage(shape, shape.channels(2), 64, shape.blocks[2])
        initialise(self)
        self.project2: nn.Conv2d | None = None
        self.project1: nn.Conv2d | None = None
        if spec.fusion == "poster":
            self.project2 = conv1x1(shape.channels(3), shape.channels(3))
            self.project1 = conv1x1(shape.channels(2), shape.channels(2))
            nn.init.dirac_(self.project2.weight)
            nn.init.dirac_(self.project1.weight)
        elif spec.fusion == "corresponding":
            # The ablation's E^k -> stage k: a stride-2 projection onto the stage's input.
            self.project2 = conv1x1(shape.channels(2), shape.channels(3), stride=2)
            self.project1 = conv1x1(shape.channels(1), shape.channels(2), stride=2)
            initialise(self.project2)
            initialise(self.project1)

    def forward(self, z: Tensor, taught: tuple[Tensor, ...]) -> Reconstruction:
        d3 = self.stage3(z + taught[3] if self.additional_skip else z)
        s2, in2 = self._fuse(d3, self.project2, taught[2], taught[1])
        d2 = self.stage2(in2)
        s1, in1 = self._fuse(d2, self.project1, taught[1], taught[0])
        d1 = self.stage1(in1)
        return Reconstruction((d1, d2, d3), (s1, s2))

    def _fuse(
        self, below: Tensor, project: nn.Conv2d | None, deeper: Tensor, corresponding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """D^{k+1}, E^{k+1} and E^k -> S^k and the input of stage k, all of one shape."""
        if self.fusion == "none":
            return below, below
        if self.fusion == "corresponding":
            assert project is not None
            return below, below + project(corresponding)
        own = below if project is None else torch.relu(project(below))
        gate = cosine_gate(own, deeper) if self.gated else 1.0
        return own, own + gate * deeper
