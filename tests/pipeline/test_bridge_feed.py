"""What all bridges share: a bounded queue, a circuit breaker, and a far side that may be dead."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

from skrd4ad.pipeline.bridges.feed import Feed
from skrd4ad.pipeline.bridges.uplink import CircuitBreaker, UplinkLost
from skrd4ad.pipeline.clock import Clock
from skrd4ad.pipeline.subscriber import Replayed, Subscriber


class FarSide:
    """An uplink that can be switched off, and remembers what it was given."""

    name = "far side"
    needs_box = True

    def __init__(self) -> None:
        self.up = True
        self.received: list[int] = []
        self.in_flight: list[Any] = []
        self.opened = 0
        self.closed = 0

    def open(self, view: Any) -> None:
        self.opened += 1
        if not self.up:
            raise UplinkLost("switched off")

    def send(self, entry: Any) -> None:
        if not self.up:
            raise UplinkLost("switched off")
        message = entry.message if isinstance(entry, Replayed) else entry
        self.received.append(message.header.seq)

    def tick(self, view: Any, dropped: int) -> None:
        if not self.up:
            raise UplinkLost("switched off")

    def undelivered(self) -> list[Any]:
        return []

    def close(self) -> None:
        self.closed += 1


def bridge_to_far_side(parts: ModuleType, box: Any, limit: int = 10_000) -> Any:
    running = parts.RunningBridge(Feed(Subscriber(box.events), limit), FarSide())
    box.wait_for_clients(1)
    return running


def test_everything_reaches_the_far_side_in_order(box: Any, box_parts: ModuleType) -> None:
    bridge = bridge_to_far_side(box_parts, box)
    box.send(*[box_parts.result(n) for n in range(1, 101)])
    box_parts.wait_for(lambda: len(bridge.uplink.received) == 100)
    bridge.close()
    assert bridge.uplink.received == list(range(2, 102))
    assert (bridge.feed.dropped, bridge.uplink.opened, bridge.uplink.closed) == (0, 1, 1)


def test_while_the_far_side_is_dead_the_newest_wait_the_oldest_are_dropped_and_the_box_is_not_held(
    box: Any, box_parts: ModuleType
) -> None:
    bridge = bridge_to_far_side(box_parts, box, limit=50)
    box.send(box_parts.result(1))
    box_parts.wait_for(lambda: bridge.uplink.received == [2])
    bridge.uplink.up = False
    box_parts.wait_for(lambda: bridge.breaker.failures > 0)
    for first in range(2, 1002, 200):
        # More at once than the box's queue holds would be lost by a busy machine.
        box.send(*[box_parts.result(n) for n in range(first, first + 200)])
        box_parts.wait_for(lambda: bridge.feed.view().status.last_seq == first + 200)  # noqa: B023
    box_parts.wait_for(lambda: bridge.feed.dropped == 950)
    assert bridge.feed.waiting == 50
    assert bridge.feed.view().status.contiguous
    assert bridge.feed.view().status.last_seq == 1002
    assert box.slowest_send_s < 1.0
    bridge.uplink.up = True
    box_parts.wait_for(lambda: len(bridge.uplink.received) == 51)
    bridge.close()
    assert bridge.uplink.received == [2, *range(953, 1003)]
    assert bridge.uplink.opened >= 2


def test_a_dead_far_side_is_tried_ever_more_rarely_and_soon_again_after_it_was_well() -> None:
    now = [0]
    clock = Clock(wall_ns=lambda: now[0], mono_ns=lambda: now[0])
    breaker = CircuitBreaker(first_s=1.0, limit_s=8.0, healthy_s=10.0, clock=clock)
    assert breaker.allows()
    pauses = []
    for _ in range(6):
        pause_s = breaker.failed()
        pauses.append(pause_s)
        now[0] += int(pause_s * 1e9) - 1_000_000
        assert not breaker.allows()
        now[0] += 1_000_001
        assert breaker.allows()
    assert all(
        top / 2 <= pause <= top for pause, top in zip(pauses, (1, 2, 4, 8, 8, 8), strict=True)
    )
    breaker.succeeded()
    now[0] += 11_000_000_000
    assert breaker.failed() <= 1.0
    assert breaker.failures == 7


def test_an_event_that_failed_is_delivered_after_the_pause_and_before_the_next_ones(
    box: Any, box_parts: ModuleType
) -> None:
    bridge = bridge_to_far_side(box_parts, box)
    box.send(box_parts.result(1))
    box_parts.wait_for(lambda: bridge.uplink.received == [2])
    bridge.uplink.up = False
    box.send(box_parts.result(2), box_parts.result(3))
    box_parts.wait_for(lambda: bridge.breaker.failures > 1)
    bridge.uplink.up = True
    box_parts.wait_for(lambda: bridge.uplink.received == [2, 3, 4])
    bridge.close()


def test_the_view_trusts_a_running_box_and_nothing_else(box: Any, box_parts: ModuleType) -> None:
    feed = Feed(Subscriber(box.events))
    feed.start()

    def trusted() -> bool:
        return feed.view().trusted(time.monotonic_ns())

    assert not trusted()
    box_parts.wait_for(trusted)
    assert feed.view().box == "edge07"
    assert not feed.view().trusted(time.monotonic_ns() + 10**9)  # the reading thread hangs
    box.lose(3)
    box_parts.wait_for(lambda: feed.view().status.missing == 3)
    assert not trusted()
    feed.acknowledge_losses()
    box_parts.wait_for(trusted)
    box.fall_silent()
    box_parts.wait_for(lambda: not trusted())
    assert not feed.view().heard(time.monotonic_ns())
    box.speak_again()
    box_parts.wait_for(trusted)
    box.do(lambda: box.publisher.send_state("DEGRADED"))
    box_parts.wait_for(lambda: not trusted())
    feed.stop()


def test_lost_events_are_fetched_and_marked(tmp_path: Any, box_parts: ModuleType) -> None:
    box = box_parts.Box(journal=tmp_path / "journal.db")
    feed = Feed(Subscriber(box.events, replay=box.publisher.replay_endpoint))
    feed.start()
    box.wait_for_clients(1)
    box.send(box_parts.result(1))
    box.send_unheard(box_parts.result(2))
    box.send(box_parts.result(3))
    taken: list[Any] = []
    box_parts.wait_for(lambda: taken.append(feed.take(0.05)) or _count(taken) == 3)
    entries = [entry for entry in taken if entry is not None]
    late = [entry for entry in entries if isinstance(entry, Replayed)]
    assert [entry.message.header.seq for entry in late] == [3]
    assert feed.view().status.contiguous
    feed.stop()
    box.close()


def _count(taken: list[Any]) -> int:
    return sum(entry is not None for entry in taken)
