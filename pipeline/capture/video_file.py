"""`file:` - every frame of a video file, as fast as it is taken or paced as it was recorded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2

from ...errors import CameraError
from ..clock import SYSTEM_CLOCK, Clock
from ..records import Part
from .base import EndOfStream, Shot
from .opencv import to_rgb
from .pace import Pace


class VideoFileSource:
    """`pace` True delivers at the frame rate written in the file."""

    live = False

    def __init__(self, path: Path, clock: Clock = SYSTEM_CLOCK, pace: bool = False) -> None:
        self._path = path
        self._clock = clock
        self._paced = pace
        self._pace = Pace(None, clock)
        self._capture: Any = None
        self._frame_id = 0

    def open(self) -> None:
        if not self._path.is_file():
            raise CameraError(f"the video {self._path} does not exist", "check the path")
        self._capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            self.close()
            raise CameraError(
                f"{self._path} cannot be opened as a video",
                "is it a video file? A folder of images is dir:FOLDER",
            )

    def configure(self) -> None:
        self._frame_id = 0
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._pace = Pace(rate if self._paced and rate > 0 else None, self._clock)

    def grab(self, timeout_s: float) -> Shot | None:
        wait_s = self._pace.wait_s()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return None
        captured_ns, captured_mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        ok, image = self._capture.read()
        if not ok:
            raise EndOfStream
        self._pace.advance()
        self._frame_id += 1
        name = f"{self._path.name}#{self._frame_id}"
        return Shot(
            pixels=to_rgb(image),
            captured_ns=captured_ns,
            captured_mono_ns=captured_mono_ns,
            captured_source="file",
            frame_id=self._frame_id,
            part=Part(part_id=name, trigger_seq=self._frame_id, source="file", match="exact"),
            name=name,
        )

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None
