"""Has one camera's picture or its parts moved away from the calibration? Values in, alarms out.

score         windows of 100 ok parts against the calibration's score quantiles (sign tests)
pictures      windows of 15 looks against the calibration's brightness, saturation and sharpness
reject rate   a CUSUM of ng and review against the rate the station expects

An alarm starts when two windows in a row are beyond a limit and ends when two in a row are well
within it, so that a value on the limit does not flap. Nothing here changes a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from ...calibration.drift import Limits, image_alarms, score_alarms
from ...calibration.look import Look
from ...calibration.threshold import QUANTILE_LEVELS
from ...engine.spec import Threshold
from ..records import Verdict
from ..wire_messages import DriftFields

SCORE_WINDOW, LOOK_WINDOW = 100, 15
_WINDOWS_IN_A_ROW = 2
_WELL_WITHIN = 0.8
"""An alarm ends only inside this share of its limit."""
_RATE_PARTS = 200
"""Memory of the weighted reject rate, in parts."""
_CUSUM_LIMIT = math.log(1e6)
"""At least a million parts on average between false alarms (Lorden's bound: e to the limit)."""


class DriftSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`drift:` of the station file: how far things may move before an alarm."""

    brightness_change: Annotated[float, Meta(gt=0)] = Limits().brightness_change
    """Of the median grey level, as a fraction."""
    sharpness_ratio: Annotated[float, Meta(gt=0, lt=1)] = Limits().sharpness_ratio
    """Below this fraction of the calibration's sharpness."""
    saturated_added: Annotated[float, Meta(gt=0, lt=1)] = Limits().saturated_added
    """More saturated pixels than the calibration's, as a share of the picture."""
    ng_rate: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    """Share of ng and review that is usual here."""
    ng_rate_alarm: Annotated[float, Meta(gt=0, lt=1)] = 0.15
    """Share that shall raise the alarm; larger than `ng_rate`."""
    looks_per_s: Annotated[float, Meta(gt=0, le=50)] = 2.0
    """At most so many pictures of a camera are looked at, however fast the parts come."""

    def __post_init__(self) -> None:
        if self.ng_rate_alarm <= self.ng_rate:
            raise ValueError("ng_rate_alarm is not larger than ng_rate")


@dataclass(frozen=True, slots=True)
class DriftChange:
    """An alarm of alarms.py that starts or ends."""

    name: str
    active: bool
    text: str = ""


class Latch:
    """An alarm with hysteresis, fed once for every window."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.active = False
        self._in_a_row = 0

    def feed(self, beyond: bool, well_within: bool, text: str = "") -> Iterator[DriftChange]:
        """A change, when this window makes one."""
        turning = well_within if self.active else beyond
        self._in_a_row = self._in_a_row + 1 if turning else 0
        if self._in_a_row == _WINDOWS_IN_A_ROW:
            self.active, self._in_a_row = not self.active, 0
            yield DriftChange(self.name, self.active, text if self.active else "")


class RejectRate:
    """The weighted share of rejects, and a CUSUM that tells `ng_rate_alarm` from `ng_rate`."""

    name = "ng_rate_high"

    def __init__(self, usual: float, alarming: float) -> None:
        self._usual, self._alarming = usual, alarming
        self._step_reject = math.log(alarming / usual)
        self._step_pass = math.log((1 - alarming) / (1 - usual))
        self._sum = self._weight = self._evidence = 0.0
        self.active = False

    @property
    def rate(self) -> float | None:
        """Exponentially weighted over the last 200 parts or so; None before the first."""
        return self._sum / self._weight if self._weight else None

    def add(self, rejected: bool) -> Iterator[DriftChange]:
        keep = 1 - 1 / _RATE_PARTS
        self._sum = self._sum * keep + rejected
        self._weight = self._weight * keep + 1
        step = self._step_reject if rejected else self._step_pass
        self._evidence = max(0.0, self._evidence + step)
        rate = self._sum / self._weight
        if not self.active and self._evidence > _CUSUM_LIMIT:
            self.active = True
            text = f"{rate:.0%} of the last parts are rejects; {self._usual:.0%} is usual here"
            yield DriftChange(self.name, True, text)
        elif self.active and rate < (self._usual + self._alarming) / 2:
            # The next alarm needs new evidence from nothing: this is its hysteresis.
            self.active, self._evidence = False, 0.0
            yield DriftChange(self.name, False)


class CameraDrift:
    """All monitors of one camera. Feed it in order from one thread."""

    def __init__(self, threshold: Threshold, settings: DriftSettings) -> None:
        self._threshold = threshold if has_score_baseline(threshold) else None
        self._images = threshold.images
        self._limits = Limits(
            brightness_change=settings.brightness_change,
            sharpness_ratio=settings.sharpness_ratio,
            saturated_added=settings.saturated_added,
        )
        self._tight = Limits(
            brightness_change=_WELL_WITHIN * settings.brightness_change,
            sharpness_ratio=1 - _WELL_WITHIN * (1 - settings.sharpness_ratio),
            saturated_added=_WELL_WITHIN * settings.saturated_added,
        )
        self._rate = RejectRate(settings.ng_rate, settings.ng_rate_alarm)
        self._score = Latch("score_drift")
        self._looks = {
            code: Latch(f"{code}_drift") for code in ("brightness", "saturation", "sharpness")
        }
        self._ok_scores: list[float] = []
        self._seen: list[Look] = []
        self._median_score: float | None = None
        self._median_look: Look | None = None

    def see(self, verdict: Verdict, score: float) -> Iterator[DriftChange]:
        """One result. Parts that were not inspected say nothing here."""
        if verdict is Verdict.ERR:
            return
        yield from self._rate.add(verdict is not Verdict.OK)
        if verdict is Verdict.OK:
            self._ok_scores.append(score)
            if len(self._ok_scores) == SCORE_WINDOW:
                yield from self._judge_scores()

    def look(self, look: Look) -> Iterator[DriftChange]:
        """One measured picture, of whatever verdict."""
        self._seen.append(look)
        if len(self._seen) == LOOK_WINDOW:
            yield from self._judge_looks()

    def end(self) -> Iterator[DriftChange]:
        """The end of all its alarms, when the monitor of another plan takes over."""
        alarms: tuple[Latch | RejectRate, ...] = (self._rate, self._score, *self._looks.values())
        for latch in alarms:
            if latch.active:
                yield DriftChange(latch.name, False, "another plan judges now")

    def fields(self) -> DriftFields:
        """What the heartbeat says."""
        look = self._median_look
        return DriftFields(
            ng_rate=self._rate.rate,
            score=self._median_score,
            brightness=look.brightness if look else None,
            saturated=look.saturated if look else None,
            sharpness=look.sharpness if look else None,
        )

    def _judge_scores(self) -> Iterator[DriftChange]:
        scores, self._ok_scores = np.array(self._ok_scores, np.float64), []
        self._median_score = float(np.median(scores))
        if self._threshold is not None:
            found = score_alarms(scores, self._threshold)
            yield from self._score.feed(bool(found), not found, found[0].text if found else "")

    def _judge_looks(self) -> Iterator[DriftChange]:
        looks, self._seen = self._seen, []
        middle = Look(
            brightness=float(np.median([look.brightness for look in looks])),
            saturated=float(np.median([look.saturated for look in looks])),
            sharpness=float(np.median([look.sharpness for look in looks])),
        )
        self._median_look = middle
        if self._images is None:
            return
        beyond, not_within = (
            {
                alarm.code: alarm.text
                for alarm in image_alarms(
                    middle.brightness, middle.sharpness, self._images, limits, middle.saturated
                )
            }
            for limits in (self._limits, self._tight)
        )
        for code, latch in self._looks.items():
            yield from latch.feed(code in beyond, code not in not_within, beyond.get(code, ""))


def has_score_baseline(threshold: Threshold) -> bool:
    """Whether the plan kept score quantiles that can be compared with."""
    quantiles = threshold.score_quantiles
    return len(quantiles) == len(QUANTILE_LEVELS) and quantiles[-1] > quantiles[0]
