"""Small pictures of the parts for people who watch, compressed in a thread of its own.

`pictures:` of the station file. The publish thread leaves the newest image in a mailbox with one
slot per camera; whoever watches gets at most `max_fps` of them. Nobody watching: nothing is done.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from . import wire_messages as wire
from .choice import POLICY_PATTERN, chosen
from .clock import SYSTEM_CLOCK, Clock
from .outlet import Alarm
from .records import Result, Verdict
from .taps import RaiseAlarm
from .wire_picture import Picture, encode_jpeg

log = logging.getLogger(__name__)
_NICENESS = 10
"""The line's other threads go first: a picture takes 2 ms of a core, no part must wait for it."""


class PictureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`pictures:` of the station file."""

    policy: Annotated[str, Meta(pattern=POLICY_PATTERN)] = "all"
    """"ng" (all but ok), "all", "every:N" (each N-th part, and all but ok) or "none"."""
    max_side_px: Annotated[int, Meta(ge=32, le=4096)] = 640
    max_fps: Annotated[float, Meta(gt=0, le=120)] = 5.0
    """Of each camera."""
    quality: Annotated[int, Meta(ge=10, le=95)] = 85
    """Of the JPEG."""


class PictureOutlet(Protocol):
    """The part of the publisher that pictures need; both may be used from any thread."""

    @property
    def picture_watchers(self) -> int: ...
    def post_picture(self, picture: Picture) -> None: ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    result: Result
    seq: int
    since_ns: int
    """When the camera's newest part left the line, which need not be this one."""


class PictureTap:
    """Shows results to `outlet` as pictures. See taps.Tap."""

    name = "pictures"

    def __init__(
        self, settings: PictureSettings, outlet: PictureOutlet, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._settings = settings
        self._outlet = outlet
        self._clock = clock
        self._seen: dict[str, int] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._next_ns: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._period_ns = int(1e9 / settings.max_fps)
        self._thread = threading.Thread(target=self._loop, name="pictures", daemon=True)
        self.sent = 0
        self.replaced = 0
        """Chosen pictures that a newer one pushed out of the mailbox."""

    def open(self, raise_alarm: RaiseAlarm) -> None:
        self._raise_alarm = raise_alarm
        self._thread.start()

    def on_result(self, result: Result, seq: int) -> None:
        number = self._seen[result.camera] = self._seen.get(result.camera, 0) + 1
        if result.pixels is None or not chosen(self._settings.policy, result.verdict, number):
            return
        if self._outlet.picture_watchers == 0:
            return
        with self._changed:
            waiting = _Waiting(result, seq, self._clock.mono_ns())
            before = self._waiting.get(result.camera)
            if before is not None:
                self.replaced += 1
                if result.verdict is Verdict.OK and before.result.verdict is not Verdict.OK:
                    # Whoever watches wants the defect, not the good part behind it.
                    waiting = replace(before, since_ns=waiting.since_ns)
            self._waiting[result.camera] = waiting
            self._changed.notify()

    def on_state(self, state: wire.State, text: str) -> None:
        """Nothing to show."""

    def on_alarm(self, alarm: Alarm) -> None:
        """Nothing to show."""

    def on_heartbeat(self, health: wire.HealthFields) -> None:
        """Nothing to show."""

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(2.0)

    def _loop(self) -> None:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)  # of the thread
        while (waiting := self._take()) is not None:
            try:
                self._outlet.post_picture(self._picture(waiting))
                self.sent += 1
            except Exception as error:
                # Pictures are for people: without them the line goes on, but somebody must know.
                log.exception("a picture could not be made; no more pictures")
                text = f"pictures: {type(error).__name__}: {error}"
                self._raise_alarm(Alarm("tap_failed", True, text))
                return

    def _take(self) -> _Waiting | None:
        """The next picture whose camera may show one again; None at the end."""
        with self._changed:
            while not self._closed:
                now_ns = self._clock.mono_ns()
                due = {name: self._start_ns(name) for name in self._waiting}
                camera = min(due, key=due.__getitem__, default=None)
                if camera is None:
                    self._changed.wait()
                elif due[camera] > now_ns:
                    self._changed.wait((due[camera] - now_ns) / 1e9)
                else:
                    self._next_ns[camera] = now_ns + self._period_ns
                    return self._waiting.pop(camera)
            return None

    def _start_ns(self, camera: str) -> int:
        """When the camera's waiting picture may be begun, on the monotonic clock.

        After a part has left the line the next one is furthest away; so a picture whose time has
        come waits for a part to follow. Where none does for half a period, none is in the way.
        """
        due_ns = self._next_ns.get(camera, 0)
        if self._waiting[camera].since_ns >= due_ns:
            return due_ns
        return due_ns + self._period_ns // 2

    def _picture(self, waiting: _Waiting) -> Picture:
        result = waiting.result
        assert result.pixels is not None, "on_result leaves such parts out"
        settings = self._settings
        jpeg, (height, width), scale = encode_jpeg(
            result.pixels, settings.max_side_px, settings.quality
        )
        return Picture(
            camera=result.camera,
            seq=waiting.seq,
            captured_ns=result.captured_ns,
            jpeg=jpeg,
            height=height,
            width=width,
            scale_to_image=scale,
        )
