"""What the student minimises: L = alpha L_recon + beta L_cosine + gamma L_skip.

All in float32 whatever the features are, all averaged over the batch, teacher features constant.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..engine.spec import NetworkSpec
from .network import Features
from .preset import LossWeights
from .resnet import SHAPES, initialise

TINY = 1e-12


class LossTerms(NamedTuple):
    """Scalars of one step; `total` is the one with a gradient that is followed."""

    total: Tensor
    cosine: Tensor
    skip: Tensor
    reconstruction: Tensor


def cosine_loss(taught: tuple[Tensor, ...], rebuilt: tuple[Tensor, ...]) -> Tensor:
    """Sum over levels of 1 - cos of the whole flattened level, mean over the batch.

    The authors' code flattens C x H x W, their paper averages per pixel (equations 1 and 2). The
    flat form weighs each pixel by its norms, and only it reproduces the published figures.
    It is zero exactly when every level agrees up to one positive factor.
    """
    total = taught[0].new_zeros((), dtype=torch.float32)
    for e, d in zip(taught, rebuilt, strict=True):
        a, b = e.detach().float().flatten(1), d.float().flatten(1)
        norms = a.norm(dim=1).clamp_min(TINY) * b.norm(dim=1).clamp_min(TINY)
        total = total + (1.0 - (a * b).sum(1) / norms).mean()
    return total


def relative_skip_loss(taught: tuple[Tensor, ...], skips: tuple[Tensor, Tensor]) -> Tensor:
    """1/2 sum over k of |E^{k+1} - S^k|^2 / |E^{k+1}|^2 per sample, mean over the batch.

    The poster's L_skip = 1/2 (|E2 - D1|^2 + |E3 - D2|^2) with the shapes repaired: S^k is the
    student's own part of the fused tensor. The fused tensor itself would contain E^{k+1}, and the
    loss could be met without learning anything.
    """
    total = taught[0].new_zeros((), dtype=torch.float32)
    for e, s in zip(taught[1:3], skips, strict=True):
        target = e.detach().float().flatten(1)
        error = (target - s.float().flatten(1)).square().sum(1)
        total = total + 0.5 * (error / target.square().sum(1).clamp_min(TINY)).mean()
    return total


def inter_group_loss(taught: tuple[Tensor, ...], rebuilt: tuple[Tensor, ...]) -> Tensor:
    """|MSE(up E^{k+1}, up D^{k+1}) - MSE(E^k, D^k)|, k = 1, 2: the released code's second term.

    For parity only: it is zero when two levels are equally bad, so its gradient can make one
    level worse. Upsampling is linear, hence applied once to the difference.
    """
    total = taught[0].new_zeros((), dtype=torch.float32)
    differences = [e.detach().float() - d.float() for e, d in zip(taught, rebuilt, strict=True)]
    for shallow, deep in ((differences[0], differences[1]), (differences[1], differences[2])):
        size = [int(side) for side in shallow.shape[2:]]
        raised = functional.interpolate(deep, size, mode="bilinear", align_corners=True)
        total = total + (raised.square().mean() - shallow.square().mean()).abs()
    return total


class ReconstructionHead(nn.Module):
    """D1 (N, 64e, H/4, W/4) -> image (N, 3, H, W), for L_recon in training only, never exported."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(SHAPES[spec.backbone].channels(1), 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )
        initialise(self)

    def forward(self, d1: Tensor) -> Tensor:
        image: Tensor = self.layers(d1)
        return image


def reconstruction_loss(x: Tensor, image: Tensor) -> Tensor:
    """|X - S(T(X))|^2 as a mean over pixels; X is the normalised input."""
    return functional.mse_loss(image.float(), x.float())


def triple_loss(
    features: Features, x: Tensor | None, image: Tensor | None, weights: LossWeights
) -> LossTerms:
    """All terms of one step. A term of weight 0 is not computed and reads 0.

    `x` and `image` are needed only where `weights.reconstruction` is not 0.
    """
    zero = features.student[0].new_zeros((), dtype=torch.float32)
    cosine = cosine_loss(features.teacher, features.student)
    skip = reconstruction = zero
    if weights.skip:
        if weights.skip_loss == "relative":
            skip = relative_skip_loss(features.teacher, features.skips)
        else:
            skip = inter_group_loss(features.teacher, features.student)
    if weights.reconstruction:
        assert x is not None
        assert image is not None
        reconstruction = reconstruction_loss(x, image)
    total = weights.reconstruction * reconstruction + weights.cosine * cosine + weights.skip * skip
    return LossTerms(total, cosine, skip, reconstruction)
