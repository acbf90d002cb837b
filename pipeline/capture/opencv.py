"""USB and built-in cameras through OpenCV (V4L2): by index, /dev/videoN or /dev/v4l/by-id name.

An index may name another camera after the next boot or when a plug was pulled. So it is resolved
to the stable by-id (or by-path) name once, and every reopen goes to that name. OpenCV keeps a dead
handle "opened", so any failed read raises and the caller reopens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
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
_DEV = Path("/dev")


class DeviceSource:
    """One V4L2 camera. `target` is an index ("0") or a device path; `format` a FOURCC ("MJPG").

    `dev` and `open_capture` are where devices lie and what opens one.
    """

    live = True

    def __init__(
        self,
        target: str,
        clock: Clock = SYSTEM_CLOCK,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        format: str | None = None,
        dev: Path = _DEV,
        open_capture: Callable[[str, int], Any] = cv2.VideoCapture,
    ) -> None:
        self._target = target
        self._clock = clock
        self._dev, self._open_capture = dev, open_capture
        self._stable: Path | None = None
        self._format = format
        self._wanted = {
            cv2.CAP_PROP_FRAME_WIDTH: ("width", width),
            cv2.CAP_PROP_FRAME_HEIGHT: ("height", height),
            cv2.CAP_PROP_FPS: ("fps", fps),
        }
        self._capture: Any = None
        self._last_stamp_ns = 0

    def open(self) -> None:
        target = self._target
        path = self._stable or (self._dev / f"video{target}" if target.isdigit() else Path(target))
        if not path.exists():
            raise CameraError(f"camera {target}: {path} does not exist", _what_is_there(self._dev))
        if self._stable is None:
            self._stable = _stable_name(path, self._dev)
            if self._stable is None:
                log.warning("camera %s has no by-id or by-path name; %s may change", target, path)
            elif self._stable != path:
                log.info("camera %s is %s; that name survives a reboot", target, self._stable)
        self._capture = self._open_capture(str(path), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            self.close()
            raise CameraError(
                f"camera {target}: {path} cannot be opened",
                "another program may hold it, or this user is not in the group 'video'",
            )

    def configure(self) -> None:
        # A short driver queue: what waits in it is already old.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 2)
        # The format first: sizes and rates depend on it.
        if self._format is not None:
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._format))
            code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
            got = "".join(chr(code >> shift & 0xFF) for shift in (0, 8, 16, 24))
            if got != self._format:
                raise self._differs("format", self._format, got)
        asked = {key: pair for key, pair in self._wanted.items() if pair[1] is not None}
        for key, (_, wanted) in asked.items():
            self._capture.set(key, wanted)
        # Read back at the end, because setting one may change another.
        for key, (name, wanted) in asked.items():
            got_value = self._capture.get(key)
            if wanted is not None and abs(got_value - wanted) > 0.01 * wanted:
                raise self._differs(name, f"{wanted:g}", f"{got_value:g}")
        self._last_stamp_ns = 0

    def _differs(self, name: str, asked: str, got: str) -> CameraError:
        return CameraError(
            f"camera {self._target}: {name} {asked} was asked for, the camera gives {got}",
            "v4l2-ctl --list-formats-ext shows what it offers",
        )

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


def _stable_name(path: Path, dev: Path) -> Path | None:
    """The by-id name of a device, else its by-path name, else None."""
    device = path.resolve()
    for folder in (dev / "v4l" / "by-id", dev / "v4l" / "by-path"):
        links = sorted(folder.iterdir()) if folder.is_dir() else []
        found = next((link for link in links if link.resolve() == device), None)
        if found is not None:
            return found
    return None


def _what_is_there(dev: Path) -> str:
    by_id = dev / "v4l" / "by-id"
    found = sorted(by_id.iterdir()) if by_id.is_dir() else sorted(dev.glob("video*"))
    if not found:
        return "no camera is connected; use dir:FOLDER, file:VIDEO or test: to run without one"
    return "connected are: " + ", ".join(str(path) for path in found)
