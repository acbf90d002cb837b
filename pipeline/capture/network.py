"""IP cameras through FFmpeg: rtsp://, rtsps://, and http(s):// (motion JPEG).

FFmpeg buffers: after a stall, and when a stream begins, it hands over frames of the past as fast
as they are read. Such frames need no waiting, and over RTSP their time stamps show how long they
were held back; either way they are discarded. Opening and reading have time limits, and after a
time-out the handle is dead for good, so it raises and the caller opens a new one. The password is
in no log, event or error text.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import cv2

from ...errors import CameraError
from ...redaction import redacted
from ..clock import SYSTEM_CLOCK, Clock
from .base import Shot
from .image_checks import STALE
from .opencv import to_rgb
from .stream_lag import StreamLag

log = logging.getLogger(__name__)
OPEN_TIMEOUT_MS = 5000
READ_TIMEOUT_MS = 2000
_STALL_NS = 500_000_000
"""A read that blocked this long has interrupted the flow; what follows may be old."""
_FLUSH_LIMIT_NS = 2_000_000_000
_USUAL_RATE_HZ = 25.0
_LATE_PERIODS = 1.5
"""A frame that was held back longer is old."""
_LEAST_LATE_NS = 40_000_000
_STALE_ALARM_NS = 1_000_000_000


class NetworkSource:
    """One stream, read by the thread that owns it."""

    live = True

    def __init__(
        self,
        url: str,
        clock: Clock = SYSTEM_CLOCK,
        open_timeout_ms: int = OPEN_TIMEOUT_MS,
        read_timeout_ms: int = READ_TIMEOUT_MS,
    ) -> None:
        self._url, self._name = url, redacted(url)
        self._clock = clock
        self._limits = (open_timeout_ms, read_timeout_ms)
        self._capture: Any = None
        self._period_ns = round(1e9 / _USUAL_RATE_HZ)
        self._flush_until_ns = 0
        self._lag = StreamLag(self._period_ns)
        self._has_stamps = url.startswith(("rtsp:", "rtsps:"))
        self._good_ns = 0
        self.flushed = 0
        """Frames discarded because they came from a buffer, since the process started."""
        self.alarms: dict[str, str] = {}
        """Active alarms: name to text."""

    def open(self) -> None:
        # Over UDP a lost packet smears the image, which an anomaly model takes for a defect.
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        open_ms, read_ms = self._limits
        options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, open_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, read_ms]
        # Each further decoder thread holds one more frame back.
        options += [cv2.CAP_PROP_N_THREADS, 1]
        self._capture = cv2.VideoCapture(self._url, cv2.CAP_FFMPEG, options)
        if not self._capture.isOpened():
            self.close()
            raise CameraError(
                f"camera {self._name} cannot be opened",
                "check address, port, path, user and password (try it in a video player)",
            )

    def configure(self) -> None:
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self._period_ns = round(1e9 / (rate if 1 <= rate <= 1000 else _USUAL_RATE_HZ))
        self._good_ns = self._clock.mono_ns()
        self._flush_until_ns = self._good_ns + _FLUSH_LIMIT_NS
        self._lag = StreamLag(self._period_ns)
        self.alarms = {}

    def grab(self, timeout_s: float) -> Shot | None:
        began_ns = self._clock.mono_ns()
        ok, image = self._capture.read()
        now_ns = self._clock.mono_ns()
        if not ok or image is None:
            raise CameraError(
                f"camera {self._name}: no frame within {self._limits[1]} ms, or the stream ended",
                "is the camera on, and the network up?",
            )
        lag_ns = self._lag_ns(now_ns)
        if self._is_old(now_ns - began_ns, now_ns) or self._is_late(lag_ns):
            self.flushed += 1
            if now_ns - self._good_ns > _STALE_ALARM_NS:
                self.alarms = {STALE: "its frames are held back on the way; discarded"}
            return None
        self._good_ns, self.alarms = now_ns, {}
        held_ns = max(0, lag_ns or 0)
        return Shot(
            pixels=to_rgb(image),
            captured_ns=self._clock.wall_ns() - held_ns,
            captured_mono_ns=now_ns - held_ns,
            captured_source="receive",
            captured_error_ns=2 * self._period_ns,
        )

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _is_old(self, waited_ns: int, now_ns: int) -> bool:
        """Whether the frame just read came out of a buffer instead of off the wire."""
        if waited_ns > _STALL_NS:
            # This frame itself may have been sent before the stall; live ones will follow.
            self._flush_until_ns = now_ns + _FLUSH_LIMIT_NS
            return True
        if now_ns >= self._flush_until_ns:
            return False
        if waited_ns < self._period_ns // 2:
            return True
        self._flush_until_ns = 0
        return False

    def _lag_ns(self, now_ns: int) -> int | None:
        """How long the frame was held back, None where its stamp does not tell."""
        if not self._has_stamps:
            return None  # motion JPEG has no stamps; FFmpeg invents them
        return self._lag.of(int(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6), now_ns)

    def _is_late(self, lag_ns: int | None) -> bool:
        if lag_ns is None:
            return False
        return not self._lag.settled or lag_ns > max(
            _LATE_PERIODS * self._period_ns, _LEAST_LATE_NS
        )
