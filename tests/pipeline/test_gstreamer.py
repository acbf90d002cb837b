"""Cameras through GStreamer: real pipelines with its own test source and real errors."""

from __future__ import annotations

import time
from types import ModuleType

import numpy as np
import pytest
from skrd4ad.errors import CameraError, ConfigError
from skrd4ad.pipeline.capture import barcode
from skrd4ad.pipeline.capture.base import EndOfStream, FreeRunning, Shot, Source
from skrd4ad.pipeline.capture.csi import csi_pipeline
from skrd4ad.pipeline.capture.uri import is_live, open_source, parse_uri
from skrd4ad.redaction import redacted

RED = "videotestsrc pattern=red"


@pytest.fixture(autouse=True)
def _gstreamer(gstreamer: object) -> None:
    """Skips the tests where GStreamer's binding is missing."""


def started(uri: str) -> Source:
    source = open_source(parse_uri(uri))
    try:
        source.open()
        source.configure()
    except CameraError:
        source.close()
        raise
    return source


def next_shot(source: Source) -> Shot:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        shot = source.grab(0.1)
        if shot is not None:
            return shot
    raise AssertionError("no frame came")


def drain(source: Source) -> None:
    """Whatever still comes, for twenty seconds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        source.grab(0.1)


@pytest.mark.parametrize("width", [64, 37])
def test_a_live_pipeline_delivers_rgb_with_the_drivers_time(width: int) -> None:
    caps = f"video/x-raw,width={width},height=21,framerate=30/1"
    source = started(f"gst:{RED} is-live=true ! {caps}")
    try:
        shots = [next_shot(source) for _ in range(5)]
    finally:
        source.close()
    assert source.live
    assert {shot.pixels.shape for shot in shots} == {(21, width, 3)}
    assert np.all(np.abs(shots[0].pixels.astype(int) - [255, 0, 0]) < 8)
    assert {shot.captured_source for shot in shots} == {"driver"}
    assert [shot.frame_id for shot in shots] == [1, 2, 3, 4, 5]
    taken = [shot.captured_mono_ns for shot in shots]
    assert taken == sorted(set(taken))
    assert abs(shots[0].captured_ns - time.time_ns()) < 20e9


def test_a_pipeline_that_is_not_live_waits_for_us_and_ends() -> None:
    source = started(f"gst:{RED} num-buffers=9 ! video/x-raw,width=64,height=48")
    assert not source.live
    time.sleep(0.3)  # nothing is dropped meanwhile
    for _ in range(9):
        next_shot(source)
    with pytest.raises(EndOfStream):
        next_shot(source)
    source.close()


def test_a_live_pipeline_that_ends_is_a_lost_camera_and_opens_again() -> None:
    source = started("gst:videotestsrc is-live=true num-buffers=2 ! video/x-raw,width=64,height=48")
    for _ in range(2):
        next_shot(source)
    with pytest.raises(CameraError, match="camera gst: has ended"):
        next_shot(source)
    source.close()
    source.close()
    source.open()
    source.configure()
    assert next_shot(source).pixels is not None
    source.close()


def test_an_ip_camera_through_gstreamer_shows_the_present_and_its_loss(rtsp: ModuleType) -> None:
    with rtsp.RtspCamera(20, "jpeg") as camera:
        text = f"rtspsrc location={camera.url} protocols=tcp latency=0 ! rtpjpegdepay ! jpegdec"
        source = started(f"gst:{text}")
        assert source.live
        ages, stamped_late_ms = [], []
        for _ in range(10):
            shot = next_shot(source)
            code = barcode.read(shot.pixels)
            ages.append(time.monotonic() * 1000 - code[0])
            stamped_late_ms.append(shot.captured_mono_ns / 1e6 - code[0])
        # Once the machine may be busy for a second; a queue would be late at every frame.
        assert sorted(stamped_late_ms)[5] < 500
        assert sorted(ages)[5] < 500, "the newest frame wins"
        camera.kill()
        with pytest.raises(CameraError, match="camera gst"):
            drain(source)
        source.close()
        camera.start()
        source.open()
        source.configure()
        assert barcode.read(next_shot(source).pixels) is not None
        source.close()


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        ("nosuchelement ! x", 'no element "nosuchelement"'),
        ("filesrc location=/nowhere/x ! decodebin", "/nowhere/x"),
        ("videotestsrc ! video/x-raw,width=64 ! audioconvert", "gst"),
    ],
)
def test_what_cannot_run_is_said(pipeline: str, says: str) -> None:
    with pytest.raises(CameraError) as caught:
        started(f"gst:{pipeline}")
    assert says in caught.value.sentence
    assert caught.value.hint


def test_csi_is_the_pipeline_of_nvidias_driver() -> None:
    assert csi_pipeline(1, 1280, 720, 59.94, 2) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1280,height=720,"
        "framerate=5994/100,format=NV12 ! nvvidconv flip-method=2 ! video/x-raw,format=BGRx"
    )
    assert "framerate=30/1" in csi_pipeline(0)
    assert is_live(parse_uri("csi:0?width=1280&flip=2"))
    with pytest.raises(ConfigError, match="number of a sensor"):
        parse_uri("csi:front")
    with pytest.raises(ConfigError, match="'8' is not a possible value of 'flip'"):
        parse_uri("csi:0?flip=8")


def test_csi_away_from_a_jetson_says_what_is_missing() -> None:
    source = open_source(parse_uri("csi:0"))
    with pytest.raises(CameraError, match="camera csi:0: no element") as caught:
        source.open()
    assert "Jetson" in caught.value.hint


def test_a_password_in_a_pipeline_is_in_no_text() -> None:
    text = "rtspsrc location=rtsp://me:secret@host/x user-id=me user-pw=secret ! decodebin"
    assert "secret" not in redacted(text)
    assert isinstance(open_source(parse_uri(f"gst:{text}")), FreeRunning)
