"""Masks at the camera's resolution become masks of the map by a stated rule."""

from __future__ import annotations

import numpy as np
import pytest
from skrd4ad.engine.spec import InputSpec, Roi
from skrd4ad.trainer.mask_rule import MASK_RULES, match, reduce_mask

REDUCING = [rule for rule in MASK_RULES if rule != "native"]


def brute_coverage(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area shares by painting both grids on a common fine one."""
    rows = np.repeat(np.arange(mask.shape[0]), height)
    columns = np.repeat(np.arange(mask.shape[1]), width)
    painted = mask[np.ix_(rows, columns)].astype(float)
    split = painted.reshape(height, mask.shape[0], width, mask.shape[1])
    return split.mean(axis=(1, 3))


@pytest.mark.parametrize("shape", [(40, 56), (32, 32), (20, 100), (7, 9)])
def test_areas_are_exact_at_any_ratio(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(1).random(shape) > 0.6
    spec = InputSpec(height=32, width=32)
    share = brute_coverage(mask, 32, 32)
    np.testing.assert_array_equal(reduce_mask(mask, spec, "half"), share >= 0.5 - 1e-9)
    np.testing.assert_array_equal(reduce_mask(mask, spec, "any"), share > 1e-9)


@pytest.mark.parametrize("rule", REDUCING)
def test_equal_size_changes_nothing(rule: str) -> None:
    mask = np.random.default_rng(2).random((32, 64)) > 0.5
    np.testing.assert_array_equal(reduce_mask(mask, InputSpec(height=32, width=64), rule), mask)


def test_only_any_keeps_a_tiny_defect() -> None:
    mask = np.zeros((256, 256), bool)
    mask[100:102, 100:102] = True
    spec = InputSpec(height=32, width=32)
    assert reduce_mask(mask, spec, "any").sum() == 1
    assert reduce_mask(mask, spec, "half").sum() == 0


def test_nearest_takes_the_point_at_the_centre() -> None:
    mask = np.zeros((96, 96), bool)
    mask[1::3, 1::3] = True  # the centre of every 3 x 3 block, one ninth of its area
    assert reduce_mask(mask, InputSpec(height=32, width=32), "nearest").all()
    assert not reduce_mask(mask, InputSpec(height=32, width=32), "half").any()


@pytest.mark.parametrize("rule", REDUCING)
def test_the_region_of_interest_is_cut_out_first(rule: str) -> None:
    mask = np.random.default_rng(3).random((90, 80)) > 0.5
    roi = Roi(x=8, y=20, width=64, height=32)
    spec = InputSpec(height=32, width=64, roi=roi)
    np.testing.assert_array_equal(reduce_mask(mask, spec, rule), mask[20:52, 8:72])


def test_native_enlarges_the_map_and_leaves_the_mask() -> None:
    spec = InputSpec(height=32, width=32)
    ramp = np.tile(np.arange(32, dtype=np.float32), (32, 1))
    mask = np.random.default_rng(4).random((96, 128)) > 0.5
    enlarged, same = match(ramp, mask, (96, 128), spec, "native")
    np.testing.assert_array_equal(same, mask)
    assert enlarged.shape == (96, 128)
    # Pixel centres: image column j lies at (j + 1/2) / 4 - 1/2 of the map.
    expected = np.clip((np.arange(128) + 0.5) / 4 - 0.5, 0, 31)
    np.testing.assert_allclose(enlarged[50], expected, atol=1e-5)


def test_native_stays_inside_the_region_of_interest() -> None:
    roi = Roi(x=8, y=20, width=64, height=32)
    spec = InputSpec(height=32, width=64, roi=roi)
    mask = np.random.default_rng(5).random((90, 80)) > 0.5
    scores = np.random.default_rng(6).random((32, 64)).astype(np.float32)
    same_map, seen = match(scores, mask, (90, 80), spec, "native")
    np.testing.assert_array_equal(same_map, scores)
    np.testing.assert_array_equal(seen, mask[20:52, 8:72])


def test_an_uninspected_map_still_ranks_highest_when_enlarged() -> None:
    spec = InputSpec(height=32, width=32)
    enlarged, none = match(np.full((32, 32), np.inf, np.float32), None, (64, 64), spec, "native")
    assert none is None
    assert np.isposinf(enlarged).all()
