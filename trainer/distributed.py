"""Several processes as one: `torchrun --nproc-per-node 2 -m skrd4ad train ...`.

Every process takes its share of each batch. Gradients are averaged and batch statistics computed
over all shares, so the result is that of one process with the whole batch, up to rounding. Only
the first process writes the run folder. NCCL on GPUs, gloo on CPUs, one machine or several.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from ..errors import ConfigError


class Team(NamedTuple):
    """This process's place among `size`; (0, 1) without torchrun."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the run folder and shows progress."""
        return self.rank == 0

    def share(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of a batch, the same length in every process."""
        part: NDArray[np.int64] = np.split(indices, self.size)[self.rank]
        return part


@contextmanager
def team(device: torch.device, batch: int) -> Iterator[Team]:
    """Join the processes that torchrun started; one alone needs nothing.

    Raises ConfigError when the batch cannot be divided evenly.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team()
        return
    if batch % size:
        raise ConfigError(
            f"batch {batch} cannot be divided among {size} processes",
            f"use a multiple of {size}",
        )
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(dist.get_rank(), size)
        dist.barrier()  # nobody leaves before the run folder has its name
    finally:
        dist.destroy_process_group()


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
        total: Tensor = all_reduce(moments)  # type: ignore[no-untyped-call]
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


def average_gradients(parameters: Sequence[nn.Parameter], loss: Tensor, size: int) -> Tensor:
    """Average all gradients, and the loss with them, over the team; returns the average loss.

    The loss travels along so that a non-finite one is seen, and undone, by all processes alike.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten().float() for g in gradients] + [loss.detach().float().view(1)])
    dist.all_reduce(flat)
    flat /= size
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view(gradient.shape))
        start += gradient.numel()
    return flat[-1]
