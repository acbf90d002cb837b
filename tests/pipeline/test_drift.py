"""Drift on a running line: alarms for what moved, none for what did not, none that flaps."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
from skrd4ad.calibration.look import Look, baseline_of, look_at
from skrd4ad.calibration.threshold import conformal_threshold
from skrd4ad.engine.spec import ImageBaseline, Threshold
from skrd4ad.errors import CalibrationError, ConfigError
from skrd4ad.pipeline.alarms import ALARM_BY_NAME
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.line import run_line
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings
from skrd4ad.pipeline.monitor.drift_monitor import (
    LOOK_WINDOW,
    SCORE_WINDOW,
    CameraDrift,
    DriftChange,
    DriftSettings,
    RejectRate,
)
from skrd4ad.pipeline.monitor.drift_tap import DriftTap
from skrd4ad.pipeline.outlet import Alarm
from skrd4ad.pipeline.records import Verdict
from skrd4ad.pipeline.station import load_station
from skrd4ad.pipeline.taps import TappedOutlet
from skrd4ad.pipeline.wire_messages import ModelFields

USUAL = ImageBaseline(brightness=100.0, sharpness=2.0, saturated=0.01, n_images=50)
STILL = Look(100.0, 0.01, 2.0)


def calibrated(n: int = 200, images: ImageBaseline | None = USUAL) -> Threshold:
    scores = np.random.default_rng(3).gamma(4.0, 0.1, n)
    return msgspec.structs.replace(conformal_threshold(scores, 0.01), images=images)


def monitor(threshold: Threshold | None = None) -> CameraDrift:
    return CameraDrift(threshold or calibrated(), DriftSettings())


def seen(one: CameraDrift, scores: Iterable[float]) -> list[DriftChange]:
    return [change for score in scores for change in one.see(Verdict.OK, float(score))]


def looked(one: CameraDrift, look: Look, windows: int = 1) -> list[DriftChange]:
    return [change for _ in range(windows * LOOK_WINDOW) for change in one.look(look)]


def test_a_still_line_raises_nothing_in_thirty_thousand_parts() -> None:
    one = monitor()
    assert seen(one, np.random.default_rng(8).gamma(4.0, 0.1, 30_000)) == []
    assert looked(one, STILL, 20) == []


def test_scores_that_moved_alarm_once_and_end_once() -> None:
    one, dice = monitor(), np.random.default_rng(9)
    moved = seen(one, dice.gamma(4.0, 0.16, 8 * SCORE_WINDOW))
    assert [(change.name, change.active) for change in moved] == [("score_drift", True)]
    assert "quantile" in moved[0].text
    back = seen(one, dice.gamma(4.0, 0.1, 8 * SCORE_WINDOW))
    assert back == [DriftChange("score_drift", False)]


@pytest.mark.parametrize(
    ("look", "name"),
    [
        (Look(115.0, 0.01, 2.0), "brightness_drift"),
        (Look(85.0, 0.01, 2.0), "brightness_drift"),
        (Look(100.0, 0.05, 2.0), "saturation_drift"),
        (Look(100.0, 0.01, 1.2), "sharpness_drift"),
    ],
)
def test_a_changed_picture_alarms_after_two_windows_and_ends_after_two(
    look: Look, name: str
) -> None:
    one = monitor()
    assert looked(one, look) == []
    assert [(change.name, change.active) for change in looked(one, look)] == [(name, True)]
    assert looked(one, look, 5) == []
    assert looked(one, STILL) == []
    assert looked(one, STILL) == [DriftChange(name, False)]
    assert name in ALARM_BY_NAME


def test_a_value_on_the_limit_does_not_flap() -> None:
    one = monitor()
    changes = []
    for turn in range(200):
        # 109.5 and 110.5: inside and outside the limit of 10 %, never well inside.
        changes += looked(one, Look(109.5 + turn // 2 % 2, 0.01, 2.0))
    assert [change.active for change in changes] == [True]


def test_the_usual_reject_rate_is_no_alarm_and_a_high_one_soon_is() -> None:
    dice, rate = np.random.default_rng(4), RejectRate(0.05, 0.15)
    assert [change for hit in dice.random(100_000) < 0.05 for change in rate.add(bool(hit))] == []
    assert rate.rate == pytest.approx(0.05, abs=0.05)
    parts = 0
    while not rate.active:
        list(rate.add(bool(dice.random() < 0.4)))
        parts += 1
    assert parts < 100
    ended = [change for _ in range(400) for change in rate.add(False)]
    assert ended == [DriftChange("ng_rate_high", False)]


def test_parts_that_were_not_inspected_say_nothing() -> None:
    one = monitor()
    assert [c for _ in range(500) for c in one.see(Verdict.ERR, math.nan)] == []
    assert one.fields().ng_rate is None


def test_without_a_baseline_values_are_shown_and_nothing_alarms() -> None:
    one = monitor(msgspec.structs.replace(calibrated(), images=None, score_quantiles=()))
    assert seen(one, [9.0] * 1000) == []
    assert looked(one, Look(5.0, 0.9, 0.1), 5) == []
    fields = one.fields()
    assert (fields.score, fields.brightness, fields.saturated) == (9.0, 5.0, 0.9)


def test_the_look_of_a_picture_is_what_it_says_and_large_ones_are_thinned() -> None:
    pixels = np.full((90, 120, 3), 100, np.uint8)
    pixels[:45, :60] = (255, 10, 10)
    look = look_at(pixels)
    assert look.saturated == 0.25
    assert look.brightness == pytest.approx(0.75 * 100 + 0.25 * (0.299 * 255 + 0.701 * 10), abs=1)
    large = look_at(np.repeat(np.repeat(pixels, 20, axis=0), 20, axis=1))
    assert large.saturated == pytest.approx(0.25, abs=0.01)
    assert look_at(np.full((50, 50, 3), 80, np.uint8)) == Look(80.0, 0.0, 0.0)
    assert baseline_of([look, look]).n_images == 2
    with pytest.raises(CalibrationError):
        baseline_of([])


def line_with_drift(
    parts: ModuleType, tiny: ModuleType, tap: DriftTap, count: int
) -> tuple[list[Alarm], object]:
    """A real line of `count` bright parts; its alarms and its outlet."""
    outlet = parts.RecordingOutlet()
    shots = [parts.shot(number, 60 + number % 3) for number in range(1, count + 1)]
    run_line(
        [CameraSettings("a", lambda: parts.ScriptedSource(shots))],
        [LinePlan(lambda: parts.ArithmeticEngine(tiny.tiny_manifest()), parts.THRESHOLD)],
        TappedOutlet(outlet, [tap]),
        LineSettings(),
        threading.Event(),
    )
    return outlet.alarms, outlet


def test_the_heartbeat_of_a_line_carries_the_drift_of_each_camera(
    parts: ModuleType, tiny: ModuleType
) -> None:
    asked: list[str] = []

    def threshold_of(camera: str) -> Threshold:
        asked.append(camera)
        return calibrated()

    class InLine(DriftTap):
        """Works in the publish thread, so that the order of things is known."""

        def on_result(self, result, seq) -> None:
            super().on_result(result, seq)
            self.work()

        def _loop(self) -> None: ...

    hand = parts.HandClock()
    tap = InLine(DriftSettings(looks_per_s=2), threshold_of, hand.clock)
    _, outlet = line_with_drift(parts, tiny, tap, 120)
    drift = outlet.heartbeats[-1].cams["a"].drift
    assert drift.ng_rate == 0.0
    assert drift.score == pytest.approx(0.24, abs=0.02)
    assert drift.brightness is None  # the clock stands: one picture was looked at, not a window
    assert set(asked) == {"a"}


def test_pictures_are_looked_at_by_time_not_by_parts(parts: ModuleType) -> None:
    hand = parts.HandClock()
    tap = DriftTap(DriftSettings(looks_per_s=2), lambda camera: calibrated(), hand.clock)
    alarms: list[Alarm] = []
    tap.open(alarms.append)
    tap.close()
    dark = np.full((20, 20, 3), 30, np.uint8)
    for _ in range(40 * 100):  # 40 s at 100 parts a second: 80 looks
        tap.on_result(result(dark), 1)
        hand.advance_s(0.01)
    tap.work()
    names = [alarm.name for alarm in alarms]
    assert names == ["score_drift", "brightness_drift", "sharpness_drift"]
    assert {alarm.camera for alarm in alarms} == {"a"}


def test_another_plan_ends_the_alarms_of_the_one_before(parts: ModuleType) -> None:
    now = {"plan": "first", "threshold": calibrated(images=None)}
    tap = DriftTap(DriftSettings(), lambda camera: now["threshold"], parts.HandClock().clock)
    alarms: list[Alarm] = []
    dice = np.random.default_rng(6)
    tap.open(alarms.append)
    tap.close()

    def show(count: int) -> list[tuple[str, bool]]:
        alarms.clear()
        for score in dice.uniform(0.3, 0.4, count):
            model = ModelFields(plan=now["plan"])
            tap.on_result(dataclasses.replace(result(None), score=float(score), model=model), 1)
        tap.work()
        return [(alarm.name, alarm.active) for alarm in alarms]

    assert show(2 * SCORE_WINDOW) == [("score_drift", True)]
    now["threshold"] = msgspec.structs.replace(now["threshold"], value=9.0, revision=2)
    assert show(2 * SCORE_WINDOW) == []  # another value, the same calibration
    now |= {"plan": "other", "threshold": conformal_threshold(np.linspace(0.3, 0.4, 100), 0.01)}
    assert show(1) == [("score_drift", False)]
    assert show(4 * SCORE_WINDOW) == []


def test_monitors_that_fail_are_taken_off_and_cost_no_verdict(
    parts: ModuleType, tiny: ModuleType
) -> None:
    def broken(camera: str) -> Threshold:
        raise RuntimeError("no such calibration")

    class Immediate(DriftTap):
        def on_result(self, one, seq) -> None:
            super().on_result(one, seq)
            self._thread.join(60)

    tap = Immediate(DriftSettings(), broken)
    alarms, outlet = line_with_drift(parts, tiny, tap, 5)
    assert len(outlet.results) == 5
    assert ("tap_failed", "", True) in alarms


def test_a_station_with_impossible_rates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "station.yaml"
    path.write_text("drift: {ng_rate: 0.3, ng_rate_alarm: 0.2}\n")
    with pytest.raises(ConfigError, match="ng_rate_alarm is not larger"):
        load_station(path)
    path.write_text("drift: null\n")
    assert load_station(path).drift is None


def result(pixels: np.ndarray | None):
    from skrd4ad.pipeline.records import Latency, Part, Result

    return Result(
        camera="a", camera_seq=1, frame_id=1, captured_ns=1, captured_mono_ns=1,
        captured_source="device", captured_error_ns=0, part=Part(), name=None,
        verdict=Verdict.OK, reasons=(), evaluated=True, score=0.3, threshold=1.0, defects=(),
        latency=Latency(), pixels=pixels,
    )  # fmt: skip
