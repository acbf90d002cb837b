"""`aravis:` - GigE Vision and USB3 Vision cameras that run by themselves or behind a trigger line.

Each image carries the camera's frame counter and its own time stamp. An image with lost packets is
a part all the same: a shot without pixels that says why. Any fault tears camera and stream down in
full, because Aravis' handles are dead after one; both are made anew by `open`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

from ...errors import CameraError
from ..clock import SYSTEM_CLOCK, Clock
from ..records import Part
from .base import Shot, Source
from .device_clock import DeviceClock
from .genicam import (
    dispose,
    explained,
    is_address,
    open_camera,
    receive_limit_bytes,
    still_controlled,
)
from .genicam_settings import GenicamSettings, apply, exposure_ns, restore, snapshot
from .gi_modules import load
from .pixel_formats import to_rgb_image
from .triggers import frame_gap

log = logging.getLogger(__name__)
SILENT_LIMIT_S = 5.0
_PING_AFTER_S = 1.0
"""A quiet camera is asked this often whether it is still there and ours."""
_SOCKET_BUFFER_BYTES = 8 << 20
_LOOPBACK_PACKET_BYTES = 8000
_CLOCK_LATCHES = (("TimestampLatch", "TimestampLatchValue"),
                  ("GevTimestampControlLatch", "GevTimestampValue"))  # fmt: skip


class AravisSource:
    """One camera. `target` is its id, serial number or IP address; "" the only one there is.

    `buffers` images are kept ready for the network thread. `packet_size` in bytes (None: Aravis
    finds the largest that passes); `packet_socket` False where raw sockets receive nothing (root
    on loopback: found out by itself).
    """

    live = True

    def __init__(
        self,
        target: str,
        clock: Clock = SYSTEM_CLOCK,
        settings: GenicamSettings | None = None,
        buffers: int = 8,
        packet_size: int | None = None,
        packet_socket: bool = True,
    ) -> None:
        self._target, self._clock = target, clock
        self._settings = settings or GenicamSettings()
        self._buffers, self._packet_size = buffers, packet_size
        self._packet_socket = packet_socket
        # A triggered camera may be idle for hours; one that runs by itself may not.
        self.silent_limit_s = SILENT_LIMIT_S if self._settings.trigger == "off" else 0.0
        self.lost_frames = 0
        """Frames that the camera counted and nobody received, since the process started."""
        self._ready: deque[Shot] = deque()
        self._lost = threading.Event()
        self._aravis: Any = None
        self._camera: Any = None
        self._stream: Any = None
        self._handler = 0
        self._format = ""
        self._kept: GenicamSettings | None = None
        """What the camera used when it was first opened, set or not."""
        self._device_clock = DeviceClock()
        self._exposure_ns = 0
        self._last_id: int | None = None
        self._counted = 0
        self._heard_ns = 0
        self._warned = False
        self._said_lost_ns: int | None = None

    def open(self) -> None:
        self._aravis = load("Aravis", "a GigE Vision or USB3 Vision camera")
        camera, found = open_camera(self._aravis, self._target)
        self._lost = threading.Event()
        self._handler = camera.get_device().connect(
            "control-lost", lambda device, lost=self._lost: lost.set()
        )
        self._camera = camera
        log.info("camera aravis:%s is %s", self._target, found)
        if camera.is_gv_device():
            self._configure_network(camera, found.address)

    def configure(self) -> None:
        camera = self._camera
        try:
            self._format = apply(self._aravis, camera, self._settings, self._target)
            if self._kept is None:
                self._kept = snapshot(self._aravis, camera, self._target)
            else:
                self._format = restore(self._aravis, camera, self._kept, self._target)
            self._exposure_ns = exposure_ns(camera)
            self._device_clock = DeviceClock()
            self._latch_clock(camera)
            stream = camera.create_stream(None, None)
            if camera.is_gv_device():
                kind = self._aravis.GvStreamSocketBuffer.FIXED
                stream.set_property("socket-buffer", kind)
                stream.set_property("socket-buffer-size", _SOCKET_BUFFER_BYTES)
            # A client that died has left it sending, to where nobody listens.
            camera.stop_acquisition()
            payload = camera.get_payload()
            for _ in range(self._buffers):
                stream.push_buffer(self._aravis.Buffer.new_allocate(payload))
            camera.start_acquisition()
            self._stream, self._last_id = stream, None
        except CameraError:
            raise
        except Exception as error:
            raise explained(error, self._target) from error
        self._heard_ns = self._clock.mono_ns()

    def inherit(self, old: Source) -> None:
        if isinstance(old, AravisSource):
            self._kept = old._kept

    def grab(self, timeout_s: float) -> Shot | None:
        if self._ready:
            return self._ready.popleft()
        if self._lost.is_set() or self._stream is None:
            raise CameraError(
                f"camera aravis:{self._target} is lost: it does not answer any more",
                "check power, cable and switch; was it taken over by another program?",
            )
        buffer = self._stream.timeout_pop_buffer(round(timeout_s * 1e6))
        if buffer is None:
            self._ask_if_there()
            return None
        try:
            self._heard_ns = self._clock.mono_ns()
            self._take(buffer)
        finally:
            self._stream.push_buffer(buffer)
        return self._ready.popleft() if self._ready else None

    def close(self) -> None:
        camera, stream, self._camera, self._stream = self._camera, self._stream, None, None
        if camera is None:
            return
        camera.get_device().disconnect(self._handler)
        # The stream goes first: Aravis crashes when a stream outlives its device.
        handles = [stream, camera]
        answers = not self._lost.is_set()
        if answers:
            try:
                camera.stop_acquisition()
                if camera.is_gv_device():
                    camera.get_device().leave_control()
            except Exception as error:
                answers = False
                log.info("%s; closed all the same", explained(error, self._target).sentence)
        del stream, camera
        if answers:
            while handles:
                del handles[0]
        else:
            dispose(handles)

    def _configure_network(self, camera: Any, address: str) -> None:
        on_loopback = is_address(address) and address.startswith("127.")
        if on_loopback or not self._packet_socket:
            camera.gv_set_stream_options(self._aravis.GvStreamOption.PACKET_SOCKET_DISABLED)
        size = self._packet_size or (_LOOPBACK_PACKET_BYTES if on_loopback else None)
        if size is not None:
            camera.gv_set_packet_size_adjustment(self._aravis.GvPacketSizeAdjustment.NEVER)
            camera.gv_set_packet_size(size)
        limit = receive_limit_bytes()
        if limit is not None and limit < _SOCKET_BUFFER_BYTES and not self._warned:
            self._warned = True
            log.warning(
                "the kernel grants sockets %d bytes; cameras lose fewer packets after: "
                "sysctl -w net.core.rmem_max=%d",
                limit,
                _SOCKET_BUFFER_BYTES,
            )

    def _latch_clock(self, camera: Any) -> None:
        device = camera.get_device()
        for command, value in _CLOCK_LATCHES:
            if device.is_feature_available(command) and device.is_feature_available(value):
                before_ns = self._clock.wall_ns()
                device.execute_command(command)
                after_ns = self._clock.wall_ns()
                ticks = device.get_integer_feature_value(value)
                hertz = device.get_timestamp_tick_frequency() if camera.is_gv_device() else 0
                stamp_ns = ticks * 1_000_000_000 // hertz if hertz else ticks
                self._device_clock.note_reading(before_ns, stamp_ns, after_ns)
                return

    def _ask_if_there(self) -> None:
        now_ns = self._clock.mono_ns()
        if now_ns - self._heard_ns < _PING_AFTER_S * 1e9:
            return
        if not still_controlled(self._camera):
            self._lost.set()
            return
        if self.silent_limit_s == 0:
            self._heard_ns = now_ns

    def _take(self, buffer: Any) -> None:
        """One buffer, good or not, becomes the shots that it settles."""
        frame_id = int(buffer.get_frame_id())
        wall_ns, source, error_ns = self._device_clock.captured(
            int(buffer.get_timestamp()), int(buffer.get_system_timestamp()), self._exposure_ns
        )
        mono_ns = self._clock.mono_ns() - (self._clock.wall_ns() - wall_ns)
        part = self._part_of(frame_id, wall_ns, mono_ns, error_ns)
        if part is None:
            name = self._target
            log.warning("camera aravis:%s: frame %d is nobody's; ignored", name, frame_id)
            return
        status = buffer.get_status()
        good = status == self._aravis.BufferStatus.SUCCESS
        pixels, detail = None, ""
        if good:
            width, height = buffer.get_image_width(), buffer.get_image_height()
            pixels = to_rgb_image(buffer.get_data(), width, height, self._format)
        else:
            detail = f"frame {frame_id} is incomplete: {status.value_nick.replace('-', ' ')}"
        self._ready.append(
            Shot(
                pixels=pixels,
                captured_ns=wall_ns,
                captured_mono_ns=mono_ns,
                captured_source=source,
                captured_error_ns=error_ns,
                frame_id=frame_id,
                part=part,
                failure=None if good else "incomplete",
                detail=detail,
            )
        )

    def _part_of(self, frame_id: int, wall_ns: int, mono_ns: int, error_ns: int) -> Part | None:
        """Whose picture it is (None: nobody's). Frames that the camera took and nobody received
        are counted; behind a trigger line each was a part, and gets a shot that says so."""
        missing = 0 if self._last_id is None else frame_gap(self._last_id, frame_id) - 1
        self._last_id = frame_id
        self.lost_frames += missing
        if missing:
            self._say_lost(mono_ns)
        if self._settings.trigger == "off":
            return Part()
        for _ in range(missing):
            self._counted += 1
            part = Part(None, self._counted, "camera", "exact")
            text = "the camera took the picture, all of its packets were lost"
            self._ready.append(without_picture(wall_ns, mono_ns, part, "no_frame", text))
        self._counted += 1
        return Part(None, self._counted, "camera", "exact")

    def _say_lost(self, now_ns: int) -> None:
        """At most every ten seconds."""
        if self._said_lost_ns is None or now_ns - self._said_lost_ns > 10_000_000_000:
            self._said_lost_ns = now_ns
            log.warning(
                "camera aravis:%s: %d frames were lost on the way since the start (packet size, "
                "socket buffers, network)",
                self._target,
                self.lost_frames,
            )


def without_picture(wall_ns: int, mono_ns: int, part: Part, failure: str, detail: str) -> Shot:
    """A part whose picture never came; the times are those of its trigger."""
    return Shot(
        pixels=None,
        captured_ns=wall_ns,
        captured_mono_ns=mono_ns,
        captured_source="receive",
        part=part,
        failure=failure,
        detail=detail,
    )
