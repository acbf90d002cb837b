"""Which frame belongs to which trigger, in a world where it is known: frames carry their part's
number as their name, triggers and frames are lost, repeated, late and foreign, and no outcome may
ever join a trigger with another part's frame."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.pipeline.pairing import (
    MISMATCH,
    NO_FRAME,
    UNANNOUNCED,
    Outcome,
    Pairing,
    TriggerSettings,
)
from skrd4ad.pipeline.records import Frame, Part

PIXELS = np.zeros((2, 2, 3), np.uint8)
MS = 1_000_000


def frame(owner: object, captured_ms: float, count: int | None = None) -> Frame:
    return Frame(
        camera="cam",
        camera_seq=0,
        frame_id=0,
        captured_ns=round(captured_ms * MS),
        captured_mono_ns=round(captured_ms * MS),
        captured_source="device",
        captured_error_ns=0,
        pixels=PIXELS,
        part=Part(trigger_seq=count),
        name=str(owner),
    )


def numbers(outcomes: list[Outcome]) -> list[tuple[int | None, str]]:
    """(trigger, the name of its frame or the reason)."""
    return [(one.number, one.frame.name if one.frame else one.reason) for one in outcomes]


def pairing(**options: object) -> Pairing:
    return Pairing(TriggerSettings(**{"limit_ms": 100.0, **options}))


# ---- one thing at a time -------------------------------------------------------------------


def test_exact_pairs_by_the_counter_and_a_later_frame_settles_the_ones_before() -> None:
    pairs = pairing()
    for number in (1, 2, 3):
        assert pairs.announce(number, number * MS) == []
        assert pairs.fired(number, 100 + number, number * MS) == []
    found = pairs.frame(frame(3, 5, 103), 6 * MS)
    assert numbers(found) == [(1, NO_FRAME), (2, NO_FRAME), (3, "3")]
    # The frame of a trigger that has left is nobody's, and disturbs nothing.
    assert pairs.frame(frame(2, 5, 102), 7 * MS) == []
    assert (pairs.unclaimed, pairs.mismatch) == (1, "")


def test_a_frame_may_be_faster_than_the_answer_of_its_trigger() -> None:
    pairs = pairing()
    pairs.announce(1, 0)
    assert pairs.frame(frame(1, 1, 7), MS) == []
    assert numbers(pairs.fired(1, 7, 2 * MS)) == [(1, "1")]


def test_a_counter_that_is_no_triggers_stops_the_pairing_until_resync() -> None:
    pairs = pairing()
    pairs.announce(1, 0)
    pairs.fired(1, 7, 0)
    assert numbers(pairs.frame(frame("foreign", 1, 9), MS)) == [(1, MISMATCH)]
    assert "counter 9" in pairs.mismatch
    assert numbers(pairs.announce(2, 2 * MS)) == [(2, MISMATCH)]
    assert pairs.frame(frame(1, 1, 7), 2 * MS) == []
    assert pairs.resync(3 * MS) == []
    pairs.announce(3, 4 * MS)
    pairs.fired(3, 10, 4 * MS)
    assert pairs.frame(frame("before the resync", 2, 10), 5 * MS) == []
    assert numbers(pairs.frame(frame(3, 5, 10), 6 * MS)) == [(3, "3")]


def test_a_trigger_without_a_frame_in_time_has_none() -> None:
    pairs = pairing()
    pairs.announce(1, 0)
    pairs.announce(2, 50 * MS)
    assert pairs.expire(100 * MS) == []
    assert numbers(pairs.expire(101 * MS)) == [(1, NO_FRAME)]
    assert numbers(pairs.expire(151 * MS)) == [(2, NO_FRAME)]
    assert pairs.mismatch == ""


def test_fifo_cannot_go_on_after_a_missing_frame() -> None:
    pairs = pairing(match="fifo")
    pairs.announce(1, 0)
    pairs.announce(2, 60 * MS)
    assert numbers(pairs.expire(101 * MS)) == [(1, NO_FRAME), (2, MISMATCH)]
    assert "trigger 1" in pairs.mismatch


def test_fifo_notices_by_its_window_that_a_frame_is_anothers() -> None:
    pairs = pairing(match="fifo", window_ms=20.0)
    pairs.announce(1, 0)
    pairs.announce(2, 50 * MS)
    assert numbers(pairs.frame(frame(2, 55), 56 * MS)) == [(1, MISMATCH), (2, MISMATCH)]


def test_time_refuses_a_frame_that_fits_two_triggers_and_then_goes_on() -> None:
    pairs = pairing(match="time", window_ms=20.0)
    pairs.announce(1, 0)
    pairs.announce(2, 10 * MS)
    assert numbers(pairs.frame(frame(2, 15), 16 * MS)) == [(1, MISMATCH), (2, MISMATCH)]
    pairs.announce(3, 50 * MS)
    assert numbers(pairs.frame(frame(3, 55), 56 * MS)) == [(3, "3")]


def test_a_sensor_fires_first_and_the_order_may_come_later() -> None:
    for match in ("exact", "time", "fifo"):
        pairs = pairing(fire="external", match=match, window_ms=20.0)
        assert pairs.frame(frame(1, 1, 41), 2 * MS) == []
        assert numbers(pairs.announce(1, 10 * MS)) == [(1, "1")]
        pairs.announce(2, 60 * MS)
        assert numbers(pairs.frame(frame(2, 61, 42), 62 * MS)) == [(2, "2")]


def test_a_part_that_nobody_announced_is_reported_all_the_same() -> None:
    pairs = pairing(fire="external", match="time", window_ms=20.0)
    pairs.frame(frame("x", 1), 2 * MS)
    assert pairs.expire(20 * MS) == []
    (outcome,) = pairs.expire(30 * MS)
    assert (outcome.number, outcome.reason) == (None, UNANNOUNCED)
    assert pairs.mismatch == ""
    exact = pairing(fire="external", match="exact", window_ms=20.0)
    exact.frame(frame("x", 1, 41), 2 * MS)
    assert [one.number for one in exact.expire(30 * MS)] == [None]
    assert "nobody announced" in exact.mismatch


def test_a_trigger_that_could_not_be_fired_waits_for_those_before_it() -> None:
    pairs = pairing()
    for number in (1, 2):
        pairs.announce(number, 0)
    pairs.fired(1, 1, 0)
    assert pairs.fail(2, "camera_lost", "unplugged") == []
    assert numbers(pairs.frame(frame(1, 1, 1), MS)) == [(1, "1"), (2, "camera_lost")]


def test_a_camera_without_counters_cannot_be_paired_exactly() -> None:
    pairs = pairing()
    pairs.announce(1, 0)
    assert numbers(pairs.frame(frame(1, 1), MS)) == [(1, MISMATCH)]
    assert "carry no trigger counter" in pairs.mismatch


# ---- everything at once --------------------------------------------------------------------


@dataclass
class World:
    """A belt of parts, a camera with faults, and the pairing that sees only what it would see."""

    match: str
    fire: str
    seed: int
    faults: float
    pairs: Pairing = field(init=False)
    settled: list[Outcome] = field(default_factory=list)
    announced: list[int] = field(default_factory=list)
    operations: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.pairs = pairing(match=self.match, fire=self.fire, window_ms=20.0, limit_ms=90.0)

    def run(self, parts: int) -> None:
        """Parts come every 45 ms or more; a frame is taken within 20 ms and comes when it comes."""
        events: list[tuple[float, int, str, int, float]] = []
        order = 0
        now_ms, arrival_ms, count = 0.0, 0.0, self.dice.randrange(1000)

        def add(at_ms: float, kind: str, number: int, captured_ms: float = 0.0) -> None:
            nonlocal order
            order += 1
            events.append((at_ms, order, kind, number, captured_ms))

        self.count_of: dict[int, int] = {}
        for number in range(1, parts + 1):
            now_ms += self.dice.uniform(45, 120)
            captured_ms = now_ms + self.dice.uniform(0, 15)
            count += 1
            self.count_of[number] = count
            # A sensor's part is announced a little before or after its picture.
            order_ms = now_ms if self.fire == "software" else now_ms + self.dice.uniform(0, 15)
            said = self.fire == "software" or self.dice.random() >= self.faults / 4
            if said:
                add(order_ms, "announce", number)
            taken = True
            if self.fire == "software":
                if self.dice.random() < self.faults / 4:
                    taken = False
                    add(order_ms + self.dice.uniform(0, 60), "fail", number)
                else:
                    add(order_ms + self.dice.uniform(0, 25), "fired", number)
            fault = self.dice.random()
            if taken and fault >= self.faults / 2:
                late = self.dice.random() < self.faults / 4
                came_ms = captured_ms + (self.dice.uniform(90, 300) if late else 1)
                arrival_ms = max(arrival_ms + 0.01, came_ms)  # a camera never overtakes itself
                add(arrival_ms, "frame", number, captured_ms)
                if self.dice.random() < self.faults / 8:
                    arrival_ms += 0.01
                    add(arrival_ms, "frame", number, captured_ms)
            if self.dice.random() < self.faults / 20:
                add(now_ms + self.dice.uniform(0, 40), "lost", 0)
            if self.dice.random() < self.faults / 3:
                add(now_ms + self.dice.uniform(0, 40), "resync", 0)
        at = 0.0
        while at < now_ms + 500:
            at += self.dice.uniform(1, 50)
            add(at, "expire", 0)
        for at_ms, _, kind, number, captured_ms in sorted(events):
            self._do(kind, number, round(at_ms * MS), captured_ms)

    def _do(self, kind: str, number: int, now_ns: int, captured_ms: float) -> None:
        self.operations += 1
        pairs = self.pairs
        if kind == "announce":
            self.announced.append(number)
            # The line counts what it is told; a part that nobody announced has no number.
            outcomes = pairs.announce(len(self.announced), now_ns)
        elif kind == "fired":
            outcomes = pairs.fired(number, self.count_of[number], now_ns)
        elif kind == "fail":
            outcomes = pairs.fail(number, "camera_lost", "")
        elif kind == "frame":
            shown = frame(number, captured_ms, self.count_of[number])
            outcomes = pairs.frame(shown, now_ns)
        elif kind == "lost":
            outcomes = pairs.give_up("camera_lost", "", now_ns)
        elif kind == "resync":
            outcomes = pairs.resync(now_ns)
        else:
            outcomes = pairs.expire(now_ns)
        self.settled += outcomes

    def check(self) -> tuple[int, int]:
        """(paired, all); raises when a trigger has no outcome, two, or another part's frame."""
        own = [one for one in self.settled if one.number is not None]
        assert [one.number for one in own] == list(range(1, len(self.announced) + 1))
        paired = [one for one in own if one.frame is not None]
        for one in paired:
            assert one.frame is not None
            assert one.number is not None
            assert one.frame.name == str(self.announced[one.number - 1])
        frames = [one.frame.name for one in self.settled if one.frame is not None]
        assert len(frames) == len(set(frames)), "one frame was given twice"
        return len(paired), len(own)


WAYS = [(match, fire) for match in ("exact", "time", "fifo") for fire in ("software", "external")]


@pytest.mark.parametrize(("match", "fire"), WAYS)
def test_a_world_without_faults_is_paired_in_full(match: str, fire: str) -> None:
    world = World(match, fire, seed=5, faults=0.0)
    world.run(300)
    assert world.check() == (300, 300)
    assert (world.pairs.mismatch, world.pairs.unclaimed) == ("", 0)


@settings(max_examples=150)
@given(
    way=st.sampled_from(WAYS), seed=st.integers(0, 2**32), faults=st.sampled_from([0.05, 0.3, 0.9])
)
def test_no_trigger_gets_another_parts_frame(
    way: tuple[str, str], seed: int, faults: float
) -> None:
    world = World(*way, seed=seed, faults=faults)
    world.run(60)
    world.check()


@pytest.mark.parametrize(("match", "fire"), WAYS)
def test_a_long_run_with_faults_pairs_what_can_be_paired(match: str, fire: str) -> None:
    world = World(match, fire, seed=20261126, faults=0.15)
    world.run(5000)
    paired, every = world.check()
    assert every >= 4700
    assert world.operations > 20_000
    # Nobody is served by a pairing that is right because it never pairs.
    heals_itself = match == "time" or (match, fire) == ("exact", "software")
    assert paired / every > (0.75 if heals_itself else 0.1)
