"""The archive process: takes parts from the line, writes them, keeps the archive within limits.

Started by archive.ArchiveTap as `python -m skrd4ad.pipeline.archive_child FD`. It ends when the
line has said finish, or when the socket closes because the line is gone. Signals for the whole
group (Ctrl-C, systemd's SIGTERM) are the line's to answer: this process still writes what it has.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from pathlib import Path

from .. import logs
from ..errors import SkrdError
from .archive_link import Answer, receive, send_answer
from .archive_store import ArchivedPart, Retention, write_part

log = logging.getLogger(__name__)
_NICENESS = 10
_FINAL_SWEEPS = 10


def serve(link: socket.socket) -> None:
    """Work for one line until it ends."""
    head, _ = receive(link)
    assert head.kind == "hello", "the first message is the greeting"
    assert head.limits is not None, "the greeting says the limits"
    root = Path(head.root)
    retention = Retention(root, head.limits)
    send_answer(link, Answer())
    while True:
        try:
            head, part = receive(link)
        except (EOFError, OSError):
            log.warning("the line ended without a farewell")
            return
        if part is None:
            _finish(link, root, retention, head.count)
            return
        send_answer(link, _write(root, retention, part))


def _write(root: Path, retention: Retention, part: ArchivedPart) -> Answer:
    try:
        removed = retention.apply()
        if retention.disk_full():
            return Answer(error=f"{root}: too little free space, and no older part to remove")
        written = write_part(root, part)
    except SkrdError as error:
        return Answer(error=error.sentence)
    except OSError as error:
        return Answer(error=f"{root}: {error.strerror}")
    retention.note(part.captured_ns, written)
    return Answer(written_bytes=written, removed_parts=removed)


def _finish(link: socket.socket, root: Path, retention: Retention, count: int) -> None:
    """Take over all that is left before writing any of it: the line need not wait for the disk."""
    parts = [part for _, part in (receive(link) for _ in range(count)) if part is not None]
    send_answer(link, Answer())
    link.close()
    for part in parts:
        answer = _write(root, retention, part)
        if answer.error:
            log.error("a part was lost at the end: %s", answer.error)
    for _ in range(_FINAL_SWEEPS):
        if not retention.apply():
            break


def main() -> int:
    """Serve the socket whose number is the one argument."""
    logs.configure(prefix="archive: ")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Compressing images must not take the processor from the network.
    os.nice(_NICENESS)
    with socket.socket(fileno=int(sys.argv[1])) as link:
        serve(link)
    return 0


if __name__ == "__main__":
    sys.exit(main())
