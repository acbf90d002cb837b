"""AUPRO against independent code: the package ADEval, where a developer has installed it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skrd4ad.trainer import metrics

au_pro = pytest.importorskip("adeval.au_pro", reason="ADEval is not installed (dev only)")


@pytest.mark.parametrize("limit", [0.05, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_aupro_agrees_with_an_independent_implementation(seed: int, limit: float) -> None:
    """Its many thresholds are sampled from the sorted scores, so it approaches the exact value."""
    random = np.random.default_rng(seed)
    masks = [ndimage.gaussian_filter(random.normal(size=(48, 48)), 2) > 0.12 for _ in range(6)]
    masks[0][:] = False
    maps = [(random.normal(size=mask.shape) + 1.5 * mask).astype(np.float32) for mask in masks]
    theirs, _ = au_pro.calculate_au_pro(
        [mask.astype(np.uint8) for mask in masks], maps, limit, num_thresholds=4000
    )
    assert metrics.aupro(masks, maps, limit) == pytest.approx(theirs, abs=2e-3)
