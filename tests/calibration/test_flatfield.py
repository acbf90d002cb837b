"""A vignette and a colour cast go away; bad cards and foreign files are refused."""

import numpy as np
import pytest
from skrd4ad.calibration.flatfield import (
    apply_flat_field,
    estimate_flat_field,
    load_flat_field,
    store_flat_field,
)
from skrd4ad.errors import CalibrationError, ConfigError

HEIGHT, WIDTH = 240, 320


def vignette(drop=0.3):
    """1 in the middle, 1 - drop in the corners, quadratic in the radius."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    radius2 = ((x - (WIDTH - 1) / 2) ** 2 + (y - (HEIGHT - 1) / 2) ** 2) / (
        ((WIDTH - 1) / 2) ** 2 + ((HEIGHT - 1) / 2) ** 2
    )
    return 1 - drop * radius2


def photograph(colour, seed, light=None, noise=2.0):
    """The card or a part of `colour` (RGB) under the light, with sensor noise."""
    light = vignette() if light is None else light
    clean = light[:, :, None] * np.array(colour, np.float64)
    noisy = clean + np.random.default_rng(seed).normal(0, noise, clean.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def spread(pixels):
    """Largest relative deviation of 16 x 16 block means from their median, over all channels."""
    blocks = pixels.reshape(HEIGHT // 16, 16, WIDTH // 16, 16, 3).mean(axis=(1, 3))
    middle = np.median(blocks, axis=(0, 1))
    return float(np.abs(blocks / middle - 1).max())


def test_a_30_percent_vignette_is_flat_to_under_2_percent_on_another_picture():
    field = estimate_flat_field([photograph((200, 200, 200), seed) for seed in range(5)])
    part = photograph((150, 150, 150), seed=99)
    assert spread(part) > 0.19  # blocks, so the very corner counts less than 30 %
    assert spread(apply_flat_field(part, field.gains)) < 0.02
    assert field.facts.unevenness_before > 0.15
    assert field.facts.unevenness_after < 0.02


def test_a_colour_cast_becomes_neutral_and_the_exposure_stays():
    field = estimate_flat_field([photograph((210, 180, 140), seed) for seed in range(3)])
    part = apply_flat_field(photograph((157.5, 135, 105), seed=50), field.gains)
    means = part.reshape(-1, 3).mean(axis=0)
    assert means == pytest.approx([means[1]] * 3, rel=0.005)
    assert means[1] == pytest.approx(135, rel=0.03)
    assert field.facts.white_balance == pytest.approx((180 / 210, 1, 180 / 140), rel=0.01)


def test_dust_on_the_card_does_not_become_a_bright_spot():
    card = photograph((180, 180, 180), seed=1, noise=0)
    card[100:103, 100:103] = 60
    field = estimate_flat_field([card])
    assert field.gains[101, 101, 1] / field.gains[101, 130, 1] < 1.06


def test_a_dark_picture_is_subtracted_before_the_gain():
    dark = np.full((HEIGHT, WIDTH, 3), 12, np.uint8)
    cards = [photograph((180, 180, 180), seed) + np.uint8(12) for seed in range(3)]
    with_dark = estimate_flat_field(cards, dark=dark).gains
    without = estimate_flat_field(cards).gains
    clean = estimate_flat_field([photograph((180, 180, 180), seed) for seed in range(3)]).gains
    assert np.abs(with_dark.astype(int) - clean).max() <= 2
    assert without[0, 0, 1] < clean[0, 0, 1]


def test_gains_round_and_saturate():
    pixels = np.array([[[100, 101, 200]]], np.uint8)
    gains = np.array([[[384, 257, 512]]], np.uint16)
    assert apply_flat_field(pixels, gains).tolist() == [[[150, 101, 255]]]
    apply_flat_field(pixels, gains, out=pixels)
    assert pixels.tolist() == [[[150, 101, 255]]]


@pytest.mark.parametrize(
    ("cards", "sentence"),
    [
        ([], "no pictures"),
        ([np.full((64, 64, 3), 255, np.uint8)], "overexposed"),
        ([np.full((64, 64, 3), 8, np.uint8)], "underexposed: its darkest part reads 8"),
        ([np.full((64, 64, 3), 90, np.uint8), np.full((32, 64, 3), 90, np.uint8)], "differ in"),
    ],
)
def test_cards_that_cannot_be_used_are_refused(cards, sentence):
    with pytest.raises(CalibrationError, match=sentence):
        estimate_flat_field(cards)


def test_a_stored_field_comes_back_and_fits_its_size_alone(tmp_path):
    field = estimate_flat_field([photograph((180, 180, 180), 1)], camera="usb-1")
    path = tmp_path / "flat.npz"
    store_flat_field(path, field)
    again = load_flat_field(path)
    assert np.array_equal(again.gains, field.gains)
    assert again.facts == field.facts
    with pytest.raises(ConfigError, match="for 320 x 240 pixels, but the camera gives 64 x 48"):
        apply_flat_field(np.zeros((48, 64, 3), np.uint8), again.gains)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "flat.npz"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"flat\.npz is not a flat field"):
        load_flat_field(path)
