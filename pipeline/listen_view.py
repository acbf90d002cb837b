"""What `listen` shows of each event, and what it counts. Pure text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import UNSET

from .stream_check import QuickestDelay, StreamStatus
from .topics import VERDICTS
from .wire import AlarmMessage, HeartbeatMessage, Message, ResultMessage, StateMessage
from .wire_messages import AlarmHeader, CountFields, HeartbeatHeader, ResultHeader

TABLE_HEAD = "     seq  camera     part              verdict     score   limit   ms    reason"
_RATE_WINDOW_NS = 10 * 1_000_000_000


@dataclass
class Tally:
    """What was received so far."""

    results: int = 0
    verdicts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    maps: int = 0
    counts: CountFields | None = None
    """The publisher's own counters, as last heard."""
    heartbeat: HeartbeatHeader | None = None
    fetched: int = 0
    """Lost events that were fetched from the journal later."""
    gone: int = 0
    """Lost events that the box does not have any more."""
    alarms: deque[AlarmHeader] = field(default_factory=lambda: deque(maxlen=4))
    """The newest starts and ends of alarms."""
    clock: QuickestDelay = field(default_factory=QuickestDelay)
    """Our wall clock against the box's."""
    total_ms: deque[float] = field(default_factory=lambda: deque(maxlen=500))
    arrivals_ns: deque[int] = field(default_factory=deque)

    def add_result(self, header: ResultHeader, now_ns: int) -> None:
        self.results += 1
        self.verdicts[header.verdict] += 1
        self.counts = header.counts
        self.total_ms.append(header.lat_us.total / 1000)
        self.arrivals_ns.append(now_ns)
        self._forget(now_ns)

    def rate_hz(self, now_ns: int) -> float:
        """Results a second over the last ten seconds."""
        self._forget(now_ns)
        if len(self.arrivals_ns) < 2:
            return 0.0
        return (len(self.arrivals_ns) - 1) / max((now_ns - self.arrivals_ns[0]) / 1e9, 1e-3)

    def _forget(self, now_ns: int) -> None:
        while self.arrivals_ns and now_ns - self.arrivals_ns[0] > _RATE_WINDOW_NS:
            self.arrivals_ns.popleft()


def result_line(header: ResultHeader) -> str:
    """One result as a row under TABLE_HEAD."""
    part = header.part.id or (header.name if header.name is not UNSET else "") or "-"
    reason = ", ".join(header.reason) + (" (late)" if header.frame.late else "")
    truth = f"  [truth: {header.truth}]" if header.truth is not UNSET else ""
    return (
        f"{header.seq:8d}  {_cut(header.cam, 9):9}  {_cut(str(part), 16):16}  {header.verdict:7}  "
        f"{_number(header.score)}  {_number(header.thr)}  {header.lat_us.total / 1000:6.1f}  "
        f"{reason}{truth}"
    ).rstrip()


def notice_line(message: StateMessage | AlarmMessage) -> str:
    """A change of state or an alarm as one line."""
    header = message.header
    if isinstance(message, StateMessage):
        text = f"state {message.header.previous} -> {message.header.state}"
    else:
        alarm = message.header
        turn = "ALARM" if alarm.active else "alarm over:"
        where = f" ({alarm.cam})" if alarm.cam is not UNSET else ""
        text = f"{turn} {alarm.code} {alarm.name}{where}"
    return f"{header.seq:8d}  {text}" + (f": {header.text}" if header.text else "")


def event_line(message: Message) -> str:
    """One event as a row under TABLE_HEAD; "" for what has none (heartbeats, maps)."""
    if isinstance(message, ResultMessage):
        return result_line(message.header)
    if isinstance(message, StateMessage | AlarmMessage):
        return notice_line(message)
    return ""


def answers_line(status: StreamStatus) -> str:
    """May verdicts be acted on, and which of the four answers says no."""
    answers = (
        ("alive", status.alive),
        ("fresh", status.fresh),
        ("contiguous", status.contiguous),
        ("valid", status.valid),
    )
    marks = " ".join(name if good else f"NOT-{name}" for name, good in answers)
    return f"{'ACT' if status.ok else 'REJECT ALL'} | {marks} | {status.state or 'no state yet'}"


def summary_line(status: StreamStatus, tally: Tally) -> str:
    """The last line of a session."""
    verdicts = ", ".join(f"{count} {name}" for name, count in tally.verdicts.items())
    maps = f", {tally.maps} maps" if tally.maps else ""
    return (
        f"{tally.results} results ({verdicts}){maps}; {status.missing} events lost, "
        f"{status.restarts} restarts"
    )


def note_heartbeat(tally: Tally, message: HeartbeatMessage, wall_ns: int) -> None:
    """Keep the newest heartbeat; it arrived at `wall_ns` of our wall clock."""
    tally.heartbeat = message.header
    tally.counts = message.header.counts
    tally.clock.delay_ns(message.header.t, wall_ns)


def quantiles(values: Iterable[float]) -> tuple[float, float]:
    """p50 and p99; zeros without values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0, 0.0
    return ordered[len(ordered) // 2], ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]


def _number(value: float | None) -> str:
    return "      -" if value is None else f"{value:7.4f}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else "~" + text[-(width - 1) :]
