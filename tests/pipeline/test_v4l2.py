"""V4L2 cameras without a camera: a folder of device names, and a capture that does as V4L2 does.

No machine of ours has a video device, so OpenCV's V4L2 code itself is not run here.
"""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from skrd4ad.errors import CameraError, ConfigError
from skrd4ad.pipeline.capture.opencv import DeviceSource
from skrd4ad.pipeline.capture.uri import parse_uri, values


class Webcam:
    """Keeps what it is told as a UVC camera does: a format limits the rate, sizes snap."""

    def __init__(self, path: str, fails_after: int = 10**9) -> None:
        self.path = path
        self.told: list[tuple[int, float]] = []
        self.released = False
        self._values = {
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"YUYV")),
            cv2.CAP_PROP_FRAME_WIDTH: 640.0,
            cv2.CAP_PROP_FRAME_HEIGHT: 480.0,
            cv2.CAP_PROP_FPS: 30.0,
        }
        self._left = fails_after

    def isOpened(self) -> bool:
        return not self.released

    def set(self, key: int, value: float) -> bool:
        self.told.append((key, value))
        if key == cv2.CAP_PROP_FRAME_WIDTH:
            value = min((640.0, 1280.0, 1920.0), key=lambda width: abs(width - value))
        if key == cv2.CAP_PROP_FPS and value > 5 and not self._compressed():
            value = 5.0 if self._values[cv2.CAP_PROP_FRAME_WIDTH] > 640 else value
        if key == cv2.CAP_PROP_FOURCC and value not in map(fourcc, ("YUYV", "MJPG")):
            return False
        self._values[key] = value
        return True

    def get(self, key: int) -> float:
        return self._values.get(key, 0.0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        self._left -= 1
        if self._left < 0:
            return False, None
        blue = np.zeros((4, 6, 3), np.uint8)
        blue[..., 0] = 200  # OpenCV's order
        return True, blue

    def release(self) -> None:
        self.released = True

    def _compressed(self) -> bool:
        return self._values[cv2.CAP_PROP_FOURCC] == fourcc("MJPG")


def fourcc(text: str) -> float:
    return float(cv2.VideoWriter.fourcc(*text))


class Box:
    """/dev with cameras: `plug` gives one the next index."""

    def __init__(self, dev: Path) -> None:
        self.dev = dev
        self.by_id = dev / "v4l" / "by-id"
        self.by_id.mkdir(parents=True)
        self.opened: list[Webcam] = []
        self.fails_after = 10**9

    def plug(self, index: int, name: str) -> Path:
        device = self.dev / f"video{index}"
        device.touch()
        link = self.by_id / name
        link.unlink(missing_ok=True)
        link.symlink_to(device)
        return link

    def open_capture(self, path: str, backend: int) -> Webcam:
        assert backend == cv2.CAP_V4L2
        self.opened.append(Webcam(path, self.fails_after))
        return self.opened[-1]

    def source(self, target: str, **options: object) -> DeviceSource:
        return DeviceSource(target, dev=self.dev, open_capture=self.open_capture, **options)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "dev")


def test_an_index_is_its_by_id_name_from_then_on(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    link = box.plug(0, "usb-Maker_Cam_SN7-video-index0")
    source = box.source("0")
    with caplog.at_level(logging.INFO):
        source.open()
    assert f"camera 0 is {link}" in caplog.text
    source.close()
    # The plug was pulled: the camera is video2 now, and another one took its index.
    box.plug(0, "usb-Other_Cam-video-index0")
    box.plug(2, "usb-Maker_Cam_SN7-video-index0")
    source.open()
    assert box.opened[-1].path == str(link)
    source.close()


def test_a_by_id_name_is_taken_as_it_is(box: Box) -> None:
    link = box.plug(1, "usb-Maker_Cam_SN7-video-index0")
    source = box.source(str(link))
    source.open()
    assert box.opened[-1].path == str(link)
    with pytest.raises(CameraError, match="video5 does not exist") as caught:
        box.source("5").open()
    assert str(link) in caught.value.hint


def test_settings_are_applied_after_every_open_the_format_first(box: Box) -> None:
    box.plug(0, "usb-x")
    box.fails_after = 1
    source = box.source("0", width=1280, height=720, fps=30, format="MJPG")
    for _ in range(2):
        source.open()
        source.configure()
        shot = source.grab(0.1)
        assert shot.pixels[0, 0].tolist() == [0, 0, 200], "blue is last"
        with pytest.raises(CameraError, match="a read failed"):
            source.grab(0.1)
        source.close()
    keys = [[key for key, _ in camera.told] for camera in box.opened]
    assert keys[0] == keys[1]
    assert keys[0][1:] == [
        cv2.CAP_PROP_FOURCC, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS,
    ]  # fmt: skip
    assert all(camera.released for camera in box.opened)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"width": 1000}, "width 1000 was asked for, the camera gives 1280"),
        ({"width": 1280, "fps": 30}, "fps 30 was asked for, the camera gives 5"),
        ({"format": "H264"}, "format H264 was asked for, the camera gives YUYV"),
    ],
)
def test_what_the_camera_does_not_take_is_said(
    box: Box, options: dict[str, object], says: str
) -> None:
    box.plug(0, "usb-x")
    source = box.source("0", **options)
    source.open()
    with pytest.raises(CameraError, match=says) as caught:
        source.configure()
    assert "v4l2-ctl" in caught.value.hint


def test_a_format_is_four_letters() -> None:
    assert values(parse_uri("0?format=MJPG")) == {"format": "MJPG"}
    with pytest.raises(ConfigError, match="not a possible value of 'format'"):
        parse_uri("0?format=JPEG2")
