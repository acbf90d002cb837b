"""SKRD/1 without sockets: values in, lists of bytes out, and back. docs/wire.md is the description.

A message is [topic, JSON header, record, blobs...]; the record is empty except on `res`, blobs come
only with `map` and `pic`. Encoding the same values gives the same bytes. `decode` raises only
DecodeError.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from ..built_types import built
from . import wire_messages as fields
from .records import Defect, Result
from .topics import Topic, is_name, parse_topic
from .wire_map import MapMessage, check_blobs, quantise
from .wire_picture import Picture, PictureMessage, check_picture
from .wire_record import U16_MAX, DecodeError, PlcRecord, pack_record, unpack_record
from .wire_shorter import shorter_forms

MAX_HEADER_BYTES = 8192
MAX_PARTS = 3 + 8
MAX_REGIONS, MAX_REASONS = 16, 8
UNKNOWN_REGION = U16_MAX
_USUAL_RESULT = b'{"v":"1.0","kind":"res",'
"""How our own results begin: such a header is parsed once instead of twice."""

H = TypeVar("H", bound=fields.Header)


class EncodeError(ValueError):
    """A value that SKRD/1 cannot carry: our mistake, never the peer's."""


class VersionError(DecodeError):
    """A message of another major version, which must not be guessed at."""


@dataclass(frozen=True, slots=True)
class WireContext:
    """What stays the same from message to message."""

    box: str
    boot: str
    """16 hexadecimal digits, drawn at process start."""
    model: fields.ModelFields
    regions: tuple[str, ...] = ("image",)
    """The station's region table; a region's id on the wire is its place here, from 1."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the publisher knows at the moment of sending a result."""

    seq: int
    published_ns: int
    published_mono_ns: int
    counts: fields.CountFields
    dropped_since_boot: int = 0
    dropped_since_last: int = 0
    alarm: bool = False
    toggle: bool = False
    map_follows: bool = False


@dataclass(frozen=True, slots=True)
class ResultMessage:
    """A decoded `res`."""

    topic: Topic
    header: fields.ResultHeader
    record: PlcRecord


@dataclass(frozen=True, slots=True)
class StateMessage:
    """A decoded `st`."""

    topic: Topic
    header: fields.StateHeader


@dataclass(frozen=True, slots=True)
class AlarmMessage:
    """A decoded `al`."""

    topic: Topic
    header: fields.AlarmHeader


@dataclass(frozen=True, slots=True)
class HeartbeatMessage:
    """A decoded `hb`."""

    topic: Topic
    header: fields.HeartbeatHeader


Event = ResultMessage | StateMessage | AlarmMessage | HeartbeatMessage
Message = Event | MapMessage | PictureMessage


def encode_result(result: Result, context: WireContext, stamp: Stamp) -> list[bytes]:
    """The three parts of a `res`. Texts and lists too long for the header are shortened.

    Raises EncodeError when the camera's name or a number does not fit the protocol.
    """
    latency = result.latency
    total_us = max((stamp.published_mono_ns - result.captured_mono_ns) // 1000, 0)
    stages_us = (
        latency.capture_us,
        latency.queue_us,
        latency.preprocess_us,
        latency.infer_us,
        latency.decide_us,
    )
    # Those of the region that decided come first: the first one's region is in the record.
    defects = sorted(
        result.defects,
        key=lambda defect: (defect.threshold == result.threshold, _rank(defect.score)),
        reverse=True,
    )
    header = fields.ResultHeader(
        v=fields.PROTOCOL,
        box=context.box,
        boot=context.boot,
        seq=stamp.seq,
        cam=result.camera,
        cam_seq=result.camera_seq,
        part=fields.PartFields(
            id=None if result.part.part_id is None else _bounded(result.part.part_id, 128),
            trigger_seq=result.part.trigger_seq,
            source=_bounded(result.part.source, 32),
            match=result.part.match,
        ),
        frame=fields.FrameFields(
            id=result.frame_id,
            t_cap=result.captured_ns,
            t_cap_src=result.captured_source,
            t_cap_err_ns=result.captured_error_ns,
            late=result.late,
        ),
        t_pub=stamp.published_ns,
        mono_cap=result.captured_mono_ns,
        mono_pub=stamp.published_mono_ns,
        verdict=result.verdict.value,
        reason=tuple(_bounded(reason, 48) for reason in result.reasons[:MAX_REASONS]),
        score=_finite(result.score),
        thr=_finite(result.threshold),
        evaluated=result.evaluated,
        regions=tuple(_region(defect, context) for defect in defects[:MAX_REGIONS]),
        n_regions=len(defects),
        lat_us=fields.LatencyFields(
            cap=latency.capture_us,
            queue=latency.queue_us,
            pre=latency.preprocess_us,
            infer=latency.infer_us,
            post=latency.decide_us,
            pub=max(total_us - sum(stages_us), 0),
            total=total_us,
        ),
        model=context.model if result.model is None else bounded_model(result.model),
        drops=fields.DropFields(
            since_boot=stamp.dropped_since_boot, since_last=stamp.dropped_since_last
        ),
        counts=stamp.counts,
        sim=result.simulated,
        map=fields.MapReference(seq=stamp.seq, avail=stamp.map_follows),
        detail=_bounded(result.detail, 300) if result.detail else msgspec.UNSET,
        name=msgspec.UNSET if result.name is None else _bounded(result.name, 160),
        truth=(
            _bounded(result.truth, 64)
            if result.simulated and result.truth is not None
            else msgspec.UNSET
        ),
    )
    record = PlcRecord(
        verdict=result.verdict.value,
        late=result.late,
        simulated=result.simulated,
        evaluated=result.evaluated,
        alarm=stamp.alarm,
        toggle=stamp.toggle,
        seq=stamp.seq,
        boot_lo=int(context.boot, 16) & 0xFFFFFFFF,
        trigger_seq=result.part.trigger_seq or 0,
        captured_ns=result.captured_ns,
        total_us=total_us,
        score=result.score,
        threshold=result.threshold,
        region_id=header.regions[0].id if header.regions else 0,
        n_regions=len(defects),
        ok_count=stamp.counts.ok,
        ng_count=stamp.counts.ng + stamp.counts.review,
        err_count=stamp.counts.err,
    )
    topic = Topic("res", context.box, result.camera, result.verdict.value)
    return [*_frame(topic, header), pack_record(record)]


def encode_state(header: fields.StateHeader) -> list[bytes]:
    """The three parts of an `st`; the record is empty."""
    return [*_frame(Topic("st", header.box), header), b""]


def encode_alarm(header: fields.AlarmHeader) -> list[bytes]:
    """The three parts of an `al`; the record is empty."""
    camera = "" if header.cam is msgspec.UNSET else header.cam
    return [*_frame(Topic("al", header.box, camera), header), b""]


def encode_heartbeat(header: fields.HeartbeatHeader) -> list[bytes]:
    """The three parts of an `hb`; the record is empty."""
    return [*_frame(Topic("hb", header.box), header), b""]


def encode_map(result: Result, context: WireContext, seq: int) -> list[bytes]:
    """The four parts of a `map`: the anomaly map as bytes, full scale = twice the threshold.

    Raises EncodeError when the result has no map.
    """
    if result.anomaly_map is None:
        raise EncodeError("a result without a map cannot be sent as one")
    raw, scale = quantise(result.anomaly_map, result.threshold)
    height, width = raw.shape
    header = fields.MapHeader(
        v=fields.PROTOCOL,
        box=context.box,
        boot=context.boot,
        seq=seq,
        cam=result.camera,
        t_cap=result.captured_ns,
        blobs=(
            fields.BlobFields(
                name="anomaly",
                h=height,
                w=width,
                dtype="u8",
                scale=scale,
                bytes=raw.size,
                xform=result.map_to_image,
            ),
        ),
    )
    return [*_frame(Topic("map", context.box, result.camera), header), b"", raw.tobytes()]


def encode_picture(picture: Picture, context: WireContext) -> list[bytes]:
    """The four parts of a `pic`: a JPEG file that belongs to the result with the same seq."""
    header = fields.PictureHeader(
        v=fields.PROTOCOL,
        box=context.box,
        boot=context.boot,
        seq=picture.seq,
        cam=picture.camera,
        t_cap=picture.captured_ns,
        blobs=(
            fields.PictureFields(
                h=picture.height,
                w=picture.width,
                bytes=len(picture.jpeg),
                scale_to_image=picture.scale_to_image,
            ),
        ),
    )
    return [*_frame(Topic("pic", context.box, picture.camera), header), b"", picture.jpeg]


def bounded_model(model: fields.ModelFields) -> fields.ModelFields:
    """The same with texts that fit into a header."""
    return fields.ModelFields(
        name=_bounded(model.name, 64),
        plan=_bounded(model.plan, 80),
        backend=_bounded(model.backend, 80),
        cal=_bounded(model.cal, 40),
        thr_rev=model.thr_rev,
    )


def decode(parts: Sequence[bytes]) -> Message:
    """One message from its parts. Raises DecodeError (VersionError for another major version).

    Topic, header and record of a result must agree with each other.
    """
    if not 3 <= len(parts) <= MAX_PARTS:
        raise DecodeError(f"a message has 3 to {MAX_PARTS} parts, not {len(parts)}")
    topic = parse_topic(parts[0])
    if topic is None:
        raise DecodeError(f"unknown topic {parts[0][:80]!r}")
    raw = parts[1]
    if len(raw) > MAX_HEADER_BYTES:
        raise DecodeError(
            f"the header has {len(raw)} bytes; at most {MAX_HEADER_BYTES} are allowed"
        )
    if not raw.startswith(_USUAL_RESULT):
        # What another program wrote: look at version and kind before anything is interpreted.
        _check_head(_parse(raw, fields.Header), topic)
    if topic.kind == "map":
        map_header = _parse(raw, fields.MapHeader)
        if map_header.cam != topic.camera or parts[2]:
            raise DecodeError("topic and header of the map do not agree")
        check_blobs(map_header.blobs, parts[3:])
        return MapMessage(topic, map_header, tuple(bytes(part) for part in parts[3:]))
    if topic.kind == "pic":
        picture = _parse(raw, fields.PictureHeader)
        if picture.cam != topic.camera or parts[2]:
            raise DecodeError("topic and header of the picture do not agree")
        return PictureMessage(topic, picture, check_picture(picture, parts[3:]))
    if len(parts) != 3:
        raise DecodeError(f"a {topic.kind} has 3 parts, not {len(parts)}")
    if topic.kind == "res":
        header, record = _parse(raw, fields.ResultHeader), unpack_record(bytes(parts[2]))
        _check_head(header, topic)
        if (header.cam, header.verdict) != (topic.camera, topic.verdict):
            raise DecodeError("topic and header of the result do not agree")
        if (header.seq, header.verdict) != (record.seq, record.verdict) or (
            int(header.boot, 16) & 0xFFFFFFFF != record.boot_lo
        ):
            raise DecodeError("header and record of the result do not agree")
        return ResultMessage(topic, header, record)
    if parts[2]:
        raise DecodeError(f"a {topic.kind} has no record, but {len(parts[2])} bytes came")
    if topic.kind == "st":
        return StateMessage(topic, _parse(raw, fields.StateHeader))
    if topic.kind == "al":
        alarm = _parse(raw, fields.AlarmHeader)
        if (alarm.cam or "") != topic.camera:
            raise DecodeError("topic and header of the alarm do not agree")
        return AlarmMessage(topic, alarm)
    return HeartbeatMessage(topic, _parse(raw, fields.HeartbeatHeader))


def _check_head(head: fields.Header, topic: Topic) -> None:
    if head.v.partition(".")[0] != fields.PROTOCOL_MAJOR:
        raise VersionError(f"a message of protocol {head.v}; this program reads {fields.PROTOCOL}")
    if (head.kind, head.box) != (topic.kind, topic.box):
        raise DecodeError("topic and header name different kinds or boxes")


def _frame(topic: Topic, header: fields.Header) -> list[bytes]:
    if not all(is_name(name) for name in (topic.box, topic.camera) if name):
        raise EncodeError(f"{topic.box!r} or {topic.camera!r} cannot be used in a topic")
    raw = msgspec.json.encode(header)
    # Asked for only when needed: a shorter form costs more than the encoding.
    forms = shorter_forms(header) if len(raw) > MAX_HEADER_BYTES else iter(())
    for shorter in forms:
        raw = msgspec.json.encode(shorter)
        if len(raw) <= MAX_HEADER_BYTES:
            break
    if len(raw) > MAX_HEADER_BYTES:
        raise EncodeError(f"the header of {topic} would have {len(raw)} bytes")
    return [topic.encode(), raw]


def _parse(raw: bytes, header_type: type[H]) -> H:
    try:
        return msgspec.json.decode(raw, type=built(header_type))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"the header is not a {header_type.__name__}: {error}") from None


def _region(defect: Defect, context: WireContext) -> fields.RegionFields:
    known = defect.region in context.regions
    return fields.RegionFields(
        id=context.regions.index(defect.region) + 1 if known else UNKNOWN_REGION,
        name=_bounded(defect.region, 32),
        score=_finite(defect.score),
        thr=_finite(defect.threshold),
        area_px=defect.area_px,
        bbox=defect.bbox_px,
        peak=defect.peak_px,
        area_mm2=msgspec.UNSET if defect.area_mm2 is None else defect.area_mm2,
        contour=defect.contour_px or msgspec.UNSET,
    )


def _rank(score: float) -> float:
    return math.inf if math.isnan(score) else score


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _bounded(text: str, limit_bytes: int) -> str:
    """Text that fits: no control characters or lone surrogates, at most `limit_bytes` of UTF-8."""
    printable = "".join(character if character >= " " else "?" for character in text)
    raw = printable.encode("utf-8", "replace")
    if len(raw) <= limit_bytes:
        return raw.decode("utf-8")
    return raw[: limit_bytes - 3].decode("utf-8", "ignore") + "..."
