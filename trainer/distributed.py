"""Several processes as one: `torchrun --nproc-per-node 2 -m skrd4ad train ...`.

Every process takes its share of each batch. DistributedDataParallel averages the gradients while
they are computed, and batch statistics are taken over all shares, so the result is that of one
process with the whole batch, up to rounding. Only the first process touches the run folder: the
machines need the same images and nothing else in common. NCCL on GPUs, gloo on CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ConfigError
from .network import Features

Learn = Callable[[tuple[Tensor, ...]], Features]


class Team(NamedTuple):
    """This process's place among `size`; (0, 1) without torchrun."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder and shows progress."""
        return self.rank == 0

    def share(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of a batch, the same length in every process."""
        part: NDArray[np.int64] = np.split(indices, self.size)[self.rank]
        return part

    def from_leader(self, tensor: Tensor) -> Tensor:
        """The leader's `tensor`, in every process; shape and dtype must be the same in all."""
        if self.size == 1:
            return tensor
        travelling = tensor.to(self.device, copy=True).contiguous()
        dist.broadcast(travelling, 0)
        return travelling.to(tensor.device)

    def leaders_number(self, number: int) -> int:
        """The leader's `number`, in every process."""
        return int(self.from_leader(torch.tensor(number)))

    def check_same(self, digest: bytes, what: str) -> None:
        """Raises ConfigError in every process whose `digest` is not the leader's."""
        ours = torch.tensor(list(digest), dtype=torch.uint8)
        if not torch.equal(self.from_leader(ours), ours):
            raise ConfigError(
                f"process {self.rank} of {self.size} has other {what} than the first",
                "every machine needs the same files",
            )


@contextmanager
def team(device: torch.device, batch: int) -> Iterator[Team]:
    """Join the processes that torchrun started; one alone needs nothing.

    Inside another `team` the processes stay joined. Raises ConfigError when the batch cannot be
    divided evenly.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(device=device)
        return
    if batch % size:
        raise ConfigError(
            f"batch {batch} cannot be divided among {size} processes",
            f"use a multiple of {size}",
        )
    outermost = not dist.is_initialized()
    if outermost:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), size, device)
        dist.barrier()  # nobody leaves before the run folder has its name
    finally:
        if outermost:
            dist.destroy_process_group()


class _TeamSum(torch.autograd.Function):
    """The sum over all processes; every process's part influences every process's loss."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class TeamBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the whole batch.

    torch's SyncBatchNorm does the same on GPUs only. All shares have one size, so the mean over
    processes of the moments is the moment of the whole.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        size = dist.get_world_size()
        values = x.float()
        moments = torch.stack([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))])
        total: Tensor = _TeamSum.apply(moments)
        mean, square = total / size
        variance = (square - mean.square()).clamp_min(0.0)
        self._follow(mean, variance, x.numel() // x.shape[1] * size)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        result: Tensor = values * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
        return result.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = 0.1 if self.momentum is None else self.momentum
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), momentum)


def share_batch_norms(module: nn.Module) -> None:
    """Replace every BatchNorm2d inside `module` by one over the whole team, same parameters."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            shared = TeamBatchNorm(child.num_features, child.eps, child.momentum)
            shared.weight, shared.bias = child.weight, child.bias
            shared.running_mean, shared.running_var = child.running_mean, child.running_var
            shared.num_batches_tracked = child.num_batches_tracked
            shared.train(child.training)
            setattr(module, name, shared)
        else:
            share_batch_norms(child)


class Learning(nn.Module):
    """Bottleneck, student and head behind one forward, as DistributedDataParallel wants it."""

    def __init__(self, trained: nn.ModuleDict, learn: Learn) -> None:
        super().__init__()
        self.trained = trained
        self._learn = learn

    def forward(self, taught: tuple[Tensor, ...]) -> tuple[Features, Tensor | None]:
        """Teacher features of a batch -> all features, and the rebuilt image where a head is."""
        features = self._learn(taught)
        image = self.trained["head"](features.student[0]) if "head" in self.trained else None
        return features, image


def average_over_team(value: Tensor, size: int) -> Tensor:
    """The mean of a scalar over all processes: what one decides by it, all decide."""
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / size
