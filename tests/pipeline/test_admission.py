"""The two promises, under random interleavings and real threads."""

from __future__ import annotations

import random
import threading
from collections import Counter
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.pipeline.admission import SUPERSEDED, Admission
from skrd4ad.pipeline.records import Frame
from skrd4ad.pipeline.waiting import Seat

PATIENCE_S = 60.0


def frame(camera: str, seq: int) -> Frame:
    return Frame(
        camera=camera,
        camera_seq=seq,
        frame_id=seq,
        captured_ns=seq,
        captured_mono_ns=seq,
        captured_source="device",
        captured_error_ns=0,
        pixels=None,
    )


def play(mode: str, depth: int, limit: int, rounds: int, seed: int) -> None:
    """Random operations; after each one the books balance and the promises hold."""
    dice = random.Random(seed)
    seats = {"a": Seat("p", 3), "b": Seat("p", 3), "c": Seat("q", 2), "t": Seat("q", 2)}
    admission = Admission(mode, depth=depth, in_flight_limit=limit, seat_of=seats.__getitem__)
    cameras = ("a", "b", "c")
    in_line: dict[str, list[int]] = {name: [] for name in seats}  # the instants they wait since
    made: Counter[str] = Counter()
    turns: list[str] = []  # cameras by when they came or had their last turn
    newest: dict[str, int] = {}
    taken_order: list[tuple[str, int]] = []
    flying = []
    expected: list[int] = []  # triggered parts of camera "t" whose frames are still to come
    under_way = 0
    for step in range(rounds):
        choice = dice.random()
        if mode == "every" and choice < 0.1:
            announced = admission.announce(frame("t", made["t"] + 1).announced(), limit=4)
            assert announced == (under_way < 4)
            if announced:
                made["t"] += 1
                under_way += 1
                expected.append(made["t"])
        elif mode == "every" and choice < 0.2:
            if expected:
                # Never refused, however full the queue is: its place was kept.
                admission.deliver(frame("t", expected.pop(0)))
                in_line["t"].append(step)
                turns += [name for name in ("t",) if name not in turns]
        elif choice < 0.45:
            camera = dice.choice(cameras)
            accepted = admission.admit(frame(camera, made[camera] + 1))
            # One camera never takes another's room.
            assert accepted == (mode == "latest" or len(in_line[camera]) < depth)
            if accepted:
                made[camera] += 1
                newest[camera] = made[camera]
                turns += [name for name in (camera,) if name not in turns]
                if mode == "every" or not in_line[camera]:
                    in_line[camera].append(step)
        elif choice < 0.75:
            most = dice.randint(1, 4)
            tickets = admission.take(most)
            assert tickets is not None
            names = [ticket.frame.camera for ticket in tickets]
            heads = {name: since[0] for name, since in in_line.items() if since}
            assert bool(tickets) == (bool(heads) and len(flying) < limit)
            if tickets:
                plan, batch = seats[names[0]].plan, seats[names[0]].batch
                assert {seats[name].plan for name in names} == {plan}
                assert len(names) <= min(batch, most, limit - len(flying))
                # Who was served longest ago is first, and nobody has a second part before others
                # of the plan have one.
                assert names[0] == next(name for name in turns if name in heads)
                twice = [name for name in names if names.count(name) > 1]
                others = {name for name in heads if seats[name].plan == plan}
                assert not twice or others <= set(names)
            for ticket in tickets:
                turns.remove(ticket.frame.camera)
                turns.append(ticket.frame.camera)
                in_line[ticket.frame.camera].pop(0)
                taken_order.append((ticket.frame.camera, ticket.frame.camera_seq))
                if mode == "latest":
                    assert ticket.frame.camera_seq == newest[ticket.frame.camera]
            flying += tickets
        elif flying:
            ticket = flying.pop(dice.randrange(len(flying)))
            if mode == "latest" and dice.random() < 0.2:
                admission.drop_taken(ticket, "infer:stale")
            else:
                admission.settle(ticket)
                under_way -= ticket.frame.camera == "t"
        balance = admission.balance()
        assert balance.balanced, balance
        assert balance.admitted == sum(made.values())
        assert balance.in_flight == len(flying) <= limit
        assert balance.dropped_total == admission.dropped_total
        if mode == "every":
            assert balance.dropped == {}
            assert balance.waiting <= 3 * depth + 4
    for camera in (*cameras, "t"):
        own = [seq for name, seq in taken_order if name == camera]
        assert own == sorted(own)
        if mode == "every":
            assert own == list(range(1, len(own) + 1)), "a part was skipped"


@pytest.mark.parametrize("mode", ["every", "latest"])
def test_books_balance_over_fifty_thousand_random_operations(mode: str) -> None:
    # 2 x 50 000: with the checks after each one this is the 10^5 of the promise.
    play(mode, depth=3, limit=7, rounds=50_000, seed=20261124)


@settings(max_examples=40)
@given(
    mode=st.sampled_from(["every", "latest"]),
    depth=st.integers(1, 5),
    limit=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_books_balance_for_any_depth(mode: str, depth: int, limit: int, seed: int) -> None:
    play(mode, depth, limit, 200, seed)


@pytest.mark.parametrize("mode", ["every", "latest"])
def test_threads_lose_no_part(mode: str) -> None:
    admission = Admission(mode, depth=2, in_flight_limit=3)
    count, cameras = 400, ("a", "b")
    seen: list[tuple[str, int]] = []
    unbalanced: list[object] = []
    done = threading.Event()

    def capture(camera: str) -> None:
        for seq in range(1, count + 1):
            assert admission.admit(frame(camera, seq), timeout_s=None)

    def infer() -> None:
        while (tickets := admission.take(2, timeout_s=1.0)) is not None:
            for ticket in tickets:
                seen.append((ticket.frame.camera, ticket.frame.camera_seq))
                admission.settle(ticket)

    def audit() -> None:
        while not done.is_set():
            balance = admission.balance()
            if not balance.balanced:
                unbalanced.append(balance)

    captures = [threading.Thread(target=capture, args=(camera,)) for camera in cameras]
    others = [threading.Thread(target=infer), threading.Thread(target=audit)]
    for thread in (*captures, *others):
        thread.start()
    for thread in captures:
        thread.join(PATIENCE_S)
    admission.close()
    others[0].join(PATIENCE_S)
    done.set()
    others[1].join(PATIENCE_S)
    assert not unbalanced
    balance = admission.balance()
    assert (balance.admitted, balance.pending) == (count * len(cameras), 0)
    assert balance.results == len(seen) == balance.admitted - balance.dropped_total
    if mode == "every":
        for camera in cameras:
            assert [seq for name, seq in seen if name == camera] == list(range(1, count + 1))
    else:
        assert {seq for _, seq in seen} >= {count}


def test_full_queue_makes_the_camera_wait_until_a_part_is_taken() -> None:
    admission = Admission("every", depth=1)
    assert admission.admit(frame("a", 1))
    assert not admission.admit(frame("a", 2), timeout_s=0.01)
    admitted = threading.Event()

    def capture() -> None:
        assert admission.admit(frame("a", 2), timeout_s=None)
        admitted.set()

    thread = threading.Thread(target=capture)
    thread.start()
    assert not admitted.wait(0.05)
    assert admission.take() is not None
    assert admitted.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_newest_frame_wins_and_the_drop_has_stage_and_cause() -> None:
    admission = Admission("latest")
    for seq in (1, 2, 3):
        assert admission.admit(frame("a", seq))
    tickets = admission.take(5)
    assert tickets is not None
    assert [ticket.frame.camera_seq for ticket in tickets] == [3]
    assert admission.balance().dropped == {SUPERSEDED: 2}


def test_a_fast_camera_does_not_starve_a_slow_one() -> None:
    admission = Admission("latest")
    admission.admit(frame("slow", 1))
    admission.admit(frame("fast", 1))
    admission.admit(frame("fast", 2))
    order = []
    for _ in range(2):
        tickets = admission.take(1)
        assert tickets
        order.append(tickets[0].frame.camera)
        admission.admit(frame("fast", 9))
    assert order == ["slow", "fast"]


def test_a_batch_fills_for_so_long_and_no_longer(parts: ModuleType) -> None:
    hand = parts.HandClock()
    seat = Seat("p", batch=8, full=3)
    admission = Admission(
        "every", clock=hand.clock, seat_of=lambda camera: seat, batch_wait_ns=5_000_000
    )
    admission.admit(frame("a", 1))
    hand.advance_s(0.003)
    admission.admit(frame("b", 1))
    assert admission.take(8) == []
    hand.advance_s(0.0019)
    assert admission.take(8) == []
    hand.advance_s(0.0001)  # now the first has waited 5 ms
    assert [ticket.frame.camera for ticket in admission.take(8) or []] == ["a", "b"]
    for camera in "abc":
        admission.admit(frame(camera, 2))
    assert len(admission.take(8) or []) == 3, "a full batch does not wait"
    admission.admit(frame("a", 3))
    assert len(admission.take(1) or []) == 1, "nor one that takes all that is asked for"
    admission.admit(frame("a", 4))
    admission.close()
    assert len(admission.take(8) or []) == 1, "nor the last ones"


def test_a_full_batch_of_one_plan_does_not_wait_for_another(parts: ModuleType) -> None:
    hand = parts.HandClock()
    seats = {"slow": Seat("p", 4, full=2), "x": Seat("q", 2, full=2), "y": Seat("q", 2, full=2)}
    admission = Admission(
        "latest", clock=hand.clock, seat_of=seats.__getitem__, batch_wait_ns=5_000_000
    )
    for camera in ("slow", "x", "y"):
        admission.admit(frame(camera, 1))
        hand.advance_s(0.001)
    assert {ticket.frame.camera for ticket in admission.take(8) or []} == {"x", "y"}
    assert admission.take(8) == []
    hand.advance_s(0.002)
    assert [ticket.frame.camera for ticket in admission.take(8) or []] == ["slow"]


def test_the_wait_for_a_batch_ends_when_its_last_part_comes() -> None:
    seat = Seat("p", batch=2, full=2)
    admission = Admission("every", seat_of=lambda camera: seat, batch_wait_ns=60_000_000_000)
    admission.admit(frame("a", 1))
    taken: list[object] = []
    taker = threading.Thread(target=lambda: taken.append(admission.take(8, timeout_s=PATIENCE_S)))
    taker.start()
    admission.admit(frame("b", 1))
    taker.join(PATIENCE_S)
    assert not taker.is_alive()
    assert len(taken[0]) == 2  # type: ignore[arg-type]


def test_close_wakes_both_sides_and_what_waits_is_still_taken() -> None:
    admission = Admission("every", depth=1)
    admission.admit(frame("a", 1))
    answers: list[object] = []
    blocked = threading.Thread(
        target=lambda: answers.append(admission.admit(frame("a", 2), timeout_s=None))
    )
    blocked.start()
    admission.close()
    blocked.join(PATIENCE_S)
    assert answers == [False]
    tickets = admission.take(timeout_s=None)
    assert tickets
    assert len(tickets) == 1
    assert admission.take(timeout_s=None) is None


def test_every_never_drops_and_no_part_settles_twice() -> None:
    admission = Admission("every")
    admission.admit(frame("a", 1))
    tickets = admission.take()
    assert tickets
    with pytest.raises(ValueError, match="each admitted part gets a result"):
        admission.drop_taken(tickets[0], "infer:stale")
    admission.settle(tickets[0])
    with pytest.raises(RuntimeError, match="settled twice"):
        admission.settle(tickets[0])


def test_part_limit_closes_after_exactly_that_many() -> None:
    admission = Admission("every", depth=10, part_limit=3)
    assert [admission.admit(frame("a", seq)) for seq in range(1, 6)] == [True] * 3 + [False] * 2
    assert admission.closed


def test_a_triggered_part_is_accounted_for_from_its_trigger_on() -> None:
    admission = Admission("every")
    part = frame("a", 1).announced()
    assert admission.announce(part, limit=1)
    assert not admission.announce(frame("a", 2).announced(), limit=1)
    assert (admission.balance().admitted, admission.balance().pending) == (1, 1)
    admission.close()
    # The infer thread goes on waiting for the frame of a part that was promised a result.
    assert not admission.ended
    assert admission.take() == []
    admission.deliver(frame("a", 1))
    assert admission.ended
    with pytest.raises(RuntimeError, match="delivered twice"):
        admission.deliver(frame("a", 1))
    tickets = admission.take()
    assert tickets
    admission.settle(tickets[0])
    assert admission.take() is None
    assert admission.balance().balanced


def test_what_was_triggered_and_never_came_is_unsettled_too() -> None:
    admission = Admission("every")
    admission.announce(frame("a", 1).announced(), limit=2)
    (left,) = admission.unsettled()
    assert (left.frame.camera_seq, left.frame.failure, left.frame.pixels) == (1, "stopped", None)
    admission.settle(left)
    assert admission.balance().balanced
    with pytest.raises(ValueError, match="`every` mode"):
        Admission("latest").announce(frame("a", 1).announced(), limit=2)


def test_unsettled_hands_out_every_part_without_a_result_once() -> None:
    admission = Admission("every", depth=3)
    for seq in (1, 2, 3):
        admission.admit(frame("a", seq))
    admission.take(1)
    left = admission.unsettled()
    assert [ticket.frame.camera_seq for ticket in left] == [1, 2, 3]
    for ticket in left:
        admission.settle(ticket)
    balance = admission.balance()
    assert balance.balanced
    assert (balance.results, balance.pending) == (3, 0)
