"""SKRD/1 encoded and decoded: golden messages, round trips, and bytes from hostile peers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.pipeline import wire
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.records import Defect, Latency, Part, Result, Verdict
from skrd4ad.pipeline.topics import Topic, parse_topic
from skrd4ad.pipeline.wire_map import quantise
from skrd4ad.pipeline.wire_picture import Picture
from skrd4ad.pipeline.wire_record import DecodeError

GOLDEN = Path(__file__).parent / "golden"
BOX, BOOT = "edge07", "f0d75366422f4c92"
T_NS, MONO_NS = 1795479736190464000, 88123456789
CONTEXT = wire.WireContext(
    box=BOX,
    boot=BOOT,
    model=fields.ModelFields(
        name="transistor",
        plan="sha256:ab12",
        backend="onnxruntime-cpu fp32, 2 threads",
        cal="2026-09-01T08:00:00Z",
        thr_rev=7,
    ),
    regions=("image", "lead"),
)
STAMP = wire.Stamp(
    seq=123456,
    published_ns=T_NS + 6_448_000,
    published_mono_ns=MONO_NS + 6_448_000,
    counts=fields.CountFields(ok=1000, ng=19, review=1, err=3),
    dropped_since_boot=3,
    dropped_since_last=1,
    toggle=True,
    map_follows=True,
)
NG = Result(
    camera="cam0",
    camera_seq=8812,
    frame_id=88121,
    captured_ns=T_NS,
    captured_mono_ns=MONO_NS,
    captured_source="device",
    captured_error_ns=1_000_000,
    part=Part("A-0012345", 4711, "plc", "exact"),
    name=None,
    verdict=Verdict.NG,
    reasons=("score",),
    evaluated=True,
    score=0.8125,
    threshold=0.5,
    defects=(
        Defect("image", 0.6, 0.5, 12, (1, 2, 3, 4), (2, 3)),
        Defect("lead", 0.8125, 0.5, 321, (10, 20, 30, 40), (22, 33)),
    ),
    latency=Latency(900, 120, 400, 4100, 300, 60, 5880),
    anomaly_map=np.linspace(0.0, 1.2, 12, dtype=np.float32).reshape(3, 4),
    map_to_image=(4.0, 0.0, 1.5, 0.0, 4.0, 1.5),
)
ERR = dataclasses.replace(
    NG,
    part=Part(),
    name="tray/0042.png",
    verdict=Verdict.ERR,
    reasons=("unreadable",),
    detail="tray/0042.png: the file ends too early",
    evaluated=False,
    score=math.inf,
    defects=(),
    anomaly_map=None,
    simulated=True,
    truth="good",
    late=True,
)
STATE = fields.StateHeader(
    v="1.0", box=BOX, boot=BOOT, seq=1, t=T_NS, mono=MONO_NS, state="RUNNING", previous="STARTING"
)
ALARM = fields.AlarmHeader(
    v="1.0",
    box=BOX,
    boot=BOOT,
    seq=2,
    t=T_NS,
    mono=MONO_NS,
    code=1001,
    name="camera_lost",
    severity="error",
    active=True,
    since=T_NS,
    cam="cam0",
    text="reopening",
)
HEARTBEAT = fields.HeartbeatHeader(
    v="1.0",
    box=BOX,
    boot=BOOT,
    seq=123456,
    t=T_NS,
    mono=MONO_NS,
    period_ms=500,
    state="RUNNING",
    health=fields.HealthFields(
        ready=True,
        uptime_s=12.5,
        cams={
            "cam0": fields.CameraFields(state="running", admitted=9, reconnects=1, last_age_ms=7)
        },
        lat_us={"total": fields.QuantileFields(n=8, p50=6000, p90=6100, p99=6900, max=7000)},
        drops={"admission:superseded": 0},
        balance=fields.BalanceFields(admitted=9, results=8, dropped=0, pending=1),
        backend="onnxruntime-cpu fp32, 2 threads",
    ),
    counts=fields.CountFields(ok=7, ng=1),
    alarms=(1001,),
)

PICTURE = Picture(
    camera="cam0",
    seq=123456,
    captured_ns=T_NS,
    jpeg=(GOLDEN / "pic" / "3_blob.jpg").read_bytes(),
    height=6,
    width=8,
    scale_to_image=(80.0, 80.0),
)


def messages() -> dict[str, list[bytes]]:
    return {
        "res_ng": wire.encode_result(NG, CONTEXT, STAMP),
        "res_err": wire.encode_result(
            ERR, CONTEXT, dataclasses.replace(STAMP, seq=123457, toggle=False, map_follows=False)
        ),
        "st": wire.encode_state(STATE),
        "al": wire.encode_alarm(ALARM),
        "hb": wire.encode_heartbeat(HEARTBEAT),
        "map": wire.encode_map(NG, CONTEXT, 123456),
        "pic": wire.encode_picture(PICTURE, CONTEXT),
    }


NAMES = sorted(messages())


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_bytes_are_what_is_sent_and_what_is_read(name: str) -> None:
    # These files are the protocol. A difference means old receivers would read something else.
    parts = [path.read_bytes() for path in sorted((GOLDEN / name).iterdir())]
    assert messages()[name] == parts
    assert wire.decode(parts) == wire.decode(messages()[name])


def test_a_decoded_result_says_what_the_line_said() -> None:
    message = wire.decode(messages()["res_ng"])
    assert isinstance(message, wire.ResultMessage)
    header, record = message.header, message.record
    assert message.topic == Topic("res", "edge07", "cam0", "ng")
    assert (header.seq, header.cam_seq, header.verdict, header.reason) == (
        123456,
        8812,
        "ng",
        ("score",),
    )
    assert header.part == fields.PartFields(
        id="A-0012345", trigger_seq=4711, source="plc", match="exact"
    )
    assert [(region.id, region.name) for region in header.regions] == [(2, "lead"), (1, "image")]
    assert header.lat_us.total == 6448
    assert header.lat_us.pub == 6448 - 5820
    assert (record.seq, record.region_id, record.n_regions) == (123456, 2, 2)
    assert (record.ok_count, record.ng_count, record.err_count) == (1000, 20, 3)
    assert record.boot_lo == int(BOOT, 16) & 0xFFFFFFFF


def test_a_score_that_is_not_finite_is_null_in_json_and_infinite_in_the_record() -> None:
    message = wire.decode(messages()["res_err"])
    assert isinstance(message, wire.ResultMessage)
    assert message.header.score is None
    assert message.record.score == math.inf
    assert not message.record.evaluated
    assert message.record.late


def test_optional_keys_are_absent_when_there_is_nothing_to_say() -> None:
    ng, err = (json.loads(messages()[name][1]) for name in ("res_ng", "res_err"))
    assert {"detail", "name", "truth"}.isdisjoint(ng)
    assert (err["name"], err["truth"]) == ("tray/0042.png", "good")
    assert "ends too early" in err["detail"]


def test_the_truth_of_a_real_part_is_never_sent() -> None:
    parts = wire.encode_result(dataclasses.replace(NG, truth="scratch"), CONTEXT, STAMP)
    assert b"truth" not in parts[1]


@given(
    name=st.text(max_size=400),
    detail=st.text(st.characters(), max_size=2000),
    reasons=st.lists(st.text(max_size=200), max_size=20),
    score=st.floats(),
    defects=st.lists(
        st.builds(
            Defect,
            region=st.text(max_size=100),
            score=st.floats(),
            threshold=st.floats(),
            area_px=st.integers(0, 2**31),
            bbox_px=st.tuples(*[st.integers(-(2**31), 2**31)] * 4),
            peak_px=st.tuples(*[st.integers(-(2**31), 2**31)] * 2),
        ),
        max_size=40,
    ),
)
@settings(max_examples=100)
def test_any_result_of_the_line_fits_into_a_message(
    name: str, detail: str, reasons: list[str], score: float, defects: list[Defect]
) -> None:
    result = dataclasses.replace(
        ERR,
        name=name,
        detail=detail,
        truth=name,
        reasons=tuple(reasons),
        score=score,
        defects=tuple(defects),
        part=Part(name, None, detail, "fifo"),
    )
    parts = wire.encode_result(result, CONTEXT, STAMP)
    message = wire.decode(parts)
    assert isinstance(message, wire.ResultMessage)
    assert message.header.n_regions == len(defects)
    assert len(parts[1]) <= wire.MAX_HEADER_BYTES
    assert b"\n" not in parts[1]


def test_a_result_with_everything_at_its_longest_fits() -> None:
    long = '"\\' * 4000
    result = dataclasses.replace(
        ERR,
        name=long,
        detail=long,
        truth=long,
        reasons=(long,) * 50,
        part=Part(long, 2**62, long, "fifo"),
        defects=tuple(
            Defect(long, -1.2345678901234567e-300, 1.2345678901234567e-300, 2**40, (-(2**40),) * 4,
                   (-(2**40), -(2**40)), -1.2345678901234567e-300, ((-(2**40), -(2**40)),) * 16)
            for _ in range(100)
        ),
    )  # fmt: skip
    model = fields.ModelFields(name=long, plan=long, backend=long, cal=long, thr_rev=2**62)
    context = wire.WireContext("b" * 63, BOOT, wire.bounded_model(model))
    wire.decode(wire.encode_result(dataclasses.replace(result, camera="c" * 63), context, STAMP))


def test_outlines_and_areas_travel_and_a_header_without_room_goes_without_outlines() -> None:
    outline = ((0, 0), (9, 0), (9, 7))
    defect = dataclasses.replace(NG.defects[1], area_mm2=1.25, contour_px=outline)
    one = wire.decode(
        wire.encode_result(dataclasses.replace(NG, defects=(defect,)), CONTEXT, STAMP)
    )
    assert isinstance(one, wire.ResultMessage)
    assert (one.header.regions[0].area_mm2, one.header.regions[0].contour) == (1.25, outline)
    crowded = dataclasses.replace(defect, contour_px=((1234567890, 1234567890),) * 16)
    parts = wire.encode_result(dataclasses.replace(NG, defects=(crowded,) * 16), CONTEXT, STAMP)
    many = json.loads(parts[1])["regions"]
    assert len(many) == 16
    assert all("contour" not in region and region["area_mm2"] == 1.25 for region in many)


def test_the_region_that_decided_is_named_first_and_in_the_record() -> None:
    decided = dataclasses.replace(NG.defects[1], score=0.7)
    higher = dataclasses.replace(NG.defects[0], score=0.9, threshold=0.88)
    message = wire.decode(
        wire.encode_result(
            dataclasses.replace(NG, score=0.7, defects=(higher, decided)), CONTEXT, STAMP
        )
    )
    assert isinstance(message, wire.ResultMessage)
    assert [region.name for region in message.header.regions] == ["lead", "image"]
    assert message.record.region_id == 2


def test_a_file_name_that_is_not_unicode_can_be_sent() -> None:
    parts = wire.encode_result(dataclasses.replace(ERR, name="part\udcff.png"), CONTEXT, STAMP)
    assert json.loads(parts[1])["name"] == "part?.png"


def test_a_camera_name_with_a_slash_cannot_be_encoded() -> None:
    with pytest.raises(wire.EncodeError):
        wire.encode_result(dataclasses.replace(NG, camera="a/b"), CONTEXT, STAMP)


def test_keys_of_a_newer_minor_version_are_ignored() -> None:
    topic, header, record = messages()["res_ng"]
    newer = json.loads(header) | {"v": "1.9", "humidity": {"percent": 40}}
    newer["frame"]["exposure_us"] = 250
    message = wire.decode([topic, json.dumps(newer).encode(), record])
    assert message.header.seq == 123456


def test_another_major_version_is_refused_as_such() -> None:
    topic, header, record = messages()["res_ng"]
    with pytest.raises(wire.VersionError, match=r"protocol 2\.0"):
        wire.decode([topic, header.replace(b'"v":"1.0"', b'"v":"2.0"'), record])


def test_a_version_that_changes_within_the_header_is_refused() -> None:
    topic, header, record = messages()["res_ng"]
    with pytest.raises(wire.VersionError):
        wire.decode([topic, header[:-1] + b',"v":"2.0"}', record])
    with pytest.raises(DecodeError):
        wire.decode([topic, header.replace(b'"kind":"res",', b""), record])


@pytest.mark.parametrize("name", NAMES)
def test_a_message_cut_short_anywhere_is_refused(name: str) -> None:
    parts = messages()[name]
    for index, part in enumerate(parts):
        for length in range(len(part)):
            cut = [*parts[:index], part[:length], *parts[index + 1 :]]
            with pytest.raises(DecodeError):
                wire.decode(cut)
    for count in range(len(parts)):
        with pytest.raises(DecodeError):
            wire.decode(parts[:count])


def test_parts_that_contradict_each_other_are_refused() -> None:
    topic, header, record = messages()["res_ng"]
    contradictions = [
        [topic.replace(b"/ng", b"/ok"), header, record],
        [topic.replace(b"cam0", b"cam1"), header, record],
        [topic.replace(b"edge07", b"edge08"), header, record],
        [topic, header.replace(b'"seq":123456', b'"seq":123455', 1), record],
        [topic, header.replace(b"422f4c92", b"422f4c93"), record],
        [topic, header, messages()["res_err"][2]],
        [b"st/edge07", header, record],
        [topic, header, record, b""],
        [*messages()["st"][:2], record],
        [*messages()["map"], b"more"],
        [*messages()["pic"], b"more"],
        [messages()["pic"][0].replace(b"cam0", b"cam1"), *messages()["pic"][1:]],
        [*messages()["pic"][:2], b"record", messages()["pic"][3]],
        [*messages()["map"][:3], messages()["pic"][3]],
    ]
    for parts in contradictions:
        with pytest.raises(DecodeError):
            wire.decode(parts)


@given(st.data())
@settings(max_examples=400)
def test_random_and_mutated_bytes_raise_only_decode_errors(data: st.DataObject) -> None:
    parts = [bytearray(part) for part in messages()[data.draw(st.sampled_from(NAMES))]]
    for _ in range(data.draw(st.integers(1, 4))):
        part = parts[data.draw(st.integers(0, len(parts) - 1))]
        kind = data.draw(st.sampled_from(["replace", "insert", "delete", "swap all", "digits"]))
        at = data.draw(st.integers(0, max(len(part) - 1, 0)))
        if kind == "replace" and part:
            part[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            part[at:at] = data.draw(st.binary(max_size=20))
        elif kind == "delete":
            del part[at : at + data.draw(st.integers(1, 9))]
        elif kind == "digits":
            part[at : at + 1] = b"9" * data.draw(st.integers(1, 400))
        else:
            part[:] = data.draw(st.binary(max_size=80))
    # DecodeError is the only exception allowed out; any other fails the test.
    with contextlib.suppress(DecodeError):
        wire.decode([bytes(part) for part in parts])


def test_deeply_nested_and_oversized_headers_are_refused() -> None:
    topic, _, record = messages()["res_ng"]
    for header in (b"[" * 8000, b'{"a":' * 1600, b'{"v":"1.0"' + b" " * 9000 + b"}", b"\xff\xfe"):
        with pytest.raises(DecodeError):
            wire.decode([topic, header, record])


@given(st.text(max_size=40), st.binary(max_size=40))
def test_topics_parse_to_themselves_or_not_at_all(text: str, raw: bytes) -> None:
    for candidate in (text.encode(), raw, b"res/" + raw + b"/ok"):
        topic = parse_topic(candidate)
        assert topic is None or topic.encode() == candidate


def test_topics_of_wrong_shape_are_refused() -> None:
    wrong = [
        b"res/a/b",
        b"res/a/b/maybe",
        b"st/a/b",
        b"hb",
        b"map/a",
        b"res/a/b/ok/c",
        b"st//",
        b"x/a",
    ]
    assert [parse_topic(topic) for topic in wrong] == [None] * len(wrong)


def test_a_map_comes_back_within_half_a_step_and_saturates_at_twice_the_threshold() -> None:
    message = wire.decode(messages()["map"])
    assert isinstance(message, wire.MapMessage)
    blob = message.header.blobs[0]
    assert blob.scale * 255 == pytest.approx(2 * NG.threshold)
    assert NG.anomaly_map is not None
    expected = np.minimum(NG.anomaly_map, 1.0)
    assert np.abs(message.values() - expected).max() <= blob.scale / 2 + 1e-6
    assert message.raw().max() == 255


def test_the_map_scale_depends_on_the_threshold_alone() -> None:
    _, dark = quantise(np.zeros((2, 2), np.float32), 0.3)
    _, bright = quantise(np.ones((2, 2), np.float32), 0.3)
    assert dark == bright


def test_map_values_that_are_not_finite_are_bright() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, -1.0]], np.float32)
    raw, _ = quantise(values, 0.5)
    assert raw.tolist() == [[255, 255, 0, 0]]
    for threshold in (0.0, -1.0, math.inf, math.nan):
        assert quantise(values, threshold)[1] == pytest.approx(6.0 / 255)


def test_a_blob_whose_size_does_not_fit_its_description_is_refused() -> None:
    topic, header, record, blob = messages()["map"]
    with pytest.raises(DecodeError):
        wire.decode([topic, header, record, blob + b"x"])
    lying = msgspec.json.decode(header)
    lying["blobs"][0]["h"] = 4
    with pytest.raises(DecodeError):
        wire.decode([topic, msgspec.json.encode(lying), record, blob])


@pytest.mark.parametrize("cameras", [1, 7, 20, 60, 600])
def test_a_heartbeat_of_many_cameras_is_shortened_until_it_fits(cameras: int) -> None:
    quantiles = fields.QuantileFields(
        n=10**9, p50=10**8, p90=10**8, p99=10**8, max=10**8, sum=10**15
    )
    camera = fields.CameraFields(
        state="reopening",
        admitted=10**9,
        reconnects=10**4,
        last_age_ms=10**6,
        detail="the driver has not returned for a long time, and more words of that kind" * 2,
        delivers=True,
        lat_us=dict.fromkeys(("cap", "queue", "pre", "infer", "post", "pub", "total"), quantiles),
        drift=fields.DriftFields(ng_rate=1 / 3, score=1 / 7, brightness=100 / 3, sharpness=1 / 9),
    )
    names = [f"camera-{number}" for number in range(cameras)]
    health = msgspec.structs.replace(HEARTBEAT.health, cams=dict.fromkeys(names, camera))
    parts = wire.encode_heartbeat(msgspec.structs.replace(HEARTBEAT, health=health))
    assert len(parts[1]) <= wire.MAX_HEADER_BYTES
    message = wire.decode(parts)
    assert isinstance(message, wire.HeartbeatMessage)
    assert list(message.header.health.cams) == (names if cameras < 600 else [])
    assert (message.header.health.cams.get("camera-0") == camera) is (cameras == 1)
