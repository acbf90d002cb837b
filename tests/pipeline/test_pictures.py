"""Small pictures for people: compressed beside the line, delivered to whoever asks for them."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.pipeline import wire
from skrd4ad.pipeline.choice import chosen
from skrd4ad.pipeline.clock import Clock
from skrd4ad.pipeline.pictures import PictureSettings, PictureTap
from skrd4ad.pipeline.publish import POSTED_PICTURES, Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.subscriber import Item, Subscriber
from skrd4ad.pipeline.taps import TappedOutlet
from skrd4ad.pipeline.wire_map import MapMessage
from skrd4ad.pipeline.wire_messages import HealthFields, PictureFields
from skrd4ad.pipeline.wire_picture import Picture, PictureMessage, decode_jpeg, encode_jpeg
from skrd4ad.pipeline.wire_record import DecodeError

FREE = "tcp://127.0.0.1:0"
READY = HealthFields(ready=True, uptime_s=1.0)
PATIENCE_S = 60.0


def part(number: int, verdict: Verdict = Verdict.OK, camera: str = "cam0") -> Result:
    """A part whose red channel says its number."""
    pixels = np.zeros((48, 96, 3), np.uint8)
    pixels[:, :, 0] = number * 10
    return Result(
        camera=camera,
        camera_seq=number,
        frame_id=number,
        captured_ns=time.time_ns(),
        captured_mono_ns=time.monotonic_ns(),
        captured_source="file",
        captured_error_ns=0,
        part=Part(),
        name=None,
        verdict=verdict,
        reasons=(),
        evaluated=True,
        score=0.1,
        threshold=0.5,
        defects=(),
        latency=Latency(),
        anomaly_map=np.zeros((8, 8), np.float32),
        pixels=pixels,
    )


class Desk:
    """A publisher's picture side that lets the test decide when a picture may leave."""

    def __init__(self, watchers: int = 1, held: bool = False) -> None:
        self.picture_watchers = watchers
        self.pictures: list[Picture] = []
        self.may_leave = threading.Event()
        self.busy = threading.Event()
        if not held:
            self.may_leave.set()

    def post_picture(self, picture: Picture) -> None:
        self.busy.set()
        assert self.may_leave.wait(PATIENCE_S)
        self.pictures.append(picture)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def opened(desk: Desk, **changes: object) -> PictureTap:
    tap = PictureTap(PictureSettings(**({"max_fps": 120.0} | changes)), desk)  # type: ignore[arg-type]
    tap.open(lambda alarm: pytest.fail(str(alarm)))
    return tap


@given(height=st.integers(1, 200), width=st.integers(1, 200), side=st.integers(32, 128))
def test_a_picture_fits_its_side_is_never_enlarged_and_says_its_scale(
    height: int, width: int, side: int
) -> None:
    pixels = np.full((height, width, 3), (200, 60, 20), np.uint8)
    jpeg, (shown_height, shown_width), (sx, sy) = encode_jpeg(pixels, side, 85)
    assert max(shown_height, shown_width) == min(side, max(height, width))
    assert (shown_width * sx, shown_height * sy) == pytest.approx((width, height))
    described = PictureFields(
        h=shown_height, w=shown_width, bytes=len(jpeg), scale_to_image=(sx, sy)
    )
    back = decode_jpeg(jpeg, described)
    assert back.shape == (shown_height, shown_width, 3)
    assert np.abs(back.astype(int) - (200, 60, 20)).max() <= 6


def test_bytes_that_are_not_the_picture_described_are_refused_before_they_are_decoded() -> None:
    jpeg, (height, width), scale = encode_jpeg(np.zeros((40, 60, 3), np.uint8), 64, 85)
    right = PictureFields(h=height, w=width, bytes=len(jpeg), scale_to_image=scale)
    assert decode_jpeg(jpeg, right).shape == (40, 60, 3)
    with pytest.raises(DecodeError, match="was described as"):
        decode_jpeg(jpeg, msgspec.structs.replace(right, h=41))
    for broken in (b"", b"GIF89a", jpeg[: len(jpeg) // 2], b"\xff\xd8" + b"\x00" * 40):
        with pytest.raises(DecodeError):
            decode_jpeg(broken, right)


@given(st.binary(max_size=300))
def test_random_bytes_raise_only_decode_errors(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_jpeg(raw, PictureFields(h=1, w=1, bytes=len(raw), scale_to_image=(1.0, 1.0)))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("ng", [2]), ("all", [1, 2, 3, 4]), ("every:4", [2, 4]), ("none", [])],
)
def test_a_policy_chooses(policy: str, expected: list[int]) -> None:
    verdicts = [Verdict.OK, Verdict.ERR, Verdict.OK, Verdict.OK]
    numbers = [n for n, verdict in enumerate(verdicts, 1) if chosen(policy, verdict, n)]
    assert numbers == expected


def test_the_newest_image_wins_but_a_good_part_never_hides_a_bad_one() -> None:
    desk = Desk(held=True)
    tap = opened(desk)
    tap.on_result(part(1), 101)
    assert desk.busy.wait(PATIENCE_S)  # the thread holds part 1; the mailbox is empty
    tap.on_result(part(2), 102)
    tap.on_result(part(3, Verdict.NG), 103)
    tap.on_result(part(4), 104)
    desk.may_leave.set()
    wait_for(lambda: len(desk.pictures) == 2)
    tap.close()
    assert [picture.seq for picture in desk.pictures] == [101, 103]
    assert (tap.sent, tap.replaced) == (2, 2)


def test_each_camera_has_a_slot_of_its_own() -> None:
    desk = Desk(held=True)
    tap = opened(desk)
    tap.on_result(part(1), 1)
    assert desk.busy.wait(PATIENCE_S)
    for seq, camera in ((2, "left"), (3, "right"), (4, "left")):
        tap.on_result(part(seq, camera=camera), seq)
    desk.may_leave.set()
    wait_for(lambda: len(desk.pictures) == 3)
    tap.close()
    assert {picture.seq for picture in desk.pictures} == {1, 3, 4}


def test_more_than_max_fps_are_never_made() -> None:
    desk = Desk()
    tap = opened(desk, max_fps=0.001)
    for seq in range(1, 6):
        tap.on_result(part(seq), seq)
        wait_for(lambda: tap.sent == 1)
    tap.close()
    assert [picture.seq for picture in desk.pictures] == [1]


def seq_taken(tap: PictureTap) -> int:
    taken = tap._take()
    assert taken is not None
    return taken.seq


def test_a_picture_is_made_when_a_part_has_just_left_or_when_none_comes() -> None:
    clock_ns = [0]
    desk = Desk()
    settings = PictureSettings(max_fps=10.0)
    tap = PictureTap(settings, desk, Clock(mono_ns=lambda: clock_ns[0]))
    tap.on_result(part(1), 1)
    assert seq_taken(tap) == 1
    clock_ns[0] = 40_000_000
    tap.on_result(part(2), 2)
    clock_ns[0] = 110_000_000  # due since 100 ms, and part 3 follows at once: 2 is not begun
    assert tap._start_ns("cam0") == 150_000_000
    tap.on_result(part(3), 3)
    assert tap._start_ns("cam0") == 100_000_000
    assert seq_taken(tap) == 3
    # A reject is kept for the good part behind it, and that one says when there is time.
    clock_ns[0] = 190_000_000
    tap.on_result(part(4, Verdict.NG), 4)
    clock_ns[0] = 215_000_000
    tap.on_result(part(5), 5)
    assert seq_taken(tap) == 4
    # No more parts: half a period after its time the last one is made.
    clock_ns[0] = 230_000_000
    tap.on_result(part(6), 6)
    clock_ns[0] = tap._start_ns("cam0")
    assert clock_ns[0] == 365_000_000
    assert seq_taken(tap) == 6


def test_nothing_is_compressed_while_nobody_watches() -> None:
    desk = Desk(watchers=0)
    tap = opened(desk)
    tap.on_result(part(1), 1)
    tap.on_result(dataclasses.replace(part(2), pixels=None), 2)
    desk.picture_watchers = 1
    tap.on_result(dataclasses.replace(part(3), pixels=None), 3)
    tap.on_result(part(4), 4)
    wait_for(lambda: tap.sent == 1)
    tap.close()
    assert [picture.seq for picture in desk.pictures] == [4]


def test_pictures_that_pile_up_push_out_the_oldest() -> None:
    publisher = Publisher(PublishSettings(events=FREE, maps=FREE), "edge07")
    with publisher, Subscriber(publisher.events_endpoint, publisher.maps_endpoint, pictures=True):
        jpeg, (height, width), scale = encode_jpeg(np.zeros((9, 9, 3), np.uint8), 64, 85)
        for seq in range(POSTED_PICTURES + 3):
            publisher.post_picture(Picture("cam0", seq, 0, jpeg, height, width, scale))
        assert [picture.seq for picture in publisher._posted] == list(range(3, 3 + POSTED_PICTURES))
        publisher.heartbeat_if_due(READY)
        assert not publisher._posted


def test_who_asks_for_pictures_gets_them_with_the_number_of_their_result() -> None:
    settings = PublishSettings(events=FREE, maps=FREE, map_policy="all")
    publisher = Publisher(settings, "edge07")
    tap = PictureTap(PictureSettings(policy="all", max_side_px=32, max_fps=120), publisher)
    line = TappedOutlet(publisher, [tap])
    line.open()
    endpoints = (publisher.events_endpoint, publisher.maps_endpoint)
    with Subscriber(*endpoints, pictures=True) as watcher, Subscriber(*endpoints) as other:

        def beat() -> None:
            publisher._next_heartbeat_ns = 0
            line.heartbeat_if_due(lambda: READY)

        assert publisher.wait_for_subscribers(2, PATIENCE_S)
        wait_for(lambda: beat() or publisher.picture_watchers == 1)
        seqs = []
        for number in (1, 2, 3):
            seqs.append(line.send_result(part(number)))
            wait_for(lambda: beat() or tap.sent == len(seqs))
            beat()
        line.close()
        seen: list[Item] = list(watcher.items(PATIENCE_S, PATIENCE_S))
        others: list[Item] = list(other.items(PATIENCE_S, PATIENCE_S))
    pictures = [item for item in seen if isinstance(item, PictureMessage)]
    assert [picture.header.seq for picture in pictures] == seqs
    assert [picture.topic.encode() for picture in pictures] == [b"pic/edge07/cam0"] * 3
    for number, picture in enumerate(pictures, 1):
        assert picture.pixels().shape == (16, 32, 3)
        assert picture.pixels()[8, 16, 0] == pytest.approx(number * 10, abs=4)
        assert picture.header.blobs[0].scale_to_image == (3.0, 3.0)
    assert not [item for item in others if isinstance(item, PictureMessage)]
    assert [item.header.seq for item in others if isinstance(item, MapMessage)] == seqs
    assert watcher.status().contiguous
    results = [item for item in seen if isinstance(item, wire.ResultMessage)]
    assert [message.header.seq for message in results] == seqs
