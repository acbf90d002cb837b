"""The journal: nothing lost by a crash, nothing held up by a disk, numbers never go backwards."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from skrd4ad.errors import ConfigError
from skrd4ad.pipeline import wire
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.journal import Journal, JournalSettings
from skrd4ad.pipeline.journal_store import JournalStore
from skrd4ad.pipeline.journal_tail import SLOT_BYTES, SLOTS, JournalTail

PATIENCE_S = 60.0
DAY_NS = 86_400 * 1_000_000_000


def event(seq: int, t_ns: int = 0, text: str = "") -> list[bytes]:
    return wire.encode_state(
        fields.StateHeader(
            v="1.0",
            box="edge07",
            boot="a" * 16,
            seq=seq,
            t=t_ns or time.time_ns(),
            mono=0,
            state="RUNNING",
            previous="RUNNING",
            text=text,
        )
    )


def settings(folder: Path, **changes: object) -> JournalSettings:
    chosen = {"path": str(folder / "journal.sqlite3"), "min_free_mb": 0.0} | changes
    return JournalSettings(**chosen)  # type: ignore[arg-type]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def wait_for_alarm(journal: Journal) -> str:
    """The name of the first alarm that starts."""
    started: list[str] = []
    wait_until(
        lambda: bool(started.extend(a.name for a in journal.alarms() if a.active) or started)
    )
    return started[0]


def stored(folder: Path, first: int = 0, last: int = 2**62) -> list[list[bytes]]:
    store = JournalStore(folder / "journal.sqlite3", read_only=True)
    try:
        return store.page(first, last, 100_000)
    finally:
        store.close()


def test_events_come_back_byte_for_byte_and_in_order(tmp_path: Path) -> None:
    journal = Journal(settings(tmp_path))
    assert journal.open().next_seq == 1
    events = [event(seq) for seq in range(1, 1201)]
    for seq, parts in enumerate(events, 1):
        journal.append(seq, parts)
    assert journal.close()
    assert stored(tmp_path) == events
    assert stored(tmp_path, 5, 7) == events[4:7]
    assert journal.alarms() == []


def test_numbers_go_on_after_a_clean_end(tmp_path: Path) -> None:
    for start in (1, 11, 21):
        journal = Journal(settings(tmp_path))
        opening = journal.open()
        assert (opening.next_seq, opening.recovered) == (start, 0)
        for seq in range(start, start + 10):
            journal.append(seq, event(seq))
        assert journal.close()


CRASH = """
import os, signal, sys
from skrd4ad.pipeline.journal import Journal, JournalSettings
from skrd4ad.pipeline import wire, wire_messages as fields
journal = Journal(JournalSettings(path=sys.argv[1], min_free_mb=0.0))
start = journal.open().next_seq
for seq in range(start, start + 700):
    parts = wire.encode_state(fields.StateHeader(v="1.0", box="edge07", boot="a" * 16, seq=seq,
        t=1, mono=0, state="RUNNING", previous="RUNNING"))
    journal.append(seq, parts)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_right_after_publishing_loses_nothing(tmp_path: Path) -> None:
    for run in range(3):
        path = str(tmp_path / "journal.sqlite3")
        killed = subprocess.run([sys.executable, "-c", CRASH, path], timeout=PATIENCE_S)
        assert killed.returncode == -9
        journal = Journal(settings(tmp_path))
        opening = journal.open()
        assert opening.next_seq == 700 * (run + 1) + 1
        assert journal.close()
        assert len(stored(tmp_path)) == 700 * (run + 1)


def test_a_power_cut_leaves_a_visible_gap_instead_of_using_a_number_twice(tmp_path: Path) -> None:
    journal = Journal(settings(tmp_path))
    journal.open()
    journal.append(1, event(1))
    assert journal.close()
    store = JournalStore(tmp_path / "journal.sqlite3")
    store.store_fact("open", "the boot before the power cut")
    store.close()
    journal = Journal(settings(tmp_path))
    assert journal.open().next_seq == 10_002
    journal.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "foreign"])
def test_a_damaged_journal_is_set_aside_and_numbers_go_on(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(settings(tmp_path))
    journal.open()
    for seq in range(1, 301):
        journal.append(seq, event(seq))
    assert journal.close()
    raw = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(raw[:100] + os.urandom(len(raw) - 100))
    elif damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    else:
        path.unlink()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE somebody_elses (x)")
        connection.close()
    damaged = path.read_bytes()
    journal = Journal(settings(tmp_path))
    opening = journal.open()
    assert opening.set_aside is not None
    assert opening.set_aside.read_bytes() == damaged
    assert opening.next_seq > 300
    assert [alarm.name for alarm in journal.alarms() if alarm.active] == ["journal_set_aside"]
    journal.append(opening.next_seq, event(opening.next_seq))
    assert journal.close()
    assert stored(tmp_path)[-1] == event_of(stored(tmp_path), opening.next_seq)


def event_of(events: list[list[bytes]], seq: int) -> list[bytes]:
    return next(parts for parts in events if wire.decode(parts).header.seq == seq)


def test_a_second_process_cannot_use_the_same_journal(tmp_path: Path) -> None:
    journal = Journal(settings(tmp_path))
    journal.open()
    with pytest.raises(ConfigError, match="in use by another process"):
        Journal(settings(tmp_path)).open()
    journal.close()
    again = Journal(settings(tmp_path))
    again.open()
    again.close()


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Journal(settings(tmp_path / "file")).open()


def test_a_disk_that_refuses_raises_the_alarm_and_is_caught_up_with_later(tmp_path: Path) -> None:
    journal = Journal(settings(tmp_path))
    journal.open()
    assert journal._store is not None
    # SQLite's own limit on the file's pages gives the very error of a full disk.
    pages = journal._store._connection.execute("PRAGMA page_count").fetchone()[0]
    journal._store._connection.execute(f"PRAGMA max_page_count={pages}")
    begun = time.monotonic()
    for seq in range(1, 501):
        journal.append(seq, event(seq, text="x" * 400))
    assert time.monotonic() - begun < 1.0
    assert wait_for_alarm(journal) == "journal_failed"
    assert journal.committed_seq < 500
    journal._store._connection.execute("PRAGMA max_page_count=1000000")
    wait_until(lambda: journal.committed_seq == 500)
    over = [(alarm.name, alarm.active) for alarm in journal.alarms()]
    assert over == [("journal_failed", False)]
    assert journal.close()
    assert len(stored(tmp_path)) == 500


def test_retention_by_count_days_and_size(tmp_path: Path) -> None:
    store = JournalStore(tmp_path / "journal.sqlite3")
    now_ns = 100 * DAY_NS
    store.append((seq, event(seq, now_ns - (1000 - seq) * DAY_NS // 10)) for seq in range(1, 1001))
    assert store.span() == (1, 1000)
    assert store.forget_before(101, 0, chunk=60) == 60
    assert store.forget_before(101, 0, chunk=60) == 40
    assert store.forget_before(101, 0, chunk=60) == 0
    # The last 300 are younger than 30 days.
    assert store.forget_before(0, now_ns - 30 * DAY_NS, chunk=5000) == 599
    assert store.span() == (700, 1000)
    store.close()


def test_the_journal_keeps_to_its_limits_while_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skrd4ad.pipeline.journal._RETENTION_EVERY_S", 0.05)
    monkeypatch.setattr("skrd4ad.pipeline.journal._RETRY_S", 0.05)
    journal = Journal(settings(tmp_path, max_events=100))
    journal.open()
    for seq in range(1, 2001):
        journal.append(seq, event(seq))
    reader = journal.reader()
    wait_until(lambda: reader.span() == (1901, 2000))
    reader.close()
    assert journal.close()


@pytest.mark.parametrize("limit", ["max_mb", "min_free_mb", "max_days"])
def test_each_of_the_other_limits_takes_the_oldest_events_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr("skrd4ad.pipeline.journal._RETENTION_EVERY_S", 0.05)
    monkeypatch.setattr("skrd4ad.pipeline.journal._RETRY_S", 0.05)
    monkeypatch.setattr("skrd4ad.pipeline.journal._KEEP_ANYWAY", 100)
    free = [10_000_000]
    value = {"max_mb": 0.001, "min_free_mb": 5.0, "max_days": 0.0}[limit]
    journal = Journal(settings(tmp_path, **{limit: value}), free_bytes=lambda folder: free[0])
    journal.open()
    for seq in range(1, 2001):
        journal.append(seq, event(seq))
    wait_until(lambda: journal.committed_seq == 2000)
    reader = journal.reader()
    if limit == "min_free_mb":
        assert reader.span() == (1, 2000)  # 10 MB are enough
        free[0] = 4_000_000
    kept = {"max_days": (0, 0)}.get(limit, (1900, 2000))
    wait_until(lambda: reader.span() == kept)
    reader.close()
    assert journal.close()


def test_freed_space_goes_back_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    store = JournalStore(path)
    store.append((seq, event(seq, text="x" * 400)) for seq in range(1, 5001))
    full = store.size_bytes()
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.stat().st_size
    while store.forget_before(4901, 0, chunk=1000):
        pass
    store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert store.size_bytes() < full / 10
    assert path.stat().st_size < before / 2
    store.close()


def test_results_of_one_part_are_found(tmp_path: Path) -> None:
    golden = Path(__file__).parent / "golden" / "res_ng"
    parts = [path.read_bytes() for path in sorted(golden.iterdir())]
    store = JournalStore(tmp_path / "journal.sqlite3")
    store.append([(1, event(1)), (123456, parts)])
    assert store.of_part("A-0012345") == [parts]
    assert store.of_part("nobody") == []
    store.close()


def test_the_tail_returns_the_newest_events_and_leaves_out_torn_ones(tmp_path: Path) -> None:
    path = tmp_path / "tail"
    tail = JournalTail(path)
    for seq in range(1, SLOTS + 101):
        tail.write(seq, event(seq, 1))
    tail.close()
    raw = bytearray(path.read_bytes())
    raw[(500 % SLOTS) * SLOT_BYTES + 60] ^= 1
    raw[(600 % SLOTS) * SLOT_BYTES : (600 % SLOTS) * SLOT_BYTES + 8] = struct.pack("<II", 0, 2**31)
    path.write_bytes(raw)
    tail = JournalTail(path)
    found = tail.read()
    tail.close()
    expected = [seq for seq in range(101, SLOTS + 101) if seq not in (500, 600)]
    assert [seq for seq, _ in found] == expected
    assert all(parts == event(seq, 1) for seq, parts in found)


def test_a_tail_of_random_bytes_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "tail"
    path.write_bytes(os.urandom(SLOTS * SLOT_BYTES))
    tail = JournalTail(path)
    assert tail.read() == []
    tail.close()


@pytest.mark.skipif(
    shutil.which("mount") is None or os.geteuid() != 0, reason="needs root to mount a small disk"
)
def test_a_really_full_disk_keeps_publishing_and_is_caught_up_with(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(disk)]
    if subprocess.run(options, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        journal = Journal(settings(disk))
        journal.open()
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
        for seq in range(1, 3001):
            journal.append(seq, event(seq, text="x" * 400))
        found: list[str] = []
        wait_until(
            lambda: bool(found.extend(a.name for a in journal.alarms() if a.active) or found)
        )
        assert found[0] == "journal_failed"
        filler.unlink()
        wait_until(lambda: journal.committed_seq == 3000)
        assert journal.close()
        assert len(stored(disk)) == 3000
    finally:
        subprocess.run(["umount", str(disk)], check=True)
