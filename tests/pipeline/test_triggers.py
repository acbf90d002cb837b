"""Triggers and pictures: each trigger once, never a neighbour's picture, whatever gets lost."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.pipeline.capture.triggers import Trigger, TriggerLedger, frame_gap
from skrd4ad.pipeline.clock import Clock

MS = 1_000_000


@pytest.mark.parametrize(
    ("last", "now", "gap"),
    [(5, 6, 1), (5, 9, 4), (65535, 1, 1), (65534, 2, 3), (900, 1, 1), (70_000, 70_001, 1)],
)
def test_gaps_of_a_frame_counter(last: int, now: int, gap: int) -> None:
    assert frame_gap(last, now) == gap


def test_pictures_go_to_their_triggers_in_order(parts: ModuleType) -> None:
    hand = parts.HandClock()
    ledger = TriggerLedger(hand.clock)
    for number in range(3):
        assert ledger.note(f"p{number}").number == number + 1
        hand.advance_s(0.02)
    found = [ledger.match(65534 + n if n < 2 else 1, hand.now_ns, MS) for n in range(3)]
    assert [own.part_id for _, own in found if own] == ["p0", "p1", "p2"]
    assert ledger.pending == 0


def test_a_gap_in_the_counter_fails_the_triggers_it_swallowed(parts: ModuleType) -> None:
    hand = parts.HandClock()
    ledger = TriggerLedger(hand.clock)
    for _ in range(4):
        ledger.note(None)
    assert ledger.match(10, hand.now_ns, MS)[1].number == 1
    before, own = ledger.match(12, hand.now_ns, MS)
    assert ([one.number for one in before], own.number) == ([2], 3)
    assert before[0].failure == "no_frame"
    assert ledger.match(13, hand.now_ns, MS)[1].number == 4


def test_an_ignored_trigger_does_not_shift_the_pictures_after_it(parts: ModuleType) -> None:
    hand = parts.HandClock()
    ledger = TriggerLedger(hand.clock, spacing_s=0.02)
    ledger.note("ignored")  # and the camera does not count what it ignored
    hand.advance_s(0.05)
    ledger.note("seen")
    hand.advance_s(0.003)
    before, own = ledger.match(7, hand.now_ns, MS)
    assert [one.part_id for one in before] == ["ignored"]
    assert own.part_id == "seen"


def test_a_late_picture_is_not_the_next_triggers(parts: ModuleType) -> None:
    """Seen on a camera that was slow once: taken 25 ms after its trigger, just before the next."""
    hand = parts.HandClock()
    ledger = TriggerLedger(hand.clock, spacing_s=0.01)
    ledger.note("slow")
    hand.advance_s(0.026)
    ledger.note("next")
    taken_ns = hand.now_ns - MS // 5
    hand.advance_s(0.001)
    assert ledger.match(34, taken_ns, 10 * MS) == ([], None)
    hand.advance_s(0.002)
    before, own = ledger.match(35, hand.now_ns, 10 * MS)
    assert ([one.part_id for one in before], own.part_id) == (["slow"], "next")


def test_pictures_between_two_triggers_make_the_count_begin_anew(parts: ModuleType) -> None:
    """Seen on a camera that ignored its first trigger: orders every 25 ms, times exact to 10 ms.
    Each picture lay between two triggers from then on, and for hundreds of parts all were lost."""
    hand = parts.HandClock()
    ledger = TriggerLedger(hand.clock, answer_limit_s=0.5, spacing_s=0.01)
    left: list[Trigger] = []
    of_picture: dict[int, str | None] = {}
    taken = 0

    def order(name: str, *, ignored: bool = False) -> None:
        """The camera takes the picture 4 ms later."""
        nonlocal taken
        trigger = ledger.note(name)
        hand.advance_s(0.004)
        if not ignored and trigger.failure is None:
            taken += 1
            before, own = ledger.match(taken, hand.now_ns, 10 * MS)
            of_picture[taken] = None if own is None else own.part_id
            left.extend([*before, *([own] if own else [])])
        hand.advance_s(0.021)
        left.extend(ledger.overdue())

    order("p0", ignored=True)
    for number in range(1, 60):
        order(f"p{number}")
    hand.advance_s(1)
    left.extend(ledger.overdue())
    assert [one.part_id for one in left] == [f"p{number}" for number in range(60)]
    # Three pictures to notice, half a second of silence, and all is well.
    assert [of_picture[number] for number in (1, 2, 3)] == [None] * 3
    good = [one for one in left if one.failure is None]
    assert [one.part_id for one in good] == [f"p{number}" for number in range(23, 60)]
    assert {one.failure for one in left[4:23]} == {"missed_trigger"}
    assert of_picture[4] == "p23"


def test_a_picture_that_comes_after_its_trigger_was_given_up_is_nobodys(parts: ModuleType) -> None:
    hand = parts.HandClock()
    ledger = TriggerLedger(hand.clock, answer_limit_s=0.5)
    ledger.note("slow")
    taken_ns = hand.now_ns + 5 * MS
    hand.advance_s(0.6)
    assert [one.part_id for one in ledger.overdue()] == ["slow"]
    ledger.note("next")
    assert ledger.match(3, taken_ns, MS) == ([], None)
    assert ledger.strays == 1
    hand.advance_s(0.01)
    assert ledger.match(4, hand.now_ns, MS)[1].part_id == "next"


def test_a_trigger_that_comes_too_soon_fails_at_once_and_in_its_turn(parts: ModuleType) -> None:
    hand = parts.HandClock()
    ledger = TriggerLedger(hand.clock, spacing_s=0.1)
    ledger.note("first")
    hand.advance_s(0.05)
    early = ledger.note("early")
    assert early.failure == "missed_trigger"
    assert "50.0 ms after" in early.detail
    assert ledger.overdue() == [], "the first one may still get its picture"
    hand.advance_s(0.01)
    assert ledger.match(1, hand.now_ns, MS)[1].part_id == "first"
    assert [one.part_id for one in ledger.overdue()] == ["early"]


def test_a_lost_camera_fails_all_that_waits(parts: ModuleType) -> None:
    ledger = TriggerLedger(parts.HandClock().clock)
    for _ in range(3):
        ledger.note(None)
    ledger.fail_all("no_frame", "gone")
    assert [(one.number, one.detail) for one in ledger.overdue()] == [
        (n, "gone") for n in (1, 2, 3)
    ]


FATES = ("good", "late", "lost", "ignored", "too late")


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(FATES), st.integers(20, 80)), max_size=60))
def test_every_trigger_leaves_once_in_order_and_only_with_its_own_picture(
    plan: list[tuple[str, int]],
) -> None:
    """Triggers at least one spacing apart (ms); pictures lost, ignored, late or too late."""
    now = [1_000_000_000]
    clock = Clock(wall_ns=lambda: now[0], mono_ns=lambda: now[0])
    ledger = TriggerLedger(clock, answer_limit_s=0.3, spacing_s=0.02)
    arrivals: list[tuple[int, int, int, int]] = []
    frame_id, left = 65_500, []
    answered: list[tuple[int, int | None]] = []

    def settle(failed: list[Trigger]) -> None:
        assert all(one.failure for one in failed)
        answered.extend((one.number, None) for one in failed)

    def run_until(end_ns: int) -> None:
        while arrivals and min(arrivals)[0] <= end_ns:
            arrival = min(arrivals)
            arrivals.remove(arrival)
            now[0], identity, captured_ns, number = arrival
            settle(ledger.overdue())
            before, own = ledger.match(identity, captured_ns, MS // 2)
            settle(before)
            if own is not None:
                answered.append((own.number, number))
        now[0] = end_ns
        settle(ledger.overdue())

    for fate, gap_ms in plan:
        trigger = ledger.note(None)
        left.append(trigger.number)
        captured_ns = now[0] + 5 * MS
        if fate != "ignored":
            frame_id = frame_id % 65_535 + 1
            delay_ms = {"good": 10, "late": 150, "too late": 400}.get(fate)
            if delay_ms is not None:
                # A network keeps the order of what one camera sends.
                due = max([now[0] + delay_ms * MS, *(one[0] + 1 for one in arrivals)])
                arrivals.append((due, frame_id, captured_ns, trigger.number))
        run_until(now[0] + gap_ms * MS)
    run_until(now[0] + 5_000 * MS)
    assert [number for number, _ in answered] == left
    assert all(shown in (None, number) for number, shown in answered)
    assert ledger.pending == 0
