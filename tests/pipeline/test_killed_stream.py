"""A stream that is killed or stopped at random moments, again and again, on one journal: what was
published is stored, no part has two results, and none that the journal knows of is missing one."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from skrd4ad.errors import SkrdError
from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.journal import Journal, JournalSettings
from skrd4ad.pipeline.journal_store import JournalStore
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import ResultMessage, decode

PATIENCE_S = 60.0


@dataclass
class Life:
    """One process, from READY to its end, and what the outside saw of it."""

    ended_by: signal.Signals
    boot: str = ""
    seen: dict[int, str] = field(default_factory=dict)
    """seq -> part id, of the results a subscriber received."""
    promised: dict[int, str] = field(default_factory=dict)
    """Trigger number -> part id, of the orders that were answered with a number."""


def live(
    streams: ModuleType,
    folder: Path,
    plan: Path,
    number: int,
    moment_s: float,
    end: signal.Signals,
) -> Life:
    """Start a stream with a triggered camera and a running one, feed it, end it at a moment."""
    station = folder / "station.yaml"
    station.write_text(
        f"""
plan: {plan}
cameras:
- {{name: orders, uri: "test:size=64,bank=2,trigger=true,lose=0.1,delay_ms=2"}}
- {{name: belt, uri: "test:size=64,bank=2,rate=100"}}
publish:
  control: tcp://127.0.0.1:0
  journal: {{path: {folder}/journal.sqlite3, min_free_mb: 0}}
"""
    )
    life, over = Life(end), threading.Event()

    def listen(endpoint: str) -> None:
        with Subscriber(endpoint) as events:
            while not over.is_set():
                item = events.receive(0.05)
                if isinstance(item, ResultMessage):
                    life.seen[item.header.seq] = str(item.header.part.id)

    def give_orders(control: str) -> None:
        count = 0
        with ControlClient(control, patience_s=1.0) as client:
            while not over.is_set():
                name = f"life{number}-{count}"
                try:
                    life.promised[client.trigger(name, "orders")] = name
                except SkrdError:  # too many under way, ending, or dead
                    time.sleep(0.002)
                else:
                    count += 1

    with streams.running("--station", station) as line:
        life.boot = line.ready["boot"]
        outside = [
            threading.Thread(target=listen, args=(line.ready["events"],)),
            threading.Thread(target=give_orders, args=(line.ready["control"],)),
        ]
        for thread in outside:
            thread.start()
        try:
            time.sleep(moment_s)
            line.process.send_signal(end)
            code = 0 if end == signal.SIGTERM else -end
            assert line.process.wait(PATIENCE_S) == code
            time.sleep(0.1)  # what was sent before may still be on its way to the subscriber
        finally:
            over.set()
            for thread in outside:
                thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in outside)
    return life


def check(folder: Path, lives: list[Life]) -> tuple[int, int]:
    """(results in the journal, results seen outside); raises where one is missing or twice."""
    settings = JournalSettings(path=str(folder / "journal.sqlite3"), min_free_mb=0.0)
    journal = Journal(settings)
    opening = journal.open()
    assert opening.set_aside is None
    assert journal.close(PATIENCE_S)
    store = JournalStore(Path(settings.path), read_only=True)
    first, last = store.span()
    messages = []
    while first <= last:
        page = store.page(first, last)
        messages += [decode(parts) for parts in page]
        first = messages[-1].header.seq + 1
    store.close()
    assert [one.header.seq for one in messages] == list(range(1, last + 1)), "a number is missing"
    results = [one.header for one in messages if isinstance(one, ResultMessage)]
    stored = {header.seq: header for header in results}
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    orders: dict[str, dict[int, str]] = defaultdict(dict)
    for header in results:
        numbers[header.boot, header.cam].append(header.cam_seq)
        if header.cam == "orders":
            assert header.part.trigger_seq not in orders[header.boot], "two results for one order"
            orders[header.boot][header.part.trigger_seq] = str(header.part.id)
    for own in numbers.values():
        assert own == list(range(1, len(own) + 1)), "a part is missing, twice or out of order"
    names = [name for own in orders.values() for name in own.values()]
    assert len(names) == len(set(names))
    for life in lives:
        for seq, part_id in life.seen.items():
            assert str(stored[seq].part.id) == part_id, "published and not stored"
        known = orders[life.boot]
        for trigger, name in life.promised.items():
            assert known.get(trigger, name) == name
            if life.ended_by == signal.SIGTERM:
                assert trigger in known, "an order was answered and never came to a result"
    return len(results), sum(len(life.seen) for life in lives)


def live_often(
    streams: ModuleType, folder: Path, plan: Path, seed: int, ends: list[signal.Signals]
) -> str:
    dice = random.Random(seed)
    lives = [
        live(streams, folder, plan, number, dice.uniform(0.0, 1.2), end)
        for number, end in enumerate(ends)
    ]
    stored, seen = check(folder, lives)
    orders = sum(len(life.promised) for life in lives)
    assert orders
    assert seen
    return f"{len(ends)} ends: {stored} results stored, {seen} seen outside, {orders} orders"


def test_a_killed_and_a_stopped_stream_leave_a_journal_that_agrees(
    streams: ModuleType, tiny_plan: Path, tmp_path: Path
) -> None:
    ends = [signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]
    live_often(streams, tmp_path, tiny_plan, 26, ends)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_fifty_ends_at_random_moments(streams: ModuleType, tiny_plan: Path, tmp_path: Path) -> None:
    dice = random.Random(50)
    ends = [dice.choice([signal.SIGKILL, signal.SIGTERM]) for _ in range(50)]
    print(live_often(streams, tmp_path, tiny_plan, 51, ends))
