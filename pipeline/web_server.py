"""The page over HTTP: three files, a stream of snapshots, one picture per map. Nothing is written.

GET /             the page          GET /events           server-sent events: one snapshot each
GET /page.js      its program       GET /map/BOOT/SEQ.png one map
GET /page.css     its looks         GET /state.json       one snapshot
"""

from __future__ import annotations

import json
import logging
import re
import socket
import sys
import threading
import time
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from .endpoints import bind_problem, check_exposure, is_loopback
from .live import LiveView

logger = logging.getLogger(__name__)

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
SHORTEST_INTERVAL_S = 0.1
"""A page is told at most ten times a second, however fast the line is."""
KEEP_ALIVE_S = 10.0
MOST_READERS = 32
_MAP = re.compile(r"/map/([0-9a-f]{16})/([0-9]{1,19})\.png")


class PageServer(ThreadingHTTPServer):
    """Serves one LiveView. `listen` is "HOST:PORT" (port 0: any); raises NetworkError."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listen: str, view: LiveView, *, insecure: bool = False) -> None:
        endpoint = f"tcp://{listen}"
        check_exposure(endpoint, insecure=insecure)
        host, _, port = listen.rpartition(":")
        self.view = view
        self.local_only = is_loopback(endpoint)
        self.readers = threading.BoundedSemaphore(MOST_READERS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host.strip("[]"), int(port)), PageHandler)
        except OSError as error:
            problem = bind_problem(endpoint, error.errno or 0, error.strerror or str(error))
            raise problem from error

    @property
    def url(self) -> str:
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error; anything else is ours and keeps its traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            logger.exception("a request of %s failed", client_address)


class PageHandler(BaseHTTPRequestHandler):
    """One request. Only GET exists."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = 30.0

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._host_is_ours():
            self._text(HTTPStatus.FORBIDDEN, "this page is served to its own computer only\n")
        elif path in FILES:
            name, kind = FILES[path]
            self._send(HTTPStatus.OK, kind, page_file(name))
        elif path == "/state.json":
            body = json.dumps(self.server.view.snapshot()).encode()
            self._send(HTTPStatus.OK, "application/json", body)
        elif path == "/events":
            self._events()
        elif found := _MAP.fullmatch(path):
            png = self.server.view.map_png(found[1], int(found[2]))
            if png is None:
                self._text(HTTPStatus.NOT_FOUND, "this map is not kept\n")
            else:
                self._send(HTTPStatus.OK, "image/png", png)
        else:
            self._text(HTTPStatus.NOT_FOUND, "there is no such page\n")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not news."""
        logger.debug(format, *arguments)

    def _host_is_ours(self) -> bool:
        # Another site can point its own name at 127.0.0.1 and read this page through the visitor's
        # browser (DNS rebinding); the Host header then carries that name.
        if not self.server.local_only:
            return True
        host = self.headers.get("Host", "")
        try:
            return is_loopback(f"tcp://{host}" if re.search(r":\d+$", host) else f"tcp://{host}:80")
        except ConfigError:
            return False

    def _events(self) -> None:
        if not self.server.readers.acquire(blocking=False):
            self._text(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open\n")
            return
        try:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            version, number = -1, 0
            while (new := self.server.view.wait(version, KEEP_ALIVE_S)) is not None:
                if new == version:
                    self.wfile.write(b": still here\n\n")
                else:
                    snapshot = self.server.view.snapshot(after=number)
                    version, number = new, snapshot["number"]
                    self.wfile.write(b"data: " + json.dumps(snapshot).encode() + b"\n\n")
                time.sleep(SHORTEST_INTERVAL_S)
        finally:
            self.server.readers.release()

    def _text(self, status: HTTPStatus, text: str) -> None:
        self._send(status, "text/plain; charset=utf-8", text.encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in SECURITY.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@lru_cache(maxsize=len(FILES))
def page_file(name: str) -> bytes:
    """One of the page's files, from the package."""
    return (resources.files(__package__) / "web" / name).read_bytes()
