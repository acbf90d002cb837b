"""The health process: three pages over HTTP, made from what the line said last.

Started by health_tap.HealthTap as `python -m skrd4ad.pipeline.monitor.health_child LISTENER LINK`.
Whatever asks it, however often, takes the time of this process and none of the line's; and when
the line hangs, this process still answers, and says so. It ends when the line's end of LINK closes.

GET /metrics   Prometheus text     GET /healthz   200 or 503     GET /readyz   200 or 503
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any

import msgspec

from ... import logs
from ...built_types import built
from .metrics import CONTENT_TYPE, ProcessUse, render
from .snapshot import Snapshot, not_ready, unhealthy

log = logging.getLogger(__name__)
_NICENESS = 10
_RENDERED_EVERY_S = 1.0
_LARGEST_SNAPSHOT = 256 * 1024
_MOST_READERS = 16
_READER_TIMEOUT_S = 5.0


class LastWord:
    """The newest snapshot with its age; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._came_s = time.monotonic()
        self._text, self._rendered_s = "", -_RENDERED_EVERY_S

    def take(self, snapshot: Snapshot) -> None:
        with self._lock:
            self._snapshot, self._came_s = snapshot, time.monotonic()

    def now(self) -> tuple[Snapshot | None, float]:
        """The snapshot and its age in seconds (without one: the age of this process)."""
        with self._lock:
            return self._snapshot, time.monotonic() - self._came_s

    def metrics(self) -> str | None:
        """The text, made at most once a second however often it is asked for."""
        snapshot, age_s = self.now()
        if snapshot is None:
            return None
        with self._lock:
            if time.monotonic() - self._rendered_s >= _RENDERED_EVERY_S:
                self._text = render(snapshot, age_s, process_use(snapshot.pid))
                self._rendered_s = time.monotonic()
            return self._text


class HealthServer(ThreadingMixIn, HTTPServer):
    """Serves `word` on a socket that the line has bound."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, word: LastWord) -> None:
        super().__init__(listener.getsockname()[:2], HealthHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.word = word
        self.readers = threading.BoundedSemaphore(_MOST_READERS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Beyond a few readers at once the next is turned away instead of piling up threads."""
        if not self.readers.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.readers.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that goes away is no error; anything else is ours and keeps its traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            log.exception("a request of %s failed", client_address)


class HealthHandler(BaseHTTPRequestHandler):
    """One request, one answer, connection closed."""

    server: HealthServer
    server_version = "skrd4ad"
    sys_version = ""
    timeout = _READER_TIMEOUT_S

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        word = self.server.word
        snapshot, age_s = word.now()
        if path == "/metrics":
            text = word.metrics()
            if text is None:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "the line is starting\n")
            else:
                self._answer(HTTPStatus.OK, text, CONTENT_TYPE)
        elif path == "/healthz":
            self._probe(unhealthy(snapshot, age_s))
        elif path == "/readyz":
            self._probe(not_ready(snapshot, age_s))
        else:
            self._answer(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz\n")

    do_HEAD = do_GET

    def _probe(self, reasons: list[str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        self._answer(status, "\n".join(reasons or ["ok"]) + "\n")

    def _answer(
        self, status: HTTPStatus, text: str, content_type: str = "text/plain; charset=utf-8"
    ) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds for years; they are not worth a line each."""


def process_use(pid: int, proc: Path = Path("/proc")) -> ProcessUse:
    """What process `pid` takes, from Linux's /proc; nothing where that cannot be read."""
    try:
        # The name may hold spaces and brackets; the numbers begin behind the last bracket.
        numbers = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        open_files = len(os.listdir(proc / str(pid) / "fd"))
    except OSError:
        return ProcessUse()
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return ProcessUse(
        cpu_s=(int(numbers[11]) + int(numbers[12])) / ticks,
        resident_bytes=int(numbers[21]) * page,
        threads=int(numbers[17]),
        open_files=open_files,
    )


def follow(link: socket.socket, word: LastWord) -> None:
    """Take snapshots until the line closes its end."""
    while raw := link.recv(_LARGEST_SNAPSHOT):
        word.take(msgspec.json.decode(raw, type=built(Snapshot)))


def main() -> int:
    """Serve the listening socket and follow the link whose numbers are the two arguments."""
    logs.configure(prefix="health: ")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # For the whole group; the line answers them and then closes the link.
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICENESS)
    word = LastWord()
    server = HealthServer(socket.socket(fileno=int(sys.argv[1])), word)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket(fileno=int(sys.argv[2])) as link:
        follow(link, word)
    return 0


if __name__ == "__main__":
    sys.exit(main())
