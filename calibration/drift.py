"""Has the line moved away from what it was calibrated on? Pure functions of what was measured.

Three baselines: the quantiles of normal scores stored in the plan, and brightness and sharpness of
the calibration images. Nothing here acts; `DriftReport.alarms` says what a person should look at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.spec import ImageBaseline as ImageBaseline
from ..engine.spec import Record, Threshold
from ..errors import CalibrationError
from .intervals import binomial_tail
from .look import gradient_sharpness
from .threshold import QUANTILE_LEVELS

MINIMUM_PARTS = 30
FALSE_ALARM_RATE = 1e-3
"""Chance of a score alarm in one window of parts that have not drifted at all."""


class Limits(Record, frozen=True, kw_only=True):
    """How far the picture may move before an alarm."""

    brightness_change: float = 0.10
    """Of the median grey level, as a fraction."""
    sharpness_ratio: float = 0.70
    """Median sharpness below this fraction of the baseline means a lost focus or a dirty lens."""
    saturated_added: float = 0.02
    """Saturated pixels beyond the baseline's, as a share of the picture: glare, or overexposed."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing that drifted. `code` is stable for programs, `text` is for people."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What a window of recent parts showed against the baseline."""

    n_parts: int
    score_median: float
    brightness: float
    sharpness: float
    alarms: tuple[Alarm, ...]


def brightness(pixels: NDArray[np.uint8]) -> float:
    """Mean grey level (ITU-R BT.601 luma) of an RGB picture, 0 to 255."""
    return float(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).mean())


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Sharpness of an RGB picture at its full size; see look.gradient_sharpness."""
    return gradient_sharpness(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8))


def image_baseline(measured: Sequence[tuple[float, float]]) -> ImageBaseline:
    """The baseline from (brightness, sharpness) of each calibration image."""
    if not measured:
        raise CalibrationError("there are no images to take a baseline from")
    values = np.array(measured, np.float64)
    return ImageBaseline(
        brightness=float(np.median(values[:, 0])),
        sharpness=float(np.median(values[:, 1])),
        n_images=len(measured),
    )


def drift(
    scores: Sequence[float],
    measured: Sequence[tuple[float, float]],
    threshold: Threshold,
    baseline: ImageBaseline,
    limits: Limits | None = None,
) -> DriftReport:
    """Compare a window of at least 30 recent parts, most of them good, with the calibration.

    `scores` and `measured` (brightness, sharpness) are of the same parts. Score alarms are sign
    tests of the stored quantiles, with a false-alarm rate of at most FALSE_ALARM_RATE for the
    window; the calibration set's own uncertainty is allowed for. Raises CalibrationError for too
    few parts or a threshold without a baseline.
    """
    limits = limits or Limits()
    if len(scores) < MINIMUM_PARTS or len(measured) != len(scores):
        raise CalibrationError(
            f"{len(scores)} parts are too few to judge drift; at least {MINIMUM_PARTS} are needed"
        )
    if len(threshold.score_quantiles) != len(QUANTILE_LEVELS):
        raise CalibrationError(
            "the plan's threshold has no score quantiles to compare with",
            "skrd4ad calibrate threshold --images stores them",
        )
    ordered = np.asarray(scores, np.float64)
    values = np.median(np.array(measured, np.float64), axis=0)
    found = [
        *score_alarms(ordered, threshold),
        *image_alarms(float(values[0]), float(values[1]), baseline, limits),
    ]
    return DriftReport(
        n_parts=len(scores),
        score_median=float(np.median(ordered)),
        brightness=float(values[0]),
        sharpness=float(values[1]),
        alarms=tuple(found),
    )


def score_alarms(scores: NDArray[np.float64], threshold: Threshold) -> list[Alarm]:
    """Sign tests at the stored quartiles: too many parts above or below where half should be.

    Of m parts, the number above the calibration's q-quantile is Binomial(m, 1 - q) when nothing
    drifted and the quantile is exact; it comes from n images, so q is first moved by
    z sqrt(q(1 - q)/n) against the alarm. Non-finite scores count as above.
    """
    m, n = scores.size, max(threshold.n_normals, 1)
    share = FALSE_ALARM_RATE / 6
    quartiles = dict(zip(QUANTILE_LEVELS, threshold.score_quantiles, strict=True))
    alarms: dict[str, Alarm] = {}
    for level in (0.25, 0.50, 0.75):
        slack = 3.0 * math.sqrt(level * (1.0 - level) / n)
        above = int(np.count_nonzero(~(scores <= quartiles[level])))
        below = int(np.count_nonzero(scores < quartiles[level]))
        if binomial_tail(above, m, min(1.0, 1.0 - level + slack)) < share:
            text = f"{above} of {m} scores lie above the calibration's {level:.0%} quantile"
            alarms.setdefault("score_high", Alarm("score_high", text))
        if binomial_tail(below, m, min(1.0, level + slack)) < share:
            text = f"{below} of {m} scores lie below the calibration's {level:.0%} quantile"
            alarms.setdefault("score_low", Alarm("score_low", text))
    return list(alarms.values())


def image_alarms(
    brightness_now: float,
    sharpness_now: float,
    baseline: ImageBaseline,
    limits: Limits,
    saturated_now: float = 0.0,
) -> list[Alarm]:
    """Alarms for median brightness (0 to 255), sharpness and saturated share (0 to 1)."""
    alarms = []
    change = brightness_now / max(baseline.brightness, 1e-9) - 1.0
    if abs(change) > limits.brightness_change:
        text = f"brightness {brightness_now:.0f} is {change:+.0%} from {baseline.brightness:.0f}"
        alarms.append(Alarm("brightness", text))
    ratio = sharpness_now / max(baseline.sharpness, 1e-9)
    if ratio < limits.sharpness_ratio:
        text = f"sharpness is {ratio:.0%} of the calibration images': focus, or a dirty lens"
        alarms.append(Alarm("sharpness", text))
    if saturated_now - baseline.saturated > limits.saturated_added:
        text = f"{saturated_now:.1%} of the picture is saturated, was {baseline.saturated:.1%}"
        alarms.append(Alarm("saturation", text))
    return alarms


@dataclass(frozen=True, slots=True)
class GoldenPart:
    """A part whose verdict is known, shown at the start of a shift."""

    name: str
    is_defective: bool
    score: float


def golden_check(parts: Sequence[GoldenPart], threshold: Threshold) -> tuple[Alarm, ...]:
    """Alarms for golden parts judged wrongly, or for a check that lacks good or bad parts."""
    alarms = []
    if not any(part.is_defective for part in parts) or all(part.is_defective for part in parts):
        alarms.append(Alarm("golden_incomplete", "the check needs good and bad golden parts"))
    for part in parts:
        # A score that is not finite is a reject, on either kind of part.
        rejected = not part.score <= threshold.value
        if rejected != part.is_defective or not math.isfinite(part.score):
            kind = "bad" if part.is_defective else "good"
            text = f"golden {kind} part {part.name} scored {part.score:.4g}, threshold "
            alarms.append(Alarm("golden_wrong", f"{text}{threshold.value:.4g}"))
    return tuple(alarms)
