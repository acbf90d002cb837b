"""`gst:` and `csi:` - any GStreamer pipeline, through GStreamer's own Python binding.

The published OpenCV wheels have no GStreamer. The pipeline's last element is ours: frames as RGB,
at most two waiting, the oldest dropped when the pipeline is live. A pipeline that is not live (a
file) waits for us and ends; a live one that ends or fails is a lost camera.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import CameraError
from ...redaction import redacted
from ..clock import SYSTEM_CLOCK, Clock
from ..records import CaptureSource
from .base import EndOfStream, Shot
from .gi_modules import load

SILENT_LIMIT_S = 5.0
_START_LIMIT_S = 10.0
_SINK = "skrd4ad"
_TAIL = (
    f" ! videoconvert ! video/x-raw,format=RGB ! "
    f"appsink name={_SINK} sync=false max-buffers=2 emit-signals=false"
)
_CLOCK_WINDOW_NS = 5_000_000
_AGE_LIMIT_NS = 5_000_000_000


class GStreamerSource:
    """`pipeline` as for gst-launch-1.0, without a sink. `name` is what errors call the camera."""

    def __init__(
        self, pipeline: str, clock: Clock = SYSTEM_CLOCK, name: str = "gst", hint: str = ""
    ) -> None:
        self.live = True
        """Known after `open`: True unless the pipeline waits for whoever reads it."""
        self.silent_limit_s = SILENT_LIMIT_S
        self._text, self._clock, self._name, self._hint = pipeline, clock, name, hint
        self._gst: Any = None
        self._pipeline: Any = None
        self._sink: Any = None
        self._frame_id = 0
        self._is_our_clock = False
        self._period_ns = 0

    def open(self) -> None:
        gst = self._gst = load("Gst", "a GStreamer camera")
        load("GstApp", "a GStreamer camera")
        gst.init(None)
        try:
            self._pipeline = gst.parse_launch(self._text + _TAIL)
        except Exception as error:
            if type(error).__name__ not in ("Error", "GError"):
                raise
            raise self._error(redacted(str(getattr(error, "message", error)))) from error
        self._sink = self._pipeline.get_by_name(_SINK)

    def configure(self) -> None:
        gst, pipeline = self._gst, self._pipeline
        # A live pipeline has nothing to show while it is paused, which is how it is told.
        pipeline.set_state(gst.State.PAUSED)
        paused, *_ = pipeline.get_state(round(_START_LIMIT_S * gst.SECOND))
        self.live = paused == gst.StateChangeReturn.NO_PREROLL
        self._sink.set_property("drop", self.live)
        pipeline.set_state(gst.State.PLAYING)
        playing, *_ = pipeline.get_state(round(_START_LIMIT_S * gst.SECOND))
        self._raise_errors()
        if playing not in (gst.StateChangeReturn.SUCCESS, gst.StateChangeReturn.NO_PREROLL):
            raise self._error(f"does not start within {_START_LIMIT_S:g} s")
        clock = pipeline.get_clock()
        difference_ns = clock.get_time() - self._clock.mono_ns() if clock is not None else 1 << 62
        self._is_our_clock = abs(difference_ns) < _CLOCK_WINDOW_NS

    def grab(self, timeout_s: float) -> Shot | None:
        if self._pipeline is None:
            raise self._error("is closed")
        sample = self._sink.try_pull_sample(round(timeout_s * self._gst.SECOND))
        if sample is None:
            self._raise_errors()
            if not self._sink.is_eos():
                return None
            if not self.live:
                raise EndOfStream
            raise self._error("has ended")
        received_ns, wall_ns = self._clock.mono_ns(), self._clock.wall_ns()
        pixels = self._pixels(sample)
        captured_ns, source, error_ns = self._capture_time(sample, received_ns)
        self._frame_id += 1
        return Shot(
            pixels=pixels,
            captured_ns=wall_ns - (received_ns - captured_ns),
            captured_mono_ns=captured_ns,
            captured_source=source,
            captured_error_ns=error_ns,
            frame_id=self._frame_id,
        )

    def close(self) -> None:
        pipeline, self._pipeline, self._sink = self._pipeline, None, None
        if pipeline is not None:
            pipeline.set_state(self._gst.State.NULL)

    def _pixels(self, sample: Any) -> NDArray[np.uint8]:
        caps = sample.get_caps().get_structure(0)
        width, height = caps.get_value("width"), caps.get_value("height")
        known, numerator, denominator = caps.get_fraction("framerate")
        if known and numerator > 0:
            self._period_ns = 1_000_000_000 * denominator // numerator
        buffer = sample.get_buffer()
        data = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)
        # Rows begin at multiples of four bytes.
        rows = data[: len(data) // height * height].reshape(height, -1)
        return np.ascontiguousarray(rows[:, : 3 * width]).reshape(height, width, 3)

    def _capture_time(self, sample: Any, received_ns: int) -> tuple[int, CaptureSource, int]:
        """The source's time stamp on the pipeline's clock, believed while it lies just before now:
        some elements stamp by media time instead."""
        period_ns = self._period_ns or 50_000_000
        if not self.live:
            return received_ns, "file", 0
        stamp = sample.get_buffer().pts
        if self._is_our_clock and stamp != self._gst.CLOCK_TIME_NONE:
            running = sample.get_segment().to_running_time(self._gst.Format.TIME, stamp)
            captured_ns = self._pipeline.get_base_time() + running
            if 0 <= received_ns - captured_ns < _AGE_LIMIT_NS:
                return captured_ns, "driver", period_ns
        return received_ns, "receive", period_ns

    def _raise_errors(self) -> None:
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        if message is not None:
            error, debug = message.parse_error()
            where = str(debug or "").strip().splitlines()
            detail = f" ({where[-1]})" if where else ""
            raise self._error(redacted(f"{error.message}{detail}"))

    def _error(self, what: str) -> CameraError:
        hint = self._hint or "try it in gst-launch-1.0 with ' ! autovideosink' at its end"
        return CameraError(f"camera {self._name}: {what}", hint)
