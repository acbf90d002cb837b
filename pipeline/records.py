"""The values that travel from the camera to the wire. Frozen; units in the names.

A `Frame` enters, exactly one `Result` leaves for it. What lies between is a function of the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .wire_messages import ModelFields

CaptureSource = Literal["device", "driver", "receive", "file"]
PartMatch = Literal["exact", "time", "fifo", "none"]


Affine = tuple[float, float, float, float, float, float]
Homography = tuple[float, float, float, float, float, float, float, float, float]


class Verdict(str, Enum):
    """What the line controller acts on. ERR means uninspected: treat it as a reject."""

    OK = "ok"
    NG = "ng"
    REVIEW = "review"
    ERR = "err"


@dataclass(frozen=True, slots=True)
class Part:
    """Which physical part a frame shows, and how sure that is."""

    part_id: str | None = None
    trigger_seq: int | None = None
    source: str = "none"
    """Who named the part: "plc" (a trigger with an id), "line" (a trigger without one), "camera",
    "file", "test", or "none"."""
    match: PartMatch = "none"


@dataclass(frozen=True, slots=True)
class Announced:
    """A part the line has taken responsibility for: at its trigger, or when its frame came.

    `mono_ns` is when the part was in front of the camera (time.monotonic_ns), `wall_ns` the same.
    """

    camera: str
    camera_seq: int
    part: Part
    mono_ns: int
    wall_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A frame as the network takes it, or why it cannot be taken; made by `prepare.prepare`."""

    view: object
    """For which view (view.py); another one prepares anew."""
    values: NDArray[np.float32] | None
    """(3, height, width); None when there is nothing to infer."""
    pixels: NDArray[np.uint8] | None
    """(height, width, 3) RGB, corrected; as captured where that could not be done."""
    image_to_mm: Homography | None = None
    """Pixel of `pixels` -> mm, 3 x 3 row by row, where the camera's scale is known."""
    failure: str = ""
    """One of the reasons of docs/wire.md; empty when `values` are there."""
    detail: str = ""
    took_ns: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One captured part. `pixels` is None when it could not be captured; `failure` then says why.

    `captured_ns` is wall-clock time (Unix, ns) and `captured_mono_ns` the same instant on
    time.monotonic_ns, both with an uncertainty of `captured_error_ns`.
    """

    camera: str
    camera_seq: int
    """1, 2, 3 ... per camera since the process started; every admitted part takes one."""
    frame_id: int
    """The camera's own counter, or `camera_seq` when it has none."""
    captured_ns: int
    captured_mono_ns: int
    captured_source: CaptureSource
    captured_error_ns: int
    pixels: NDArray[np.uint8] | None
    """(height, width, 3) RGB."""
    part: Part = field(default_factory=Part)
    name: str | None = None
    """The file name, for parts that come from files."""
    failure: str | None = None
    """One of the reasons of docs/wire.md: "unreadable", "no_frame", "dropped:no_slot", ..."""
    detail: str = ""
    """A sentence for people that goes with `failure`."""
    simulated: bool = False
    truth: str | None = None
    """The defect a rendered part carries ("good" when it has none); only ever set by `test:`."""
    prepared: Prepared | None = None
    """The network's input, where the camera's thread had time to make it."""

    def announced(self) -> Announced:
        """The part that this frame shows, for who follows it on its way."""
        return Announced(
            self.camera, self.camera_seq, self.part, self.captured_mono_ns, self.captured_ns
        )


def frame_without_image(announced: Announced, failure: str, detail: str = "") -> Frame:
    """What stands for the frame of a part that has none, so that it still gets its result."""
    return Frame(
        camera=announced.camera,
        camera_seq=announced.camera_seq,
        frame_id=0,
        captured_ns=announced.wall_ns,
        captured_mono_ns=announced.mono_ns,
        captured_source="receive",
        captured_error_ns=0,
        pixels=None,
        part=announced.part,
        failure=failure,
        detail=detail,
    )


@dataclass(frozen=True, slots=True)
class Defect:
    """One connected area of the map above its threshold, in pixels of the picture."""

    region: str
    score: float
    """Largest map value inside."""
    threshold: float
    area_px: int
    bbox_px: tuple[int, int, int, int]
    """x, y, width, height."""
    peak_px: tuple[int, int]
    """x, y of the largest map value."""
    area_mm2: float | None = None
    """None where the camera has no scale."""
    contour_px: tuple[tuple[int, int], ...] = ()
    """Corners x, y of its outline, simplified; holes are not shown."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Microseconds a part spent in each stage; total is from capture to the socket."""

    capture_us: int = 0
    queue_us: int = 0
    preprocess_us: int = 0
    infer_us: int = 0
    decide_us: int = 0
    publish_us: int = 0
    total_us: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The one verdict of one part."""

    camera: str
    camera_seq: int
    frame_id: int
    captured_ns: int
    captured_mono_ns: int
    captured_source: CaptureSource
    captured_error_ns: int
    part: Part
    name: str | None
    verdict: Verdict
    reasons: tuple[str, ...]
    evaluated: bool
    """True when the network has seen the part; False exactly for ERR."""
    score: float
    threshold: float
    defects: tuple[Defect, ...]
    latency: Latency
    late: bool = False
    simulated: bool = False
    detail: str = ""
    truth: str | None = None
    anomaly_map: NDArray[np.float32] | None = None
    """(height, width) of the network input; None when not evaluated."""
    pixels: NDArray[np.uint8] | None = None
    """(height, width, 3) RGB as judged, for pictures and archive; None when there is none."""
    model: ModelFields | None = None
    """What judged it; None where nothing did."""
    map_to_image: Affine | None = None
    """Affine map-to-image transform (sx, 0, tx, 0, sy, ty): x_image = sx * x_map + tx."""
