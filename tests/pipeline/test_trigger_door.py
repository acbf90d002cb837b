"""The door and the admission behind it under random interleavings, with a clock turned by hand:
admitted = results + dropped + pending after every single operation."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.errors import CameraError
from skrd4ad.pipeline.admission import Admission, Ticket
from skrd4ad.pipeline.capture.base import frame_of
from skrd4ad.pipeline.clock import SYSTEM_CLOCK
from skrd4ad.pipeline.control_port import ControlRefused
from skrd4ad.pipeline.outlet import Alarm
from skrd4ad.pipeline.pairing import TriggerSettings
from skrd4ad.pipeline.records import Announced, Frame, Part
from skrd4ad.pipeline.trigger_door import Refused, TriggerDoor

PIXELS = np.zeros((2, 2, 3), np.uint8)
UNDER_WAY = 5


class Play:
    """A camera, a door, an admission and an infer thread, one operation at a time."""

    def __init__(self, parts: ModuleType, match: str, fire: str, seed: int) -> None:
        self.dice = random.Random(seed)
        self.hand = parts.HandClock(10**9)
        self.announced: list[Announced] = []
        self.refused: list[Refused] = []
        self.alarms: list[Alarm] = []
        self.admission = Admission(
            "every", depth=2, clock=self.hand.clock, on_admitted=self.announced.append
        )
        window_ms = None if match == "exact" and fire == "software" else 40.0
        self.door = TriggerDoor(
            "cam",
            TriggerSettings(
                fire=fire, match=match, limit_ms=100.0, window_ms=window_ms, under_way=UNDER_WAY
            ),
            self.admission,
            self.hand.clock,
            self._fire,
            self.alarms.append,
            self.refused.append,
        )
        self.answered: list[int] = []
        self.flying: list[Ticket] = []
        self.settled: list[Frame] = []
        self.count = 0
        self.pictures: list[tuple[int, int]] = []
        """(the camera's counter, when it was taken) of pictures on their way."""

    def _fire(self, part_id: str | None) -> int:
        if self.dice.random() < 0.05:
            raise CameraError("no answer")
        return self._expose()

    def _expose(self) -> int:
        self.count += 1
        if self.dice.random() > 0.1:
            self.pictures.append((self.count, self.hand.now_ns))
        return self.count

    # ---- operations ------------------------------------------------------------------------

    def order(self) -> None:
        if self.door.settings.fire == "external" and self.dice.random() < 0.9:
            self._expose()
        try:
            self.answered.append(self.door.trigger(f"A-{len(self.announced)}"))
        except ControlRefused as refusal:
            stuck = "does not take its triggers" in refusal.sentence  # given up, not yet fired
            assert stuck or self.under_way >= UNDER_WAY

    def fire(self) -> None:
        self.door.fire_next(wait=False)

    def picture(self) -> None:
        if not self.pictures:
            return
        count, taken_ns = self.pictures.pop(0)
        if self.dice.random() < 0.03:
            self.pictures.insert(0, (count, taken_ns))  # and once more
        self.door.admit(
            Frame(
                camera="cam",
                camera_seq=0,
                frame_id=count,
                captured_ns=taken_ns,
                captured_mono_ns=taken_ns,
                captured_source="device",
                captured_error_ns=0,
                pixels=PIXELS,
                part=Part(trigger_seq=count),
            )
        )

    def foreign(self) -> None:
        if self.dice.random() < 0.02:
            self._expose()

    def take(self) -> None:
        tickets = self.admission.take(self.dice.randint(1, 3))
        self.flying += tickets or []

    def settle(self) -> None:
        if self.flying:
            ticket = self.flying.pop(self.dice.randrange(len(self.flying)))
            self.admission.settle(ticket)
            self.settled.append(ticket.frame)

    def expire(self) -> None:
        self.door.expire()

    def camera(self) -> None:
        if self.dice.random() < 0.1:
            self.door.camera_is(self.dice.random() < 0.7, "unplugged")

    def resync(self) -> None:
        if self.dice.random() < 0.1:
            self.door.resync()

    def run(self, operations: int) -> None:
        self.door.camera_is(True, "")
        choices: list[Callable[[], None]] = [
            *[self.order] * 4, *[self.fire] * 4, *[self.picture] * 4, *[self.take] * 4,
            *[self.settle] * 6, self.foreign, self.expire, self.camera, self.resync,
        ]  # fmt: skip
        for _ in range(operations):
            self.hand.now_ns += self.dice.randint(0, 6_000_000)
            self.dice.choice(choices)()
            self.check()

    @property
    def under_way(self) -> int:
        balance = self.admission.balance()
        return balance.waiting + balance.in_flight

    def check(self) -> None:
        balance = self.admission.balance()
        assert balance.balanced, balance
        assert balance.admitted == len(self.announced)
        assert balance.results == len(self.settled)
        assert balance.dropped == {}, "`every` never drops"
        unannounced = len(self.announced) - len(self.answered)
        assert self.under_way <= UNDER_WAY + unannounced

    def end(self) -> None:
        self.admission.close()
        self.door.stop()
        assert self.admission.ended
        while (tickets := self.admission.take(4)) is not None:
            self.flying += tickets
            while self.flying:
                self.settle()
        while self.flying:
            self.settle()
        self.check()
        assert self.admission.balance().pending == 0


WAYS = [(match, fire) for match in ("exact", "time", "fifo") for fire in ("software", "external")]


def play(parts: ModuleType, match: str, fire: str, seed: int, operations: int) -> Play:
    game = Play(parts, match, fire, seed)
    game.run(operations)
    game.end()
    by_number = Counter(
        frame.part.trigger_seq for frame in game.settled if frame.part.source != "camera"
    )
    # Whoever was answered with a number has one result, and nobody else has any.
    assert by_number == Counter(game.answered)
    assert game.answered == list(range(1, len(game.answered) + 1))
    # Parts enter in the order of their numbers, without a gap, and keep their names.
    assert [part.camera_seq for part in game.announced] == list(range(1, len(game.announced) + 1))
    names = {part.camera_seq: part.part.part_id for part in game.announced}
    for frame in game.settled:
        assert frame.part.part_id == names[frame.camera_seq]
        assert (frame.pixels is None) == (frame.failure is not None)
    actives = [alarm.active for alarm in game.alarms]
    assert actives == [n % 2 == 0 for n in range(len(actives))], "an alarm was said twice"
    return game


@pytest.mark.parametrize(("match", "fire"), WAYS)
def test_the_books_balance_over_random_interleavings(
    parts: ModuleType, match: str, fire: str
) -> None:
    # Six ways: 10^5 operations, each with all of its checks.
    game = play(parts, match, fire, seed=20261126, operations=17_000)
    assert len(game.answered) > 1000
    assert game.refused


@settings(max_examples=60)
@given(way=st.sampled_from(WAYS), seed=st.integers(0, 2**32))
def test_the_books_balance_for_any_seed(parts: ModuleType, way: tuple[str, str], seed: int) -> None:
    play(parts, *way, seed=seed, operations=150)


def test_without_anything_wrong_every_part_has_its_picture(parts: ModuleType) -> None:
    game = Play(parts, "exact", "software", seed=1)
    game.dice.random = lambda: 0.99  # type: ignore[method-assign]  # no fault ever happens
    game.door.camera_is(True, "")
    for _ in range(50):
        game.order()
        game.fire()
        game.picture()
        game.take()
        game.settle()
        game.check()
    game.end()
    assert all(frame.pixels is not None for frame in game.settled)
    assert len(game.settled) == 50


def test_a_driver_that_holds_a_trigger_is_left_behind_and_the_next_ones_are_fired(
    parts: ModuleType,
) -> None:
    hand, fired, release = parts.HandClock(10**9), [], threading.Event()

    def fire(part_id: str | None) -> int:
        if part_id == "A-1":
            assert release.wait(60)
        fired.append(part_id)
        return len(fired)

    admission = Admission("every", clock=hand.clock)
    door = TriggerDoor(
        "cam", TriggerSettings(limit_ms=500.0), admission, hand.clock, fire, lambda alarm: None
    )
    door.camera_is(True, "")
    door.start()
    assert door.trigger("A-1") == 1
    deadline = time.monotonic() + 30
    while door.firing is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    hand.advance_s(1)
    door.expire()
    assert [one.frame.failure for one in admission.take() or []] == ["no_frame"]
    hand.advance_s(10)
    door.expire()
    assert door.trigger("A-2") == 2
    while fired != ["A-2"]:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    release.set()
    door.stop()


def test_threads_at_the_door_lose_no_part(parts: ModuleType) -> None:
    """Two controllers, a camera, a supervisor with a finger on resync, and the infer thread."""
    ready: deque[int] = deque()
    counter, over = itertools.count(1), threading.Event()

    def fire(part_id: str | None) -> int:
        number = next(counter)
        if number % 13:
            ready.append(number)
        return number

    admission = Admission("every")
    door = TriggerDoor(
        "cam",
        TriggerSettings(limit_ms=50.0, under_way=6),
        admission,
        SYSTEM_CLOCK,
        fire,
        lambda alarm: None,
    )
    door.camera_is(True, "")
    door.start()
    answered: list[int] = []
    settled: list[int | None] = []
    unbalanced: list[object] = []

    def controller() -> None:
        while len(answered) < 1500:
            try:
                answered.append(door.trigger(None))
            except ControlRefused:
                time.sleep(0.0002)

    def camera() -> None:
        while not door.closed or ready:
            if not ready:
                time.sleep(0.0002)
                continue
            count, now_ns = ready.popleft(), time.monotonic_ns()
            picture = parts.shot(count, size=2)
            door.admit(
                frame_of(
                    replace(picture, part=Part(trigger_seq=count), captured_mono_ns=now_ns),
                    "cam",
                    0,
                )
            )

    def supervisor() -> None:
        while not over.is_set():
            door.expire()
            if door.mismatch or random.random() < 0.02:
                door.resync()
            if not admission.balance().balanced:
                unbalanced.append(admission.balance())
            time.sleep(0.0005)

    def infer() -> None:
        while (tickets := admission.take(4, timeout_s=1.0)) is not None:
            for ticket in tickets:
                settled.append(ticket.frame.part.trigger_seq)
                admission.settle(ticket)

    threads = [threading.Thread(target=one) for one in (controller, controller, camera, infer)]
    watching = threading.Thread(target=supervisor)
    for thread in (*threads, watching):
        thread.start()
    for thread in threads[:2]:
        thread.join(60)
    admission.close()
    door.stop()
    for thread in threads[2:]:
        thread.join(60)
    over.set()
    watching.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert unbalanced == []
    assert sorted(answered) == list(range(1, len(answered) + 1))
    # Every number has one result, and they left in the order of the numbers.
    assert settled == sorted(answered)
    assert admission.balance().pending == 0
