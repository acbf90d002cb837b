"""USB and built-in cameras through OpenCV (V4L2): by index, /dev/videoN or /dev/v4l/by-id name.

An index may name another camera after the next boot; the stable by-id name is logged when there
is one. OpenCV keeps a dead handle "opened", so any failed read raises and the caller reopens.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import CameraError
from ..clock import SYSTEM_CLOCK, Clock
from ..records import CaptureSource
from .base import Shot

log = logging.getLogger(__name__)
_DRIVER_STAMP_WINDOW_NS = 1_000_000_000
_DRIVER_STAMP_ERROR_NS = 1_000_000
_BY_ID = Path("/dev/v4l/by-id")


class DeviceSource:
    """One V4L2 camera. `target` is an index ("0") or a device path."""

    live = True

    def __init__(
        self,
        target: str,
        clock: Clock = SYSTEM_CLOCK,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
    ) -> None:
        self._target = target
        self._clock = clock
        self._wanted = {
            cv2.CAP_PROP_FRAME_WIDTH: ("width", width),
            cv2.CAP_PROP_FRAME_HEIGHT: ("height", height),
            cv2.CAP_PROP_FPS: ("fps", fps),
        }
        self._capture: Any = None
        self._last_stamp_ns = 0

    def open(self) -> None:
        path = Path(f"/dev/video{self._target}" if self._target.isdigit() else self._target)
        if not path.exists():
            raise CameraError(f"camera {self._target}: {path} does not exist", _what_is_there())
        stable = _stable_name(path)
        if stable and stable != path:
            log.info("camera %s is %s; that name survives a reboot", self._target, stable)
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            self.close()
            raise CameraError(
                f"camera {self._target}: {path} cannot be opened",
                "another program may hold it, or this user is not in the group 'video'",
            )

    def configure(self) -> None:
        # A short driver queue: what waits in it is already old.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        for key, (name, wanted) in self._wanted.items():
            if wanted is None:
                continue
            self._capture.set(key, wanted)
            got = self._capture.get(key)
            if abs(got - wanted) > 0.01 * wanted:
                raise CameraError(
                    f"camera {self._target}: {name} {wanted:g} was asked for, the camera gives "
                    f"{got:g}",
                    "v4l2-ctl --list-formats-ext shows what it offers",
                )
        self._last_stamp_ns = 0

    def grab(self, timeout_s: float) -> Shot | None:
        """The next frame. The driver bounds the wait (about 10 s), `timeout_s` cannot shorten it:
        a thread stuck here is replaced by its supervisor."""
        ok, image = self._capture.read()
        received_mono, received_wall = self._clock.mono_ns(), self._clock.wall_ns()
        if not ok or image is None:
            raise CameraError(f"camera {self._target}: a read failed", "is it still plugged in?")
        captured_mono, source, error_ns = self._capture_time(received_mono)
        return Shot(
            pixels=to_rgb(image),
            captured_ns=received_wall - (received_mono - captured_mono),
            captured_mono_ns=captured_mono,
            captured_source=source,
            captured_error_ns=error_ns,
        )

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _capture_time(self, received_mono: int) -> tuple[int, CaptureSource, int]:
        """V4L2 gives the driver's monotonic stamp as POS_MSEC; believed only while it advances and
        lies just before now, because some drivers and backends put other things there."""
        stamp = int(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        age = received_mono - stamp
        advances = stamp > self._last_stamp_ns
        self._last_stamp_ns = stamp
        if advances and 0 <= age < _DRIVER_STAMP_WINDOW_NS:
            return stamp, "driver", _DRIVER_STAMP_ERROR_NS
        return received_mono, "receive", 50_000_000


def to_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """OpenCV's BGR, BGRA or grey image, 8 or 16 bit, as uint8 RGB (h, w, 3)."""
    if image.dtype == np.uint16:
        image = np.right_shift(image, 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise CameraError(f"the camera delivers {image.dtype} pixels, which are not supported")
    channels = 1 if image.ndim == 2 else image.shape[2]
    code = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}.get(channels)
    if code is None:
        raise CameraError(f"the camera delivers {channels} channels, which are not supported")
    return np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)


def _stable_name(path: Path) -> Path | None:
    if not _BY_ID.is_dir():
        return None
    device = path.resolve()
    return next((link for link in sorted(_BY_ID.iterdir()) if link.resolve() == device), None)


def _what_is_there() -> str:
    found = sorted(_BY_ID.iterdir()) if _BY_ID.is_dir() else sorted(Path("/dev").glob("video*"))
    if not found:
        return "no camera is connected; use dir:FOLDER, file:VIDEO or test: to run without one"
    return "connected are: " + ", ".join(str(path) for path in found)
