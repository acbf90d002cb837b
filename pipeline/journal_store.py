"""Events in SQLite: schema, pages, retention. One connection per thread; no threads here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from ..built_types import built

SCHEMA_VERSION = 2
PAGE_EVENTS = 500
"""The most events a page of replay holds."""
_CHECK_UP_TO_BYTES = 64 * 1024 * 1024
"""A larger file is not read through at the start: damage then shows when it is met."""
_CREATE = """
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, boot TEXT NOT NULL, kind TEXT NOT NULL, cam TEXT, t INTEGER NOT NULL,
  part_id TEXT, verdict TEXT, score REAL, topic BLOB NOT NULL, header BLOB NOT NULL,
  record BLOB NOT NULL);
CREATE INDEX by_time ON events (t);
CREATE INDEX by_part ON events (part_id) WHERE part_id IS NOT NULL;
CREATE INDEX by_verdict ON events (cam, verdict, seq) WHERE verdict IS NOT NULL AND verdict <> 'ok';
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_CREATE_NOTES = """
CREATE TABLE audit (
  id INTEGER PRIMARY KEY, t INTEGER NOT NULL, who TEXT NOT NULL, role TEXT NOT NULL,
  op TEXT NOT NULL, arguments TEXT NOT NULL, outcome TEXT NOT NULL);
CREATE TABLE feedback (
  id INTEGER PRIMARY KEY, t INTEGER NOT NULL, seq INTEGER NOT NULL, truth TEXT NOT NULL,
  who TEXT NOT NULL, note TEXT NOT NULL);
CREATE INDEX feedback_by_seq ON feedback (seq);
"""
"""New with version 2; a journal of version 1 is given them when it is opened."""


class Note(NamedTuple):
    """A row that a person caused, with its values in the order of the table behind `t`."""

    table: Literal["audit", "feedback"]
    t_ns: int
    values: tuple[object, ...]


class AuditRow(NamedTuple):
    """What somebody asked of the line, and what came of it."""

    t_ns: int
    who: str
    role: str
    op: str
    arguments: str
    outcome: str


class FeedbackRow(NamedTuple):
    """What a person found the part of event `seq` to be, with what the line had said."""

    seq: int
    truth: Literal["ok", "ng"]
    who: str
    note: str
    t_ns: int
    camera: str
    verdict: str
    score: float


class InspectedRow(NamedTuple):
    """One inspected part; `header` is its event, `truth` what an operator found, None: nobody."""

    seq: int
    verdict: str
    score: float
    header: bytes
    truth: Literal["ok", "ng"] | None


class _Part(msgspec.Struct):
    id: str | None = None


class _Summary(msgspec.Struct):
    """What the journal's columns need of a header."""

    boot: str
    kind: str
    t_pub: int = 0
    t: int = 0
    cam: str | None = None
    verdict: str | None = None
    score: float | None = None
    part: _Part = msgspec.field(default_factory=_Part)


_decode_summary = msgspec.json.Decoder(built(_Summary)).decode


class JournalStore:
    """One connection to a journal file.

    Raises sqlite3.DatabaseError for a file that is damaged or not a journal of this version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        target = f"file:{_quoted(path)}?mode=ro" if read_only else f"file:{_quoted(path)}"
        self._connection = sqlite3.connect(
            target, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0
        )
        try:
            if not read_only:
                self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def append(self, events: Iterable[tuple[int, Sequence[bytes]]]) -> None:
        """Store events as (seq, [topic, header, record]) in one transaction, or none of them."""
        rows = [_row(seq, parts) for seq, parts in events]
        with self._transaction():
            self._connection.executemany(
                "INSERT OR IGNORE INTO events VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows
            )

    def append_notes(self, notes: Iterable[Note]) -> None:
        """Store audit and feedback rows in one transaction, or none of them."""
        with self._transaction():
            for note in notes:
                marks = ",".join("?" * (len(note.values) + 1))
                self._connection.execute(
                    f"INSERT INTO {note.table} VALUES (NULL,{marks})", (note.t_ns, *note.values)
                )

    def audit(self, limit: int) -> list[AuditRow]:
        """The newest audit rows, newest first."""
        rows = self._connection.execute(
            "SELECT t, who, role, op, arguments, outcome FROM audit ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [AuditRow(*row) for row in rows]

    def feedback(self, since_ns: int = 0) -> list[FeedbackRow]:
        """The newest word on each part, oldest part first.

        Parts whose event is not stored any more are left out: nobody knows what they scored.
        """
        rows = self._connection.execute(
            "SELECT f.seq, f.truth, f.who, f.note, f.t, e.cam, e.verdict, e.score FROM feedback f"
            " JOIN events e ON e.seq = f.seq AND e.kind = 'res'"
            " WHERE f.t >= ? AND f.id = (SELECT max(id) FROM feedback WHERE seq = f.seq)"
            " ORDER BY f.seq",
            (since_ns,),
        )
        return [FeedbackRow(*row) for row in rows]

    def inspected(self, since_ns: int = 0, camera: str | None = None) -> Iterator[InspectedRow]:
        """Every inspected part in order (not `err`), with the newest word of an operator on it."""
        rows = self._connection.execute(
            "SELECT e.seq, e.verdict, e.score, e.header, f.truth FROM events e"
            " LEFT JOIN (SELECT seq, truth, max(id) FROM feedback GROUP BY seq) f ON f.seq = e.seq"
            " WHERE e.kind = 'res' AND e.verdict <> 'err' AND e.score IS NOT NULL AND e.t >= ?"
            " AND (? IS NULL OR e.cam = ?) ORDER BY e.seq",
            (since_ns, camera, camera),
        )
        for seq, verdict, score, header, truth in rows:
            yield InspectedRow(seq, verdict, score, header, truth)

    def forget_notes_before(self, t_ns: int) -> int:
        """Delete audit and feedback rows that are older; returns how many."""
        with self._transaction():
            return sum(
                self._connection.execute(f"DELETE FROM {table} WHERE t < ?", (t_ns,)).rowcount
                for table in ("audit", "feedback")
            )

    def page(self, first: int, last: int, limit: int = PAGE_EVENTS) -> list[list[bytes]]:
        """The oldest events with first <= seq <= last, at most `limit`, as message parts."""
        rows = self._connection.execute(
            "SELECT topic, header, record FROM events WHERE seq BETWEEN ? AND ?"
            " ORDER BY seq LIMIT ?",
            (first, last, limit),
        )
        return [list(row) for row in rows]

    def span(self) -> tuple[int, int]:
        """(oldest, newest) seq; (0, 0) when the journal is empty."""
        # Two queries in one: SQLite looks min and max up only when each stands alone, and reads
        # the whole table otherwise.
        row = self._connection.execute(
            "SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events)"
        ).fetchone()
        return (row[0] or 0, row[1] or 0)

    def of_part(self, part_id: str, limit: int = PAGE_EVENTS) -> list[list[bytes]]:
        """Results of one part, oldest first."""
        rows = self._connection.execute(
            "SELECT topic, header, record FROM events WHERE part_id = ? ORDER BY seq LIMIT ?",
            (part_id, limit),
        )
        return [list(row) for row in rows]

    def fact(self, name: str) -> str:
        """A stored fact, "" when it was never stored."""
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return "" if row is None else str(row[0])

    def store_fact(self, name: str, value: str) -> None:
        """Remember a fact beside the events."""
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def size_bytes(self) -> int:
        """Bytes in use by the file's pages; freed ones do not count."""
        pages, free, size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def forget_before(self, seq: int, t_ns: int, chunk: int) -> int:
        """Delete at most `chunk` of the oldest events with a smaller seq or an older time.

        Returns how many. Freed pages go back to the file system a little at a time.
        """
        oldest, _ = self.span()
        with self._transaction():
            deleted = self._connection.execute(
                "DELETE FROM events WHERE seq >= ? AND seq < ? AND (seq < ? OR t < ?)",
                (oldest, oldest + chunk, seq, t_ns),
            ).rowcount
        if deleted:
            # executescript, because this pragma gives back one page per step and no rows.
            self._connection.executescript("PRAGMA incremental_vacuum(2000)")
        return int(deleted)

    def close(self) -> None:
        """Close the connection; the last one tidies up the write-ahead log."""
        self._connection.close()

    def _prepare(self) -> None:
        execute = self._connection.execute
        version = execute("PRAGMA user_version").fetchone()[0]
        empty = not execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version not in ((0,) if empty else (1, SCHEMA_VERSION)):
            raise sqlite3.DatabaseError(f"journal version {version}, not {SCHEMA_VERSION}")
        execute("PRAGMA auto_vacuum=INCREMENTAL")
        execute("PRAGMA journal_mode=WAL")
        # NORMAL: a commit survives the end of the process; a power cut may take the last ones.
        execute("PRAGMA synchronous=NORMAL")
        execute("PRAGMA journal_size_limit=16777216")
        if empty:
            with self._transaction():
                for statement in _CREATE.split(";\n"):
                    execute(statement)
        if version < SCHEMA_VERSION:
            with self._transaction():
                for statement in _CREATE_NOTES.split(";\n"):
                    execute(statement)
                execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        problem = "ok"
        if self.size_bytes() <= _CHECK_UP_TO_BYTES:
            problem = execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite3.DatabaseError(str(problem))

    def _transaction(self) -> _Transaction:
        return _Transaction(self._connection)


class _Transaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is None:
            try:
                self._connection.execute("COMMIT")
                return
            except sqlite3.Error:
                self._roll_back()
                raise
        self._roll_back()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _row(seq: int, parts: Sequence[bytes]) -> tuple[object, ...]:
    topic, header, record = parts
    summary = _decode_summary(header)
    return (
        seq,
        summary.boot,
        summary.kind,
        summary.cam,
        summary.t_pub or summary.t,
        summary.part.id,
        summary.verdict,
        summary.score,
        topic,
        header,
        record,
    )


def _quoted(path: Path) -> str:
    """A path inside an SQLite URI."""
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
