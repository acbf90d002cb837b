"""The float64 reference against scipy and torch, its borders, and what non-finite features do."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.engine.score_map import (
    check_contract,
    combine,
    cosine_distance,
    image_score,
    resampling_matrix,
    top_count,
)
from skrd4ad.engine.spec import LEVEL_STRIDES, ScoreContract
from skrd4ad.errors import PlanError

CONTRACT = ScoreContract()
TOP = ScoreContract(score="top-mean", top_fraction=0.01)


def levels(height: int, width: int, count: int = 2, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.random((count, height // s, width // s)) for s in LEVEL_STRIDES]


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 64), (32, 160), (256, 256)])
def test_equals_bilinear_upsampling_and_scipy_s_gaussian(height: int, width: int) -> None:
    """RD4AD's cal_anomaly_map: upsample each level, add, gaussian_filter(sigma=4)."""
    torch = pytest.importorskip("torch", reason="upsamples with torch, as RD4AD does")
    scipy_ndimage = pytest.importorskip("scipy.ndimage", reason="blurs with scipy, as RD4AD does")
    distances = levels(height, width)
    total = sum(
        torch.nn.functional.interpolate(
            torch.from_numpy(d)[:, None], (height, width), mode="bilinear", align_corners=True
        )[:, 0].numpy()
        for d in distances
    )
    expected = np.stack([scipy_ndimage.gaussian_filter(image, sigma=4) for image in total])
    maps = combine(distances, CONTRACT, (height, width))
    np.testing.assert_allclose(maps, expected, atol=1e-12)
    assert np.argmax(maps[0]) == np.argmax(expected[0])


@given(
    st.sampled_from([1, 2, 4, 7, 16]),
    st.sampled_from([32, 64, 96]),
    st.floats(0.3, 9.0),
    st.integers(0, 40),
)
@settings(max_examples=40)
def test_a_constant_level_stays_constant(
    level: int, out: int, sigma_px: float, radius_px: int
) -> None:
    contract = msgspec.structs.replace(CONTRACT, sigma_px=sigma_px, radius_px=radius_px)
    matrix = resampling_matrix(level, out, contract)
    assert matrix.shape == (out, level)
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0, atol=1e-12)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix[::-1, ::-1], matrix, atol=1e-12)


def test_a_defect_at_the_border_keeps_its_weight() -> None:
    """Half-sample symmetric borders: zero padding would lose up to half of it."""
    inside, border = np.zeros((1, 64, 64)), np.zeros((1, 64, 64))
    inside[0, 32, 32:38] = border[0, 32, 0:6] = 1.0
    quiet = [np.zeros((1, 16, 16)), np.zeros((1, 8, 8))]
    size = (256, 256)
    mass = [combine([m, *quiet], CONTRACT, size).sum() for m in (inside, border)]
    assert mass[1] > 0.8 * mass[0]


def test_cosine_distance_equals_its_definition_and_its_range() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, 3, 8, 5, 4))
    got = cosine_distance(a, b)
    for n, y, x in np.ndindex(got.shape):
        u, v = a[n, :, y, x], b[n, :, y, x]
        expected = 1 - u @ v / np.linalg.norm(u) / np.linalg.norm(v)
        assert got[n, y, x] == pytest.approx(expected, abs=1e-14)
    np.testing.assert_allclose(cosine_distance(a, 3.0 * a), 0.0, atol=1e-15)
    np.testing.assert_allclose(cosine_distance(a, -a), 2.0, atol=1e-15)


def test_two_zero_vectors_agree_and_one_zero_vector_does_not() -> None:
    zero, some = np.zeros((1, 4, 2, 2)), np.ones((1, 4, 2, 2))
    assert (cosine_distance(zero, zero) == 0).all()
    assert (cosine_distance(zero, some) == 1).all()
    assert (cosine_distance(some, zero) == 1).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("contract", [CONTRACT, TOP])
def test_one_non_finite_feature_scores_infinity_and_spares_the_other_image(
    poison: float, contract: ScoreContract
) -> None:
    taught = np.random.default_rng(2).random((2, 4, 16, 16))
    rebuilt = taught[:, ::-1].copy()
    taught[1, 2, 15, 0] = poison
    distances = [cosine_distance(taught, rebuilt), *levels(64, 64)[1:]]
    maps = combine(distances, contract, (64, 64))
    scores = image_score(maps, contract)
    assert np.isfinite(scores[0])
    assert scores[1] == np.inf
    assert not np.isnan(maps).any()


def test_the_score_is_the_largest_pixel_or_the_mean_of_the_largest() -> None:
    maps = np.arange(200.0).reshape(2, 10, 10)
    np.testing.assert_array_equal(image_score(maps, CONTRACT), [99.0, 199.0])
    top = ScoreContract(score="top-mean", top_fraction=0.04)
    np.testing.assert_array_equal(image_score(maps, top), [97.5, 197.5])
    assert top_count(top, 100) == 4
    assert top_count(TOP, 10) == 1
    assert image_score(np.full((1, 4, 4), np.nan), CONTRACT)[0] == np.inf


def test_the_torch_map_head_gives_the_reference() -> None:
    torch = pytest.importorskip("torch", reason="compares the two definitions")
    from skrd4ad.engine.spec import InputSpec
    from skrd4ad.trainer.map_head import MapHead

    random = np.random.default_rng(5)
    pairs = [random.random((2, 2, 6, 96 // s, 64 // s)).astype(np.float32) for s in LEVEL_STRIDES]
    pairs[0][:, 0, :, 0, 0] = 0.0
    for contract in (CONTRACT, TOP):
        maps = combine([cosine_distance(*pair) for pair in pairs], contract, (96, 64))
        head = MapHead(InputSpec(height=96, width=64), contract)
        got_maps, got_scores = head(
            tuple(torch.from_numpy(pair[0]) for pair in pairs),
            tuple(torch.from_numpy(pair[1]) for pair in pairs),
        )
        np.testing.assert_allclose(got_maps.numpy(), maps, atol=2e-6)
        np.testing.assert_allclose(got_scores.numpy(), image_score(maps, contract), atol=2e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"sigma_px": 0.0},
        {"sigma_px": float("nan")},
        {"radius_px": -1},
        {"score": "top-mean", "top_fraction": 0.0},
        {"score": "top-mean", "top_fraction": 1.5},
    ],
)
def test_an_impossible_contract_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="score contract"):
        check_contract(msgspec.structs.replace(CONTRACT, **changes))
    check_contract(CONTRACT)
    check_contract(TOP)
