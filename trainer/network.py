"""Teacher, bottleneck and student as one module: image in, two feature pyramids out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from ..engine.spec import NetworkSpec
from ..errors import ConfigError
from .bottleneck import Bottleneck
from .resnet import ResNetTrunk
from .student import Student


class Features(NamedTuple):
    """Level k of `teacher` and `student` is (N, c_k, H/2^(k+1), W/2^(k+1)), k = 1, 2, 3."""

    teacher: tuple[Tensor, Tensor, Tensor]
    student: tuple[Tensor, Tensor, Tensor]
    skips: tuple[Tensor, Tensor]
    """S1 (shape of E2) and S2 (shape of E3): the student's own part of each fused input."""


def needs_layer4(spec: NetworkSpec) -> bool:
    """Only two rows of the ablation table look at E4; everything else never computes it."""
    return spec.additional_skip or not spec.bottleneck


class Network(nn.Module):
    """x float32 (N, 3, H, W), H and W multiples of 32 -> Features.

    The teacher has no gradient and stays in eval mode whatever `train()` says.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        check_network_spec(spec)
        self.spec = spec
        self.teacher = ResNetTrunk(spec.backbone, with_layer4=needs_layer4(spec))
        self.teacher.requires_grad_(False)
        self.bottleneck = Bottleneck(spec.backbone) if spec.bottleneck else None
        self.student = Student(spec)
        self.teacher.eval()

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        # Batch statistics in the teacher would be a different method (and an unstable one).
        self.teacher.eval()
        return self

    def teach(self, x: Tensor) -> tuple[Tensor, ...]:
        """E1, E2, E3 (and E4 where the spec needs it): constant for a given image."""
        taught: tuple[Tensor, ...] = self.teacher(x)
        return taught

    def learn(self, taught: tuple[Tensor, ...]) -> Features:
        """Everything that is trained, from teacher features that may come from a cache."""
        e1, e2, e3 = taught[:3]
        z = taught[3] if self.bottleneck is None else self.bottleneck(e1, e2, e3)
        rebuilt = self.student(z, taught)
        return Features((e1, e2, e3), rebuilt.student, rebuilt.skips)

    def forward(self, x: Tensor) -> Features:
        return self.learn(self.teach(x))


def check_network_spec(spec: NetworkSpec) -> None:
    """Refuse combinations that have no meaning. Raises ConfigError."""
    if spec.skip_gate != "none" and spec.fusion not in ("poster", "official"):
        raise ConfigError(
            f"skip_gate '{spec.skip_gate}' has nothing to gate with fusion '{spec.fusion}'",
            "use fusion poster or official, or skip_gate none",
        )
    if spec.additional_skip and not spec.bottleneck:
        raise ConfigError(
            "additional_skip adds E4 to the bottleneck's output, but bottleneck is false",
            "choose one of the two",
        )
