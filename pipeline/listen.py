"""Subscribe to a line: show its results, record them, and say what is wrong, and where.

Camera, box, network or keys: one screen and one sentence. Ends at the publisher's BYE or after
--count results. Exit code 6: nothing was reachable, the stream fell silent, or events were lost.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec

from ..errors import ConfigError, NetworkError
from .clock import SYSTEM_CLOCK, Clock
from .diagnosis import EXIT_CODES, diagnose
from .listen_doctor import Doctor
from .listen_screen import screen
from .listen_view import TABLE_HEAD, answers_line, event_line, summary_line
from .recording import Recording, save_map
from .security import add_key_arguments, client_keys
from .stream_check import Gap, Restart
from .subscriber import Gone, Item, Replayed, Subscriber
from .wire import ResultMessage
from .wire_map import MapMessage

_REPAINT_S = 0.2
_HEALTH_LINE_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect", default="tcp://127.0.0.1:5555", metavar="URL", help="the events endpoint"
    )
    parser.add_argument("--maps", metavar="URL", help="the maps endpoint, to receive maps too")
    parser.add_argument(
        "--replay", metavar="URL", help="the replay endpoint, to fetch events that were lost"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON line per result on stdout, nothing else"
    )
    parser.add_argument("--record", type=Path, metavar="DIR", help="keep all events (and maps)")
    parser.add_argument(
        "--save-maps",
        type=Path,
        metavar="DIR",
        help="write each map as .png and .npy; needs --maps",
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after N results")
    parser.add_argument(
        "--wait-s",
        type=float,
        default=30.0,
        metavar="S",
        help="how long to wait for the first sign",
    )
    parser.add_argument(
        "--idle-s", type=float, default=5.0, metavar="S", help="silence that ends a running stream"
    )
    parser.add_argument(
        "--max-age-ms",
        type=float,
        default=1000.0,
        metavar="MS",
        help="later messages are not fresh",
    )
    parser.add_argument(
        "--doctor",
        type=float,
        metavar="S",
        help="listen for S seconds, then say once whether it is the camera, the box or the network "
        "(exit code 0, 3 or 6; with --json as one JSON object)",
    )
    add_key_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.count is not None and arguments.count < 1:
        raise ConfigError(f"--count {arguments.count}: must be 1 or more", "leave it out for all")
    if arguments.save_maps is not None and arguments.maps is None:
        raise ConfigError("--save-maps needs --maps", "for example --maps tcp://127.0.0.1:5556")
    if arguments.doctor is not None and not 0 < arguments.doctor <= 3600:
        raise ConfigError(
            f"--doctor {arguments.doctor:g}: not a number of seconds", "for example --doctor 5"
        )
    limits = (arguments.wait_s, arguments.idle_s)
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(
            Subscriber(
                arguments.connect,
                arguments.maps,
                replay=arguments.replay,
                keys=client_keys(arguments.key, arguments.server_key),
                max_age_ms=arguments.max_age_ms,
            )
        )
        recording = None
        if arguments.record is not None:
            recording = stack.enter_context(Recording(arguments.record))
        doctor, display = Doctor(stream), _choose_display(arguments)
        stack.callback(display.close)
        stack.enter_context(_sigterm_interrupts())
        end_ns = None
        if arguments.doctor is not None:
            # Silence is a finding here, and ends nothing.
            limits = (float("inf"), float("inf"))
            end_ns = SYSTEM_CLOCK.mono_ns() + int(arguments.doctor * 1e9)
        try:
            for item in stream.ticks(*limits, _REPAINT_S):
                doctor.note(item)
                display.show(item, doctor, stream)
                if recording is not None:
                    _record(recording, item)
                if isinstance(item, MapMessage) and arguments.save_maps is not None:
                    save_map(arguments.save_maps, item)
                if doctor.tally.results == arguments.count:
                    break
                if end_ns is not None and SYSTEM_CLOCK.mono_ns() >= end_ns:
                    break
        except NetworkError as silence:
            said = diagnose(doctor.at_the_end())
            raise NetworkError(f"{silence.sentence} ({said.line})", said.advice) from None
        if end_ns is not None:
            found = doctor.at_the_end()
            text = doctor.json(found) if arguments.json else "\n".join(doctor.lines(found))
            print(text, flush=True)
            return EXIT_CODES[diagnose(found).where]
        status = stream.status()
    print(summary_line(status, doctor.tally), file=sys.stderr)
    if status.missing:
        raise NetworkError(
            f"{status.missing} events of {stream.check.box} were lost on the way",
            "is this computer too slow, or the network? `skrd4ad replay` fetches them",
        )
    return 0


def _record(recording: Recording, item: Item | None) -> None:
    if isinstance(item, Replayed):
        recording.add(item.message)
    elif item is not None and not isinstance(item, Gap | Restart | Gone):
        recording.add(item)


class Quiet:
    """Nothing before the end."""

    def show(self, item: Item | None, doctor: Doctor, stream: Subscriber) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing to restore."""


class JsonLines(Quiet):
    """One line per result on stdout; losses and restarts on stderr."""

    def show(self, item: Item | None, doctor: Doctor, stream: Subscriber) -> None:
        message = item.message if isinstance(item, Replayed) else item
        if isinstance(message, ResultMessage):
            sys.stdout.buffer.write(msgspec.json.encode(message.header) + b"\n")
            sys.stdout.buffer.flush()
        elif isinstance(item, Gap | Restart | Gone):
            print(_notice_text(item), file=sys.stderr, flush=True)


class PlainLines(Quiet):
    """A line per result, state and alarm; the stream's health when it changes, and now and then."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._said: tuple[str, bool] | None = None
        self._next_health_ns = clock.mono_ns() + int(_HEALTH_LINE_S * 1e9)
        print(TABLE_HEAD, flush=True)

    def show(self, item: Item | None, doctor: Doctor, stream: Subscriber) -> None:
        line = _line(item)
        if line:
            print(line, flush=True)
        now_ns = self._clock.mono_ns()
        if item is not None and now_ns < self._next_health_ns:
            return
        found = doctor.findings()
        said = diagnose(found)
        if now_ns >= self._next_health_ns or (said.where, found.status.ok) != self._said:
            self._said = (said.where, found.status.ok)
            self._next_health_ns = now_ns + int(_HEALTH_LINE_S * 1e9)
            print(f"          {answers_line(found.status)} | {said.line}", flush=True)


class LiveTable(Quiet):
    """The newest results above the doctor's lines, repainted in place."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._rows: deque[str] = deque(maxlen=200)
        self._next_paint_ns = 0
        self._painted_lines = 0

    def show(self, item: Item | None, doctor: Doctor, stream: Subscriber) -> None:
        line = _line(item)
        if line:
            self._rows.append(line)
        now_ns = self._clock.mono_ns()
        if now_ns >= self._next_paint_ns or stream.check.ended:
            self._next_paint_ns = now_ns + int(_REPAINT_S * 1e9)
            self._paint(doctor.lines(doctor.findings()))

    def close(self) -> None:
        """Leave the cursor below the table."""
        sys.stdout.write("\n")
        sys.stdout.flush()

    def _paint(self, health: list[str]) -> None:
        width, height = shutil.get_terminal_size()
        rows = list(self._rows)[-max(min(height - len(health) - 3, 30), 3) :]
        lines = screen(rows, health)
        up = f"\x1b[{self._painted_lines - 1}F" if self._painted_lines > 1 else "\r"
        body = "\n".join(f"{line[: width - 1]}\x1b[K" for line in lines)
        sys.stdout.write(f"{up}{body}\x1b[J")
        sys.stdout.flush()
        self._painted_lines = len(lines)


def _choose_display(arguments: argparse.Namespace) -> Quiet:
    if arguments.doctor is not None:
        return Quiet()
    if arguments.json:
        return JsonLines()
    return LiveTable() if sys.stdout.isatty() else PlainLines()


def _line(item: Item | None) -> str:
    if item is None:
        return ""
    if isinstance(item, Gap | Restart | Gone):
        return _notice_text(item)
    if isinstance(item, Replayed):
        return f"{event_line(item.message)}  [fetched later]"
    return event_line(item)


def _notice_text(notice: Gap | Restart | Gone) -> str:
    if isinstance(notice, Gone):
        gap = notice.gap
        return f"          GONE {gap.count} events: the box does not have {gap.first} to {gap.last}"
    if isinstance(notice, Gap):
        return f"          LOST {notice.count} events: {notice.first} to {notice.last}"
    return f"          RESTART: {notice.box} is a new process (boot {notice.new_boot})"


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends the loop as Ctrl-C does, so that files and terminal are left in order."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
