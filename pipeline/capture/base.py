"""What every camera is: open, configure, grab, close.

Three outcomes of a grab have three forms: a `Shot`, None for "nothing yet" (a triggered camera
with no part in front of it is idle, not dead), `EndOfStream` for a source that is finished; a lost
camera raises CameraError. A source knows nothing about queues, verdicts or reconnecting.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..records import CaptureSource, Frame, Part


class EndOfStream(Exception):
    """The source has delivered its last part."""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """One grabbed image before it becomes a part of the line; fields as in `Frame`."""

    pixels: NDArray[np.uint8] | None
    captured_ns: int
    captured_mono_ns: int
    captured_source: CaptureSource
    captured_error_ns: int = 0
    frame_id: int | None = None
    part: Part = field(default_factory=Part)
    name: str | None = None
    failure: str | None = None
    detail: str = ""
    simulated: bool = False
    truth: str | None = None


@runtime_checkable
class Source(Protocol):
    """One camera. All calls come from one thread; `close` may be called in any state, twice too."""

    live: bool
    """True for a camera that runs whether we read or not; False for files, which wait for us."""

    def open(self) -> None:
        """Connect. Raises CameraError."""

    def configure(self) -> None:
        """Apply the settings and read them back; called after every open. Raises CameraError."""

    def grab(self, timeout_s: float) -> Shot | None:
        """The next image, or None when none came in time. Raises EndOfStream, CameraError."""

    def close(self) -> None:
        """Release the device."""


@runtime_checkable
class FreeRunning(Protocol):
    """A live camera that sends frames by itself: `silent_limit_s` without one, and it is lost."""

    silent_limit_s: float


@runtime_checkable
class Alarming(Protocol):
    """A source that notices what is wrong while its frames still come: alarm's name to text."""

    alarms: dict[str, str]


@runtime_checkable
class Triggered(Protocol):
    """A source that takes a picture when it is told to (`aravis:` with a software trigger).

    Every trigger that returned a number leaves exactly one shot from `grab`, in order, with that
    `part.trigger_seq`, its `part.part_id` and match "exact": the picture, or no pixels and the
    reason ("no_frame", "incomplete"). This holds across close and open.
    """

    def trigger(self, part_id: str | None) -> int:
        """Fire now; safe from any thread. The number of the trigger: 1, 2, 3 ... of this source.

        A camera that cannot be reached right now takes the order all the same: its shot says so.
        """

    def unanswered(self) -> list[Shot]:
        """The shots of all triggers without one yet, as failures, each handed out once.

        For whoever gives a source up: a hung driver's thread, the end of the line.
        """


@runtime_checkable
class Heir(Protocol):
    """A source that can go on where the one it replaces (its thread hangs) has stopped."""

    def inherit(self, old: Source) -> None:
        """Take over its numbers; its open triggers become failures of this one."""


def frame_of(shot: Shot, camera: str, camera_seq: int) -> Frame:
    """Give a shot its place in the line."""
    return Frame(
        camera=camera,
        camera_seq=camera_seq,
        frame_id=camera_seq if shot.frame_id is None else shot.frame_id,
        captured_ns=shot.captured_ns,
        captured_mono_ns=shot.captured_mono_ns,
        captured_source=shot.captured_source,
        captured_error_ns=shot.captured_error_ns,
        pixels=shot.pixels,
        part=shot.part,
        name=shot.name,
        failure=shot.failure,
        detail=shot.detail,
        simulated=shot.simulated,
        truth=shot.truth,
    )
