"""The JSON headers of SKRD/1 as types; docs/wire.md and configs/schema/ are made from them.

Decoding ignores unknown keys (a newer minor version adds keys) and refuses wrong types. Times are
int64 nanoseconds: `t_*` since the Unix epoch, `mono_*` on the box's monotonic clock. A number
that is not finite travels as null.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

PROTOCOL = "1.0"
"""`v` of every header: major.minor. Keys are never reused or retyped within a major version."""
PROTOCOL_MAJOR = PROTOCOL.partition(".")[0]

State = Literal["STARTING", "RUNNING", "DEGRADED", "DRAINING", "BYE"]
"""RUNNING is the only state in which a verdict may be acted on (docs/wire.md)."""
VerdictName = Literal["ok", "ng", "review", "err"]

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Nanoseconds = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Version = Annotated[str, Meta(pattern=r"^[0-9]{1,5}\.[0-9]{1,5}$")]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
Boot = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]


class Fields(Struct, frozen=True, kw_only=True):
    """A part of a header."""


class Header(Fields, frozen=True, kw_only=True):
    """What every header begins with.

    `boot` is drawn anew at each process start; `seq` counts res, st and al of a box without gaps.
    """

    v: Version
    kind: str
    box: Name
    boot: Boot
    seq: Count


class PartFields(Fields, frozen=True, kw_only=True):
    """Which physical part; `match` says how sure: exact (counter), time, fifo (order), none."""

    id: str | None
    trigger_seq: Count | None
    source: str
    match: Literal["exact", "time", "fifo", "none"]


class FrameFields(Fields, frozen=True, kw_only=True):
    """The captured frame; `t_cap_src` says whose clock gave `t_cap`."""

    id: Count
    t_cap: Nanoseconds
    t_cap_src: Literal["device", "driver", "receive", "file"]
    t_cap_err_ns: Count
    late: bool


class RegionFields(Fields, frozen=True, kw_only=True):
    """One defect, in pixels of the picture: bbox = x, y, width, height; peak = x, y.

    `contour` are the corners x, y of its outline, in turn.
    """

    id: Count
    name: str
    score: float | None
    thr: float | None
    area_px: Count
    bbox: tuple[int, int, int, int]
    peak: tuple[int, int]
    area_mm2: float | UnsetType = UNSET
    """Only where the camera's scale is known."""
    contour: tuple[tuple[int, int], ...] | UnsetType = UNSET
    """At most 16 corners; left out of a header that would grow too long."""


class LatencyFields(Fields, frozen=True, kw_only=True):
    """Microseconds per stage. `pub` is all after the decision; `total` is capture to socket."""

    cap: Count
    queue: Count
    pre: Count
    infer: Count
    post: Count
    pub: Count
    total: Count


class ModelFields(Fields, frozen=True, kw_only=True):
    """What decided: plan name and digest, engine, and the threshold's date and revision."""

    name: str = ""
    plan: str = ""
    backend: str = ""
    cal: str = ""
    thr_rev: Count = 0


class DropFields(Fields, frozen=True, kw_only=True):
    """Frames that entered and were never judged, before this result."""

    since_boot: Count
    since_last: Count


class CountFields(Fields, frozen=True, kw_only=True):
    """Results since boot, this one included."""

    ok: Count = 0
    ng: Count = 0
    review: Count = 0
    err: Count = 0


class MapReference(Fields, frozen=True, kw_only=True):
    """Whether a map with this `seq` follows on the maps socket."""

    seq: Count
    avail: bool


class ResultHeader(Header, frozen=True, kw_only=True):
    """`res`: the one verdict of one part."""

    kind: Literal["res"] = "res"
    cam: Name
    cam_seq: Count
    part: PartFields
    frame: FrameFields
    t_pub: Nanoseconds
    mono_cap: Nanoseconds
    mono_pub: Nanoseconds
    verdict: VerdictName
    reason: tuple[str, ...]
    score: float | None
    thr: float | None
    evaluated: bool
    regions: tuple[RegionFields, ...]
    """The worst ones first, at most 16; `n_regions` is how many there were."""
    n_regions: Count
    lat_us: LatencyFields
    model: ModelFields
    drops: DropFields
    counts: CountFields
    sim: bool
    map: MapReference
    detail: str | UnsetType = UNSET
    """A sentence for people, with `err`."""
    name: str | UnsetType = UNSET
    """The file name, for parts that come from files."""
    truth: str | UnsetType = UNSET
    """The defect a rendered part carries; only on simulated parts."""


class StateHeader(Header, frozen=True, kw_only=True):
    """`st`: the line changed its state. BYE is the last message of a clean exit."""

    kind: Literal["st"] = "st"
    t: Nanoseconds
    mono: Nanoseconds
    state: State
    previous: State
    text: str = ""


class AlarmHeader(Header, frozen=True, kw_only=True):
    """`al`: an alarm started (`active`) or ended. Codes are stable."""

    kind: Literal["al"] = "al"
    t: Nanoseconds
    mono: Nanoseconds
    code: Count
    name: str
    severity: Literal["warning", "error"]
    active: bool
    since: Nanoseconds
    cam: Name | UnsetType = UNSET
    text: str = ""


class QuantileFields(Fields, frozen=True, kw_only=True):
    """One stage's latency since boot, in microseconds; `sum` is over all `n` parts."""

    n: Count
    p50: Count
    p90: Count
    p99: Count
    max: Count
    sum: Count | UnsetType = UNSET


class DriftFields(Fields, frozen=True, kw_only=True):
    """How the parts of one camera look lately (docs/health.md); null: too few parts so far."""

    ng_rate: float | None = None
    """Share of ng and review among evaluated parts, exponentially weighted."""
    score: float | None = None
    """Median score of the last window of ok parts."""
    brightness: float | None = None
    """Median grey level of the last images, 0 to 255."""
    saturated: float | None = None
    """Median share of pixels at the upper end of a channel, 0 to 1."""
    sharpness: float | None = None


class CameraFields(Fields, frozen=True, kw_only=True):
    """One camera in the heartbeat; `last_age_ms` is null before the first frame."""

    state: str
    admitted: Count
    reconnects: Count
    last_age_ms: Count | None
    detail: str = ""
    delivers: bool | UnsetType = UNSET
    """It has sent a frame since it was opened, or waits for a trigger."""
    lat_us: dict[str, QuantileFields] | UnsetType = UNSET
    """By stage; `total` alone, or nothing, where many cameras would exceed 8 KB."""
    drift: DriftFields | UnsetType = UNSET
    refused: Count | UnsetType = UNSET
    """Orders that were refused because too many parts were under way; of triggered cameras."""
    unclaimed: Count | UnsetType = UNSET
    """Pictures that were no part's: late, repeated or foreign; of triggered cameras."""


class BalanceFields(Fields, frozen=True, kw_only=True):
    """Where every part went: admitted = results + dropped + pending, always."""

    admitted: Count = 0
    results: Count = 0
    dropped: Count = 0
    pending: Count = 0

    @property
    def holds(self) -> bool:
        """Whether no part is unaccounted for."""
        return self.admitted == self.results + self.dropped + self.pending


class GateFields(Fields, frozen=True, kw_only=True):
    """One reject gate since boot, in parts (docs/gate.md)."""

    passed: Count = 0
    rejected: Count = 0
    missing: Count = 0
    """Rejected because there was no verdict at the gate; part of `rejected`."""
    late: Count = 0
    """Verdicts that came after their part had passed the gate; applied to nothing."""
    mismatched: Count = 0
    """Verdicts that were not the announced part's, and numbers that were left out."""
    missed: Count = 0
    """Parts for which the gate could not act in time."""
    unplaced: Count = 0
    """Parts that could not be followed on the belt."""
    waiting: Count = 0
    dry_run: bool = False


class HealthFields(Fields, frozen=True, kw_only=True):
    """What the line reports about itself in each heartbeat."""

    ready: bool
    uptime_s: float
    cams: dict[str, CameraFields] = {}
    lat_us: dict[str, QuantileFields] = {}
    """By stage; `total` is capture to socket."""
    drops: dict[str, Count] = {}
    """Dropped parts since boot, by "stage:cause"."""
    balance: BalanceFields = BalanceFields()
    backend: str = ""
    stalled: tuple[str, ...] | UnsetType = UNSET
    """Stages without progress for some seconds; empty on a healthy line."""
    gates: dict[str, GateFields] | UnsetType = UNSET
    """By camera; left out where the box drives no gate."""


class HeartbeatHeader(Header, frozen=True, kw_only=True):
    """`hb`: still here. `seq` is the last number given out, so a lost last event shows too."""

    kind: Literal["hb"] = "hb"
    t: Nanoseconds
    mono: Nanoseconds
    period_ms: Count
    state: State
    health: HealthFields
    counts: CountFields
    alarms: tuple[Count, ...] = ()
    """Codes of the alarms that are active now."""


class BlobFields(Fields, frozen=True, kw_only=True):
    """One array that follows as raw bytes: value = raw * scale + offset; row-major.

    `xform` = (sx, 0, tx, 0, sy, ty) maps map pixels to image pixels: x_image = sx * x_map + tx.
    """

    name: str
    h: Annotated[int, Meta(ge=1, le=16384)]
    w: Annotated[int, Meta(ge=1, le=16384)]
    dtype: Literal["u8"]
    order: Literal["C"] = "C"
    scale: float
    offset: float = 0.0
    enc: Literal["raw"] = "raw"
    bytes: Count
    xform: tuple[float, float, float, float, float, float] | None = None


class MapHeader(Header, frozen=True, kw_only=True):
    """`map`: the anomaly map of the result with the same `seq`."""

    kind: Literal["map"] = "map"
    cam: Name
    t_cap: Nanoseconds
    blobs: Annotated[tuple[BlobFields, ...], Meta(min_length=1, max_length=8)]


class PictureFields(Fields, frozen=True, kw_only=True):
    """The picture that follows as one compressed blob of `bytes` bytes, `w` x `h` pixels.

    `scale_to_image` = (sx, sy) leads to pixels of the captured image: x_image = sx * x.
    """

    name: Literal["picture"] = "picture"
    enc: Literal["jpeg"] = "jpeg"
    h: Annotated[int, Meta(ge=1, le=4096)]
    w: Annotated[int, Meta(ge=1, le=4096)]
    bytes: Count
    scale_to_image: tuple[float, float]


class PictureHeader(Header, frozen=True, kw_only=True):
    """`pic`: what the camera saw, small and lossy, of the result with the same `seq`."""

    kind: Literal["pic"] = "pic"
    cam: Name
    t_cap: Nanoseconds
    blobs: Annotated[tuple[PictureFields, ...], Meta(min_length=1, max_length=1)]
