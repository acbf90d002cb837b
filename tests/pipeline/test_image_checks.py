"""What a camera's pictures must not do, on pictures that do it."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from skrd4ad.pipeline.capture.image_checks import BLIND, CHANGED, ImageChecks

RANDOM = np.random.default_rng(5)


def scene(red: int = 160, green: int = 120, blue: int = 60) -> np.ndarray:
    noise = RANDOM.integers(-20, 21, (48, 64, 1))
    return np.clip(np.array([red, green, blue]) + noise, 0, 255).astype(np.uint8)


def checks_on(parts: ModuleType) -> tuple[ImageChecks, object]:
    hand = parts.HandClock()
    return ImageChecks(10, hand.clock), hand


def test_ordinary_pictures_raise_nothing(parts: ModuleType) -> None:
    checks, hand = checks_on(parts)
    for _ in range(100):
        assert checks.fault(scene()) is None
        hand.advance_s(0.1)
    assert checks.alarms == {}


def test_another_size_is_a_fault_until_the_old_one_is_back(parts: ModuleType) -> None:
    checks, _ = checks_on(parts)
    assert checks.fault(scene()) is None
    reason, text = checks.fault(scene()[:, :40].copy())
    assert reason == "wrong_size"
    assert "delivers 40 x 48 pixels now, it was 64 x 48" in text
    assert checks.fault(scene()) is None


def test_swapped_colours_after_a_reopen_are_an_alarm_until_the_next(parts: ModuleType) -> None:
    checks, _ = checks_on(parts)
    for _ in range(25):
        checks.fault(scene())
    checks.reopened()
    assert checks.fault(scene(60, 120, 160)) is None
    assert "red and blue" in checks.alarms[CHANGED]
    checks.reopened()
    checks.fault(scene())
    assert CHANGED not in checks.alarms


def test_colours_are_not_told_apart_where_there_are_none(parts: ModuleType) -> None:
    checks, _ = checks_on(parts)
    for _ in range(25):
        checks.fault(scene(100, 100, 104))
    checks.reopened()
    checks.fault(scene(104, 100, 100))
    assert checks.alarms == {}


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (np.full((48, 64, 3), 3, np.uint8), "black"),
        (np.full((48, 64, 3), 252, np.uint8), "white"),
        (np.full((48, 64, 3), 100, np.uint8), "show nothing"),
    ],
)
def test_a_blind_camera_is_an_alarm_after_three_looks(
    parts: ModuleType, picture: np.ndarray, says: str
) -> None:
    checks, hand = checks_on(parts)
    checks.fault(scene())
    for number in range(3):
        assert BLIND not in checks.alarms
        hand.advance_s(0.6)
        shown = picture.copy()
        shown[0, 0] += number  # a real sensor's noise: it is blind, not frozen
        assert checks.fault(shown) is None
    assert says in checks.alarms[BLIND]
    for _ in range(3):
        assert BLIND in checks.alarms
        hand.advance_s(0.6)
        checks.fault(scene())
    assert checks.alarms == {}
