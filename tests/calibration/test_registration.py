"""A part moved and turned by a known amount is found within half a pixel, or not at all."""

import math

import cv2
import numpy as np
import pytest
from skrd4ad.calibration.registration import register, straighten
from skrd4ad.errors import CalibrationError

SIDE = 360


def scene(seed=1):
    """Board texture with a part of body and leads in the middle, smooth enough to interpolate."""
    generator = np.random.default_rng(seed)
    grey = cv2.GaussianBlur(generator.normal(120, 60, (SIDE, SIDE)).astype(np.float32), (0, 0), 3)
    cv2.rectangle(grey, (120, 90), (240, 190), 30.0, -1)
    for x in (135, 175, 215):
        cv2.rectangle(grey, (x, 190), (x + 10, 290), 210.0, -1)
    cv2.circle(grey, (140, 110), 7, 170.0, -1)
    grey = cv2.GaussianBlur(grey, (0, 0), 1.2)
    return np.repeat(grey[:, :, None], 3, axis=2)


def moved(picture, angle_deg, shift, gain=1.0, noise=2.0, seed=0):
    """The picture turned about its middle and shifted, with the true template-to-image matrix."""
    turn = math.radians(angle_deg)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    middle = np.full(2, (SIDE - 1) / 2)
    matrix = np.column_stack([rotation, middle - rotation @ middle + shift])
    out = cv2.warpAffine(
        picture, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    out = gain * out + np.random.default_rng(seed).normal(0, noise, out.shape)
    return np.clip(np.round(out), 0, 255).astype(np.uint8), matrix


BOX = (slice(80, 300), slice(110, 250))  # the template: rows, columns
CORNERS = np.array([[0, 0], [139, 0], [139, 219], [0, 219], [70, 110]], np.float64)


@pytest.mark.parametrize(
    ("angle", "shift", "gain"),
    [
        (0.0, (0.0, 0.0), 1.0),
        (0.0, (7.3, -11.6), 1.0),
        (3.7, (-14.2, 8.8), 1.0),
        (-8.4, (5.5, 20.25), 0.8),
        (9.5, (-20.7, -6.1), 1.1),
    ],
)
def test_every_corner_of_the_part_is_within_half_a_pixel(angle, shift, gain):
    template = np.clip(scene(), 0, 255).astype(np.uint8)[BOX]
    picture, matrix = moved(scene(), angle, np.array(shift), gain)
    found = register(picture, template)
    truth = (CORNERS + (110, 80)) @ matrix[:, :2].T + matrix[:, 2]
    mapped = CORNERS @ found.template_to_image[:, :2].T + found.template_to_image[:, 2]
    assert np.linalg.norm(mapped - truth, axis=1).max() < 0.5
    assert found.angle_deg == pytest.approx(angle, abs=0.2)
    assert found.correlation > 0.9


def test_the_straightened_picture_shows_the_part_like_the_template():
    template = np.clip(scene(), 0, 255).astype(np.uint8)[BOX]
    picture, _ = moved(scene(), 6.0, np.array([9.4, -3.3]), noise=0)
    found = register(picture, template)
    difference = straighten(picture, found, template.shape[:2]).astype(int) - template
    assert np.abs(difference).mean() < 2.0


def test_a_missing_part_is_refused():
    template = np.clip(scene(), 0, 255).astype(np.uint8)[BOX]
    empty = np.random.default_rng(5).integers(90, 150, (SIDE, SIDE, 3), np.uint8)
    with pytest.raises(CalibrationError, match="the part was not found"):
        register(empty, template)


def test_a_template_that_cannot_work_is_refused():
    picture = np.clip(scene(), 0, 255).astype(np.uint8)
    with pytest.raises(CalibrationError, match="larger than the picture"):
        register(picture[:100, :100], picture)
    with pytest.raises(CalibrationError, match="uniform"):
        register(picture, np.full((50, 50, 3), 90, np.uint8))
