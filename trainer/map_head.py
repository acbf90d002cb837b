"""From features to an anomaly map and a score: the torch form of the score contract.

    A_l = 1 - cos(E_l, D_l) per pixel      map = sum over levels of R_l A_l R_l^T      score = max

R_l is upsampling and Gaussian blur in one matrix (engine/score_map.py computes it in float64), so
the graph that is exported holds six small matrix products and no resize, pad or blur.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.score_map import TINY, check_contract, resampling_matrix, top_count
from ..engine.spec import LEVEL_STRIDES, InputSpec, ScoreContract
from .network import Network


def cosine_distance(taught: Tensor, rebuilt: Tensor) -> Tensor:
    """(N, C, h, w) twice -> 1 - cosine per pixel, float32 (N, h, w).

    Two zero vectors agree (0), one zero vector does not (1). Norms and dot product are float32
    whatever the features are: in half precision the cosine of a 1024-vector with itself is off
    by up to 0.008.
    """
    a, b = taught.float(), rebuilt.float()
    norm_a, norm_b = _channel_sum(a.square()).sqrt(), _channel_sum(b.square()).sqrt()
    cosine = _channel_sum(a * b) / (norm_a.clamp_min(TINY) * norm_b.clamp_min(TINY))
    both_zero = (norm_a <= TINY) & (norm_b <= TINY)
    return torch.where(both_zero, torch.zeros_like(cosine), 1.0 - cosine)


def _channel_sum(values: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h, w), as a matrix product: ONNX Runtime's sum over the channels takes
    seven times as long on a CPU, 4 % of a whole ResNet-18 inference."""
    # As integers, so that the exported graph holds sizes instead of computing them.
    count, channels, height, width = (int(side) for side in values.shape)
    ones = torch.ones(1, channels, dtype=values.dtype, device=values.device)
    rows = values.reshape(count, channels, height * width)
    return torch.matmul(ones, rows).reshape(count, height, width)


class MapHead(nn.Module):
    """Teacher and student levels -> map float32 (N, H, W) and score float32 (N,)."""

    def __init__(self, input_spec: InputSpec, contract: ScoreContract) -> None:
        super().__init__()
        self.contract = contract
        check_contract(contract)
        self.top_count = top_count(contract, input_spec.height * input_spec.width)
        for level, stride in enumerate(LEVEL_STRIDES, start=1):
            rows = resampling_matrix(input_spec.height // stride, input_spec.height, contract)
            columns = resampling_matrix(input_spec.width // stride, input_spec.width, contract)
            self.register_buffer(f"rows{level}", torch.from_numpy(rows.astype(np.float32)), False)
            self.register_buffer(
                f"columns{level}", torch.from_numpy(columns.T.astype(np.float32).copy()), False
            )

    def forward(
        self, taught: tuple[Tensor, ...], rebuilt: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor]:
        levels = []
        for level, (e, d) in enumerate(zip(taught, rebuilt, strict=True), start=1):
            rows, columns = getattr(self, f"rows{level}"), getattr(self, f"columns{level}")
            levels.append(rows @ cosine_distance(e, d) @ columns)
        total = levels[0] + levels[1] + levels[2]
        # A network that produced NaN has inspected nothing: never let it score below a threshold.
        anomaly_map = torch.where(torch.isnan(total), torch.full_like(total, torch.inf), total)
        flat = anomaly_map.flatten(1)
        if self.contract.score == "max":
            return anomaly_map, flat.amax(1)
        return anomaly_map, flat.topk(self.top_count, dim=1).values.mean(1)


class Inspector(nn.Module):
    """x float32 (N, 3, H, W) -> map float32 (N, H, W), score float32 (N,): the torch reference."""

    def __init__(self, network: Network, input_spec: InputSpec, contract: ScoreContract) -> None:
        super().__init__()
        self.network = network
        self.head = MapHead(input_spec, contract)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(x)
        anomaly_map, score = self.head(features.teacher, features.student)
        return anomaly_map, score
