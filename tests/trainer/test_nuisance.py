"""Nuisances stay within their amounts and repeat with their seed."""

from __future__ import annotations

import numpy as np
import pytest
from skrd4ad.errors import ConfigError
from skrd4ad.trainer.nuisance import Nuisance, check_nuisance, disturb


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(40, 200, (48, 64, 3), dtype=np.uint8)


def changed(nuisance: Nuisance, seed: int = 1) -> np.ndarray:
    return disturb(picture(), nuisance, np.random.default_rng(seed))


def test_nothing_switched_on_changes_nothing() -> None:
    assert not Nuisance().active
    assert np.array_equal(changed(Nuisance()), picture())


@pytest.mark.parametrize(
    "nuisance",
    [
        Nuisance(light=0.2),
        Nuisance(gamma=0.3),
        Nuisance(blur_px=1.5),
        Nuisance(noise=5.0),
        Nuisance(dust=20),
        Nuisance(shift_px=3.0),
        Nuisance(rotate_deg=5.0),
    ],
)
def test_each_kind_acts_repeats_with_its_seed_and_differs_between_seeds(nuisance: Nuisance) -> None:
    assert nuisance.active
    result = changed(nuisance, seed=2)  # amounts are drawn evenly: some seeds draw almost none
    assert result.dtype == np.uint8
    assert result.shape == picture().shape
    assert not np.array_equal(result, picture())
    assert np.array_equal(result, changed(nuisance, seed=2))
    assert any(not np.array_equal(result, changed(nuisance, seed)) for seed in (3, 4, 5))


def test_light_stays_within_its_amount() -> None:
    before = picture().astype(float)
    for seed in range(50):
        ratio = changed(Nuisance(light=0.1), seed).astype(float).mean((0, 1)) / before.mean((0, 1))
        # 1.1 for brightness times 1.033 for a colour's share, and rounding.
        assert (np.abs(ratio - 1.0) < 0.14).all()


def test_a_shift_moves_the_picture_by_at_most_its_amount_and_leaves_no_black_border() -> None:
    flat = np.full((48, 64, 3), 120, np.uint8)
    flat[20:24, 30:34] = 250
    rng = np.random.default_rng(5)
    for _ in range(20):
        moved = disturb(flat, Nuisance(shift_px=4.0, rotate_deg=1.0), rng)
        assert moved.min() >= 119
        rows, columns = np.nonzero(moved[:, :, 0] > 180)
        assert abs(rows.mean() - 21.5) < 5.5
        assert abs(columns.mean() - 31.5) < 5.5


def test_one_kind_does_not_shift_the_draws_of_another() -> None:
    light = changed(Nuisance(light=0.2)).astype(int)
    both = changed(Nuisance(light=0.2, gamma=1e-9)).astype(int)
    assert np.abs(light - both).max() <= 1


@pytest.mark.parametrize("values", [{"light": -0.1}, {"light": 1.5}, {"rotate_deg": 90.0}])
def test_amounts_without_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        check_nuisance(Nuisance(**values))
