"""The three named recipes: what a preset decides about fusion and loss."""

from __future__ import annotations

from typing import Literal, NamedTuple

Preset = Literal["poster", "official", "rd4ad"]
SkipLoss = Literal["relative", "inter_group"]
Precision = Literal["fp32", "bf16", "fp16"]


class LossWeights(NamedTuple):
    """alpha, beta, gamma of L = alpha L_recon + beta L_cosine + gamma L_skip, and which L_skip."""

    reconstruction: float
    cosine: float
    skip: float
    skip_loss: SkipLoss

    def text(self) -> str:
        """ "0.01 recon + 1 cosine + 0.05 relative skip": what tells two results apart."""
        named = (
            (self.reconstruction, "recon"),
            (self.cosine, "cosine"),
            (self.skip, f"{self.skip_loss} skip"),
        )
        return " + ".join(f"{weight:g} {name}" for weight, name in named if weight)


class Recipe(NamedTuple):
    fusion: Literal["poster", "official", "none"]
    reconstruction: float
    cosine: float
    skip: float
    skip_loss: SkipLoss

    def loss(self) -> LossWeights:
        return LossWeights(self.reconstruction, self.cosine, self.skip, self.skip_loss)


PRESETS: dict[Preset, Recipe] = {
    # The poster gives no values; these keep L_cosine in charge (docs/method.md).
    "poster": Recipe("poster", 0.01, 1.0, 0.05, "relative"),
    # The released code: the teacher map added as it is, and its |difference of errors| term.
    "official": Recipe("official", 0.0, 1.0, 0.005, "inter_group"),
    "rd4ad": Recipe("none", 0.0, 1.0, 0.0, "relative"),
}
