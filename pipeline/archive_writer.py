"""The line's end of the archive process: starts it, hands it parts, notices when it dies.

Used from the archive thread alone, except `kill`.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from .archive_link import Answer, Head, receive_answer, send_head, send_part
from .archive_store import ArchivedPart, Limits

log = logging.getLogger(__name__)
ANSWER_LIMIT_S = 30.0
"""A disk that takes longer for one part has failed; the process is replaced."""
_SEND_BUFFER_BYTES = 4 * 1024 * 1024

T = TypeVar("T")


class WriterLost(Exception):
    """The process died or hangs. What it was given last may or may not be written."""


class ArchiveWriter:
    """`start`, `write` each part, `finish`. Each raises WriterLost; the next call starts anew."""

    def __init__(self, root: Path, limits: Limits, answer_limit_s: float = ANSWER_LIMIT_S) -> None:
        self._root = root
        self._limits = limits
        self._answer_limit_s = answer_limit_s
        self._link: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        """Start the process, unless it runs, and wait until it has looked through the archive."""
        if self._link is not None:
            return
        self._guarded(self._greet)

    def write(self, part: ArchivedPart) -> Answer:
        """What became of the part, once it is on the disk."""
        self.start()
        return self._guarded(lambda: self._ask(lambda link: send_part(link, part)))

    def finish(self, parts: Sequence[ArchivedPart]) -> None:
        """Give the last parts away and let go: the process writes them and ends by itself."""
        if self._link is None and not parts:
            return
        self.start()
        self._guarded(lambda: self._give_away(parts))
        self._close()

    def kill(self) -> None:
        """End the process at once; the archive thread gets WriterLost. Any thread."""
        process = self.process
        if process is not None:
            process.kill()

    def wait(self, timeout_s: float) -> int:
        """The exit status of the process after `finish`."""
        return 0 if self.process is None else self.process.wait(timeout_s)

    def _greet(self) -> Answer:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        ours.settimeout(self._answer_limit_s)
        self._link = ours
        self.starts += 1
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.archive_child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        log.info("archive process %d writes to %s", self.process.pid, self._root)
        hello = Head(kind="hello", root=str(self._root), limits=self._limits)
        return self._ask(lambda link: send_head(link, hello))

    def _give_away(self, parts: Sequence[ArchivedPart]) -> Answer:
        def send_all(link: socket.socket) -> None:
            send_head(link, Head(kind="finish", count=len(parts)))
            for part in parts:
                send_part(link, part)

        return self._ask(send_all)

    def _ask(self, send: Callable[[socket.socket], None]) -> Answer:
        assert self._link is not None
        send(self._link)
        return receive_answer(self._link)

    def _guarded(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except TimeoutError:
            self._bury()
            raise WriterLost(
                f"the archive process has not answered for {self._answer_limit_s:g} s"
            ) from None
        except (OSError, EOFError) as error:
            status = self._bury()
            raise WriterLost(f"the archive process ended ({status}): {error}") from None

    def _bury(self) -> str:
        self._close()
        if self.process is None:
            return "it could not be started"
        # A process that closed its socket is about to end; one that hangs is not.
        try:
            code = self.process.wait(0.2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
