"""Who prepares a part's input changes when it is made, never what it is."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from skrd4ad.engine.preprocess import to_network_input
from skrd4ad.engine.spec import InputSpec, Roi
from skrd4ad.pipeline.admission import Admission, Mode
from skrd4ad.pipeline.capture.base import Shot, frame_of
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.clock import SYSTEM_CLOCK as CLOCK
from skrd4ad.pipeline.line import run_line
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings
from skrd4ad.pipeline.prepare import prepare, prepared_for
from skrd4ad.pipeline.records import Frame
from skrd4ad.pipeline.view import View

SPEC = InputSpec(height=64, width=64)
VIEW = View(SPEC)


def frame(number: int = 1, level: int = 90) -> Frame:
    pixels = np.full((80, 80, 3), level, np.uint8)
    return frame_of(Shot(pixels, 1, 1, "device"), "a", number)


def test_a_prepared_frame_carries_what_the_network_takes() -> None:
    prepared = prepare(frame(), VIEW, CLOCK)
    np.testing.assert_array_equal(prepared.values, to_network_input(frame().pixels, SPEC))
    assert prepared.failure == ""


def test_another_network_prepares_anew() -> None:
    early = replace(frame(), prepared=prepare(frame(), VIEW, CLOCK))
    assert prepared_for(early, VIEW, CLOCK) is early.prepared
    other = View(InputSpec(height=96, width=64))
    np.testing.assert_array_equal(
        prepared_for(early, other, CLOCK).values, to_network_input(frame().pixels, other.spec)
    )


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (replace(frame(), pixels=None), "no_frame"),
        (replace(frame(), pixels=None, failure="unreadable"), "unreadable"),
        (replace(frame(), pixels=np.zeros((4, 4, 3), np.uint8)), "wrong_image"),
    ],
)
def test_a_frame_without_input_says_why(part: Frame, reason: str) -> None:
    spec = InputSpec(height=64, width=64, roi=Roi(x=0, y=0, width=80, height=80))
    prepared = prepare(part, View(spec), CLOCK)
    assert prepared.values is None
    assert prepared.failure == reason


@pytest.mark.parametrize(("mode", "beside_one_waiting"), [("every", True), ("latest", False)])
def test_cameras_prepare_while_the_infer_thread_is_busy(
    mode: Mode, beside_one_waiting: bool
) -> None:
    admission = Admission(mode)
    assert admission.may_prepare("a")  # nobody takes: the infer thread is at work
    admission.admit(frame())
    assert admission.may_prepare("a") is beside_one_waiting
    assert admission.may_prepare("b")
    assert admission.take() is not None
    taker = threading.Thread(target=admission.take, args=(1, None))
    taker.start()
    while admission.may_prepare("a"):
        assert taker.is_alive()
    admission.close()
    taker.join(60)
    assert not taker.is_alive()


def test_results_are_the_same_whoever_prepared(
    parts: ModuleType, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow engine makes the camera's thread prepare, a quick one the infer thread."""
    threads: list[str] = []

    def noted(*values: object) -> object:
        threads.append(threading.current_thread().name)
        return to_network_input(*values)

    monkeypatch.setattr("skrd4ad.pipeline.prepare.to_network_input", noted)
    shots = [parts.shot(number, number * 5, size=80) for number in range(1, 31)]
    answers, early = [], []
    for slow in (False, True):
        wait = threading.Event()

        def before(batch: np.ndarray, slow: bool = slow, wait: threading.Event = wait) -> None:
            wait.wait(0.01 if slow else 0.0)

        outlet = parts.RecordingOutlet()
        threads.clear()
        run_line(
            [CameraSettings("a", lambda: parts.ScriptedSource(shots))],
            [
                LinePlan(
                    lambda before=before: parts.ArithmeticEngine(tiny.tiny_manifest(), before),
                    parts.THRESHOLD,
                )
            ],
            outlet,
            LineSettings(),
            threading.Event(),
        )
        early.append(sum(name.startswith("camera") for name in threads))
        assert len(threads) == 30
        answers.append([(result.verdict, result.score) for result in outlet.results])
        for result in outlet.results:
            assert result.latency.preprocess_us > 0
    assert answers[0] == answers[1]
    assert len(answers[0]) == 30
    assert early[1] > 20
