"""One optimisation step, its guard against non-finite values, and the running average.

`state()` is everything that a step changes, as plain tensors: the guard keeps one in memory, a
checkpoint writes one to disk, and both come back through `restore()`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import EngineError
from .distributed import Learning, average_over_team, share_batch_norms
from .losses import LossTerms, ReconstructionHead, triple_loss
from .network import Features, Network
from .preset import LossWeights, Precision
from .schedule import averaging_decay

log = logging.getLogger(__name__)

BETAS = (0.5, 0.999)
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SMALLEST_SCALE = 1.0
"""Below it a float16 gradient is not too small to hold; the run has diverged."""
MAX_RESTORES = 5


class StepFigures(NamedTuple):
    """Loss terms of one step as numbers; None when the step was undone."""

    total: float
    cosine: float
    skip: float
    reconstruction: float
    gradient_norm: float


class Learner:
    """Bottleneck, student and reconstruction head with Adam and the exported average."""

    def __init__(
        self,
        network: Network,
        weights: LossWeights,
        *,
        clip_norm: float,
        ema_decay: float,
        precision: Precision = "fp32",
        compiled: bool = False,
        team_size: int = 1,
    ) -> None:
        self.network = network
        self.weights = weights
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.precision: Precision = precision
        self.team_size = team_size
        head: ReconstructionHead | None = None
        if weights.reconstruction:
            head = ReconstructionHead(network.spec)
            head.to(next(network.student.parameters()).device)
        parts = {"bottleneck": network.bottleneck, "student": network.student, "head": head}
        self.trained = nn.ModuleDict({name: part for name, part in parts.items() if part})
        self.head = head
        self.averaged = self._average_twin()
        if team_size > 1:
            share_batch_norms(self.trained)
        self.parameters = [p for p in self.trained.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=1.0, betas=BETAS)
        for parameter in self.parameters:  # the state exists from the start, so it can be stored
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        device = next(network.student.parameters()).device.type
        # float16 has no exponents for small gradients: the loss is multiplied, gradients divided.
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        learn: Callable[[tuple[Tensor, ...]], Features] = network.learn
        self.learn: nn.Module = Learning(self.trained, torch.compile(learn) if compiled else learn)
        if team_size > 1:
            # Batch statistics are the team's already, so no buffer needs to be sent around.
            self.learn = DistributedDataParallel(self.learn, broadcast_buffers=False)
        self.rate_scale = 1.0
        """Halved after every restore: what diverged once must not be repeated unchanged."""
        self.restores = 0
        self._last_good = self.state()

    def step(
        self, number: int, taught: tuple[Tensor, ...], x: Tensor | None, rate: float
    ) -> StepFigures | None:
        """Learn from one batch. A non-finite loss or gradient undoes back to `mark_good`.

        With float16 a gradient that overflows only skips the step and halves the loss scale.
        Raises EngineError when that does not help.
        """
        self.network.train()
        dtype, mixed = AUTOCAST[self.precision], self.precision != "fp32"
        with torch.autocast(taught[0].device.type, dtype if mixed else torch.bfloat16, mixed):
            features, image = self.learn(taught)
        terms = triple_loss(features, x, image, self.weights)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms.total).backward()  # type: ignore[no-untyped-call]
        if self.team_size > 1:
            terms = terms._replace(total=average_over_team(terms.total, self.team_size))
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        finite = bool(torch.isfinite(terms.total)), bool(torch.isfinite(norm))
        if not all(finite):
            overflow = finite[0] and self.scaler.get_scale() > _SMALLEST_SCALE
            self.scaler.update()  # halves the scale; does nothing outside float16
            if not overflow:
                self._undo(number)
            return None
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.rate_scale
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average(averaging_decay(number, self.ema_decay))
        return _figures(terms, norm)

    def mark_good(self) -> None:
        """Remember this state as the one to fall back to."""
        self._last_good = self.state()

    def state(self) -> dict[str, Tensor]:
        """Copies of everything a step changes, by name."""
        named = {f"model.{k}": v for k, v in self.trained.state_dict().items()}
        named |= {f"average.{k}": v for k, v in self._averaged_parts().state_dict().items()}
        for index, parameter in enumerate(self.parameters):
            for key, value in self.optimizer.state[parameter].items():
                named[f"adam.{index}.{key}"] = value
        named["rate_scale"] = torch.tensor(self.rate_scale, dtype=torch.float64)
        named["restores"] = torch.tensor(self.restores)
        scaler = self.scaler.state_dict()
        if scaler:
            named["loss_scale"] = torch.tensor(scaler["scale"], dtype=torch.float64)
            named["loss_scale_steps"] = torch.tensor(scaler["_growth_tracker"])
        return {name: value.detach().clone() for name, value in named.items()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Put a `state()` back. Raises KeyError or RuntimeError when it is of another model."""
        for prefix, part in (("model.", self.trained), ("average.", self._averaged_parts())):
            part.load_state_dict(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )
        for index, parameter in enumerate(self.parameters):
            for key, value in self.optimizer.state[parameter].items():
                value.copy_(state[f"adam.{index}.{key}"])
        self.rate_scale = float(state["rate_scale"])
        self.restores = int(state["restores"])
        if self.scaler.is_enabled():
            kept = self.scaler.state_dict()
            kept |= {
                "scale": float(state["loss_scale"]),
                "_growth_tracker": int(state["loss_scale_steps"]),
            }
            self.scaler.load_state_dict(kept)

    def _undo(self, number: int) -> None:
        restores, scale = self.restores + 1, self.rate_scale / 2
        if restores > MAX_RESTORES:
            raise EngineError(
                f"training diverged {restores} times (last at step {number}): loss or gradient"
                " was not finite",
                "lower learning_rate, or check the images and the teacher weights",
            )
        self.restore(self._last_good)
        self.restores, self.rate_scale = restores, scale
        log.warning(
            "step %d: loss or gradient not finite; back to the last good state, rate x %g",
            number,
            scale,
        )

    def _average_twin(self) -> Network:
        """A copy of the trained parts that shares the (constant) teacher."""
        teacher, self.network.teacher = self.network.teacher, nn.Identity()  # type: ignore[assignment]
        twin = copy.deepcopy(self.network)
        self.network.teacher = twin.teacher = teacher
        return twin.requires_grad_(False).eval()

    def _averaged_parts(self) -> nn.ModuleDict:
        parts = {"bottleneck": self.averaged.bottleneck, "student": self.averaged.student}
        return nn.ModuleDict({name: part for name, part in parts.items() if part})

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        current = self.trained.state_dict()
        old, new = [], []
        for name, value in self._averaged_parts().state_dict().items():
            if value.is_floating_point():
                old.append(value)
                new.append(current[name])
            else:
                value.copy_(current[name])
        torch._foreach_lerp_(old, new, 1.0 - decay)


def _figures(terms: LossTerms, norm: Tensor) -> StepFigures:
    numbers = [float(term.detach()) for term in (*terms, norm)]
    return StepFigures(*numbers)
