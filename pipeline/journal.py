"""The journal: every event on disk, written by its own thread, never in the way of the line.

publish thread: append = copy to the mapped tail, put into a bounded queue
journal thread: commit in batches, forget what is too old, report what goes wrong

A full or slow disk costs history, never a verdict: the alarm says so and publishing goes on.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import shutil
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import ConfigError
from .clock import SYSTEM_CLOCK, Clock
from .journal_store import JournalStore, Note
from .journal_tail import JournalTail

log = logging.getLogger(__name__)

QUEUE_EVENTS = 20_000
"""How many events may wait for the disk; beyond, the oldest are given up and counted."""
_BATCH_EVENTS = 1000
_RETRY_S = 1.0
_RETENTION_EVERY_S = 5.0
_FORGET_CHUNK = 5000
_SKIP_AFTER_POWER_CUT = 10_000
_WAITING_NOTES = 10_000
_DAY_NS = 86_400 * 1_000_000_000

_KEEP_ANYWAY = 10_000
"""Events kept even when the disk is full of other things."""
_DISK_TROUBLE = ("disk is full", "disk I/O error")

Event = tuple[int, Sequence[bytes]]


class JournalSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`journal:` of the station file. The oldest events go first, whichever limit is met."""

    path: str
    max_events: int = 5_000_000
    max_days: float = 90.0
    max_mb: float = 8192.0
    min_free_mb: float = 512.0
    """Free space of the disk below which the journal gives some back."""
    audit_days: float = 1095.0
    """How long control actions and feedback are kept; they are few and outlive the events."""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a journal was found."""

    next_seq: int
    recovered: int
    """Events that only the tail had; they are stored now."""
    set_aside: Path | None
    """Where a damaged journal was moved to."""


@dataclass(frozen=True, slots=True)
class JournalAlarm:
    """An alarm (of alarms.py) that the journal wants started or ended."""

    name: str
    active: bool
    text: str = ""


class Journal:
    """`open`, then `append` every event before it is published, then `close`.

    `open` and `append` are called from one thread. `alarms` hands over what went wrong or right
    again since the last call, for the publisher to announce.
    """

    def __init__(
        self,
        settings: JournalSettings,
        clock: Clock = SYSTEM_CLOCK,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self.settings = settings
        self._free_bytes = free_bytes
        self.path = Path(settings.path)
        self.given_up = 0
        """Events that were published and could not be stored."""
        self.committed_seq = 0
        self._clock = clock
        self._queue: queue.SimpleQueue[Event | Note | None] = queue.SimpleQueue()
        self._notes: deque[Note] = deque(maxlen=_WAITING_NOTES)
        self._alarms: queue.SimpleQueue[JournalAlarm] = queue.SimpleQueue()
        self._active: set[str] = set()
        self._alarm_lock = threading.Lock()
        self._lock_file: int | None = None
        self._tail: JournalTail | None = None
        self._thread: threading.Thread | None = None
        self._store: JournalStore | None = None

    def open(self) -> Opening:
        """Open or create, take over what a crash left in the tail, and start the thread.

        A damaged journal is renamed and a new one begun; with a full disk the journal thread goes
        on trying. Raises ConfigError when the folder cannot be written or the journal is in use.
        """
        self._lock_file = _lock(self.path)
        try:
            opening = self._take_over()
        except BaseException:
            os.close(self._lock_file)
            raise
        self.committed_seq = opening.next_seq - 1
        self._thread = threading.Thread(target=self._write_loop, name="journal", daemon=True)
        self._thread.start()
        return opening

    def _take_over(self) -> Opening:
        try:
            self._tail = JournalTail(self.path.with_name(self.path.name + ".tail"))
            left_over = self._tail.read()
        except OSError as error:
            log.error("no tail file for the journal, a crash may cost events: %s", error)
            left_over = []
        newest_known = left_over[-1][0] if left_over else 0
        store, set_aside = self._open_store()
        if store is None:
            return Opening(newest_known + 1, 0, None)
        self._store = store
        _, newest = store.span()
        missing = [event for event in left_over if event[0] > newest]
        for event in missing:
            self._queue.put(event)
        next_seq = max(newest, newest_known) + 1
        machine_boot = _machine_boot()
        if store.fact("open") not in ("", machine_boot) or set_aside is not None:
            # The computer went down while the journal was open (or nobody knows): the last
            # numbers given out may be on neither file. Better a visible gap than one used twice.
            next_seq += _SKIP_AFTER_POWER_CUT
            log.warning("after a power cut or damage: numbering goes on at %d", next_seq)
        try:
            store.store_fact("open", machine_boot)
        except sqlite3.Error as error:
            self._alarm("journal_failed", True, f"{error}; events are published all the same")
        return Opening(next_seq, len(missing), set_aside)

    def append(self, seq: int, parts: Sequence[bytes]) -> None:
        """Take one event; returns within microseconds whatever the disk does."""
        if self._tail is not None:
            self._tail.write(seq, parts)
        if self._queue.qsize() < QUEUE_EVENTS:
            self._queue.put((seq, parts))
        else:
            self.given_up += 1
            self._alarm("journal_behind", True, "events left the journal's queue unstored")

    def note_audit(self, who: str, role: str, op: str, arguments: str, outcome: str) -> None:
        """Write down what somebody asked of the line; any thread."""
        self._note(Note("audit", self._clock.wall_ns(), (who, role, op, arguments, outcome)))

    def note_feedback(self, seq: int, truth: str, who: str, note: str) -> None:
        """Write down what the part of event `seq` really was; any thread."""
        self._note(Note("feedback", self._clock.wall_ns(), (seq, truth, who, note)))

    def _note(self, note: Note) -> None:
        if self._queue.qsize() < QUEUE_EVENTS:
            self._queue.put(note)
        else:
            log.error("the journal is behind and did not take this: %s", note)

    def alarms(self) -> list[JournalAlarm]:
        """What changed since the last call."""
        found = []
        while not self._alarms.empty():
            found.append(self._alarms.get())
        return found

    def reader(self) -> JournalStore:
        """Another connection, to read from one other thread."""
        return JournalStore(self.path, read_only=True)

    def close(self, timeout_s: float = 1.5) -> bool:
        """Store what is queued. False when the disk did not take it in time (the tail has it)."""
        if self._thread is None:
            return True
        self._queue.put(None)
        self._thread.join(timeout_s)
        done = not self._thread.is_alive()
        if not done:
            log.error("the journal did not finish within %g s", timeout_s)
        elif self._tail is not None:
            self._tail.close()
            self._tail = None
        self._thread = None
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None
        return done

    def _open_store(self) -> tuple[JournalStore | None, Path | None]:
        try:
            return JournalStore(self.path), None
        except sqlite3.OperationalError as error:
            if str(error).endswith(_DISK_TROUBLE):
                self._alarm("journal_failed", True, f"{error}; events are published all the same")
                return None, None
            raise ConfigError(
                f"the journal {self.path} cannot be opened: {error}",
                "may its folder and files be written?",
            ) from None
        except sqlite3.DatabaseError as error:
            log.error("the journal %s is damaged (%s): setting it aside", self.path, error)
            return self._begin_anew()

    def _begin_anew(self) -> tuple[JournalStore, Path]:
        mark = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._clock.wall_ns() / 1e9))
        set_aside = self.path.with_name(f"{self.path.name}.damaged-{mark}")
        number = 0
        while set_aside.exists():
            number += 1
            set_aside = self.path.with_name(f"{self.path.name}.damaged-{mark}-{number}")
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(set_aside.with_name(set_aside.name + suffix))
        self._alarm("journal_set_aside", True, f"the damaged one is {set_aside.name}")
        return JournalStore(self.path), set_aside

    # ---- the journal thread ----------------------------------------------------------------

    def _write_loop(self) -> None:
        waiting: deque[Event] = deque()
        next_retention_s = time.monotonic() + _RETENTION_EVERY_S
        closing = False
        while not closing:
            closing = self._fetch(waiting, wait_s=_RETRY_S)
            while waiting and self._commit(waiting):
                closing = self._fetch(waiting, wait_s=0.0) or closing
            self._commit_notes()
            if waiting and not closing:
                self._give_up_beyond_limit(waiting)
                time.sleep(_RETRY_S)
            if time.monotonic() >= next_retention_s:
                more = self._forget()
                next_retention_s = time.monotonic() + (0.0 if more else _RETENTION_EVERY_S)
        try:
            if self._store is not None and not waiting:
                self._store.store_fact("open", "")
        except sqlite3.Error as error:
            log.warning("the journal could not note its clean end: %s", error)
        if self._store is not None:
            self._store.close()

    def _fetch(self, waiting: deque[Event], wait_s: float) -> bool:
        """Move what is queued to `waiting`. True when the end was queued."""
        try:
            item = self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait()
            while item is not None:
                if isinstance(item, Note):
                    self._notes.append(item)
                else:
                    waiting.append(item)
                item = self._queue.get_nowait()
            return True
        except queue.Empty:
            return False

    def _commit(self, waiting: deque[Event]) -> bool:
        batch = [waiting[index] for index in range(min(len(waiting), _BATCH_EVENTS))]
        try:
            if self._store is None:
                self._store = JournalStore(self.path)
                self._store.store_fact("open", _machine_boot())
            self._store.append(batch)
        except sqlite3.OperationalError as error:
            self._alarm("journal_failed", True, f"{error}; events are published all the same")
            return False
        except sqlite3.DatabaseError as error:
            log.error("the journal %s is damaged (%s): setting it aside", self.path, error)
            if self._store is not None:
                self._store.close()
            self._store = None
            self._begin_anew()[0].close()
            return False
        for _ in batch:
            waiting.popleft()
        self.committed_seq = batch[-1][0]
        self._alarm("journal_failed", False, "")
        if not waiting:
            self._alarm("journal_behind", False, "")
        return True

    def _commit_notes(self) -> None:
        if not self._notes or self._store is None:
            return
        try:
            self._store.append_notes(self._notes)
            self._notes.clear()
        except sqlite3.Error as error:
            self._alarm("journal_failed", True, f"audit: {error}")

    def _give_up_beyond_limit(self, waiting: deque[Event]) -> None:
        surplus = len(waiting) - QUEUE_EVENTS
        if surplus > 0:
            for _ in range(surplus):
                waiting.popleft()
            self.given_up += surplus
            self._alarm("journal_behind", True, "events left the journal's queue unstored")

    def _forget(self) -> bool:
        """One step of retention. True when more is to be done."""
        settings, store = self.settings, self._store
        if store is None:
            return False
        try:
            oldest, newest = store.span()
            keep_from = newest - settings.max_events + 1
            size_mb = store.size_bytes() / 1e6
            free_mb = self._free_bytes(self.path.parent) / 1e6
            if size_mb > settings.max_mb or free_mb < settings.min_free_mb:
                tenth = oldest + (newest - oldest) // 10 + 1
                keep_from = max(keep_from, min(tenth, newest - _KEEP_ANYWAY))
            before_ns = self._clock.wall_ns() - int(settings.max_days * _DAY_NS)
            store.forget_notes_before(self._clock.wall_ns() - int(settings.audit_days * _DAY_NS))
            return store.forget_before(keep_from, before_ns, _FORGET_CHUNK) > 0
        except (sqlite3.Error, OSError) as error:
            self._alarm("journal_failed", True, f"retention: {error}")
            return False

    def _alarm(self, name: str, active: bool, text: str) -> None:
        with self._alarm_lock:
            if active == (name in self._active):
                return
            if active:
                self._active.add(name)
                log.error("journal: %s: %s", name, text)
            else:
                self._active.discard(name)
                log.info("journal: %s is over", name)
            self._alarms.put(JournalAlarm(name, active, text))


def _lock(path: Path) -> int:
    """Claim the journal for this process. Raises ConfigError when that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ConfigError(
            f"the journal {path} cannot be opened: {error.strerror}",
            "name a folder that may be written",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ConfigError(
            f"the journal {path} is in use by another process",
            "is another stream running? give each its own journal",
        ) from None
    return descriptor


def _machine_boot() -> str:
    """An identity of the computer's own start, "unknown" where the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
