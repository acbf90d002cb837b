"""The page over HTTP: static files, a stream of snapshots, pictures, and three things it may send.

GET /            the page             GET /events                   server-sent events
GET /web/NAME    its files            GET /picture/BOX/BOOT/SEQ.jpg  a part's picture
GET /login       who are you?         GET /map|overlay/BOX/BOOT/SEQ.png  its defect map
GET /api/...     about, parts, trends, preview, regions
POST /api/...    feedback, regions, threshold; /login, /logout
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import msgspec

from ...errors import NetworkError
from ..endpoints import bind_problem, is_loopback
from . import api
from .access import Person, TooManyAttempts, session_cookie
from .api import Refusal, Site
from .web_files import KINDS, LOGIN, PAGE, web_files

logger = logging.getLogger(__name__)

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": browsers would then send "Origin: null" with our own login form.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SHORTEST_INTERVAL_S = 0.2
"""A page is told at most five times a second, however fast the line is: nobody reads faster, and
a browser on the line's own computer takes its time from the line."""
BEAT_S = 1.0
"""At least so often a page hears something: it calls itself stale after three seconds."""
MOST_READERS = 32
MOST_CONNECTIONS = 192
MOST_BODY_BYTES = 256 * 1024
_IMAGE = re.compile(r"/(picture|map|overlay)/([0-9]{1,3})/([0-9a-f]{16})/([0-9]{1,19})\.(jpg|png)")
_GETS = {
    "/api/parts": api.gallery,
    "/api/trends": api.trends,
    "/api/preview": api.preview,
    "/api/regions": api.regions,
}
_POSTS = {
    "/api/feedback": api.feedback,
    "/api/regions": api.store_regions,
    "/api/threshold": api.set_threshold,
}


class PageServer(ThreadingHTTPServer):
    """Serves one Site. `listen` is "HOST:PORT" (port 0: any); raises NetworkError.

    An address that other hosts reach needs passwords. `tls` encrypts.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, listen: str, site: Site, tls: ssl.SSLContext | None = None) -> None:
        endpoint = f"tcp://{listen}"
        if not is_loopback(endpoint) and not site.access.needs_password:
            raise NetworkError(
                f"{listen} can be reached by other hosts, and no password protects the page",
                "--password-file FILE, made with: skrd4ad serve --set-password NAME "
                "--password-file FILE",
            )
        host, _, port = listen.rpartition(":")
        self.site, self._tls = site, tls
        self.scheme = "http" if tls is None else "https"
        self.readers = threading.BoundedSemaphore(MOST_READERS)
        self._connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
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
        shown = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{shown}:{self.server_address[1]}/"

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self._tls is not None:
            # The handshake happens in the request's own thread, where it may take its time.
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error; anything else is ours and keeps its traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError | ssl.SSLError):
            logger.exception("a request of %s failed", client_address)


class PageHandler(BaseHTTPRequestHandler):
    """One connection."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    timeout = 30.0
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answered(self._get)

    def do_POST(self) -> None:
        self._answered(self._post)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not news."""
        logger.debug(format, *arguments)

    def version_string(self) -> str:
        return "skrd4ad"

    def _answered(self, work: Any) -> None:
        try:
            if not self.server.site.access.host_is_ours(self.headers.get("Host", "")):
                raise Refusal(HTTPStatus.FORBIDDEN, "this page is not served under that name")
            work()
        except Refusal as refusal:
            # What is left of a refused body must not be taken for the next request.
            self.close_connection = self.close_connection or self.command == "POST"
            self._json(refusal.status, {"error": str(refusal)})

    def _get(self) -> None:
        path = urlsplit(self.path).path
        files = web_files()
        if path.startswith("/web/") and path[5:] in files:
            name = path[5:]
            self._send(HTTPStatus.OK, KINDS[name.rpartition(".")[2]], files[name])
            return
        if path == "/login":
            self._send(HTTPStatus.OK, KINDS["html"], files[LOGIN])
            return
        person = self._who()
        if person is None:
            if path != "/":
                raise Refusal(HTTPStatus.UNAUTHORIZED, "log in first")
            self._redirect("/login")
            return
        query = dict(parse_qsl(urlsplit(self.path).query, max_num_fields=20))
        if path == "/":
            self._send(HTTPStatus.OK, KINDS["html"], files[PAGE])
        elif path == "/events":
            self._events()
        elif path == "/state.json":
            self._json(HTTPStatus.OK, api.snapshot(self.server.site, {}))
        elif path == "/api/about":
            self._json(HTTPStatus.OK, api.about(self.server.site, person))
        elif path in _GETS:
            self._json(HTTPStatus.OK, _GETS[path](self.server.site, query))
        elif found := _IMAGE.fullmatch(path):
            self._image(found)
        else:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")

    def _post(self) -> None:
        path, site = urlsplit(self.path).path, self.server.site
        if not site.access.is_own_request(
            self.headers.get("Origin", ""), self.headers.get("Host", ""), self.server.scheme
        ):
            raise Refusal(HTTPStatus.FORBIDDEN, "this did not come from the page itself")
        body = self._body()
        if path == "/login":
            self._log_in(body)
            return
        person = self._who()
        if person is None:
            raise Refusal(HTTPStatus.UNAUTHORIZED, "log in first")
        if path == "/logout":
            site.access.log_out(self.headers.get("Cookie", ""))
            self._redirect("/login", session_cookie("", secure=self._secure))
        elif path in _POSTS:
            self._json(HTTPStatus.OK, _POSTS[path](site, body, person))
        else:
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such page")

    def _log_in(self, body: bytes) -> None:
        access, address = self.server.site.access, str(self.client_address[0])
        if not access.needs_password:
            self._redirect("/")
            return
        form = parse_qs(body.decode("utf-8", "replace"), max_num_fields=4)
        name, password = (form.get(key, [""])[0] for key in ("name", "password"))
        try:
            token = access.log_in(name, password, address)
        except TooManyAttempts:
            logger.warning("too many wrong passwords, the last ones from %s", address)
            self._redirect("/login?wait")
            return
        if token is None:
            logger.warning("a wrong password for %r from %s", name[:40], address)
            self._redirect("/login?wrong")
            return
        logger.info("%s logged in from %s", name, address)
        self._redirect("/", session_cookie(token, secure=self._secure))

    def _events(self) -> None:
        server, site = self.server, self.server.site
        if not server.readers.acquire(blocking=False):
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open")
        try:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            version = -1
            numbers: dict[int, int] = {}
            while (new := site.changes.wait(version, BEAT_S)) is not None:
                if self._who() is None:
                    return
                if new == version:
                    # Not a comment: the page's watchdog must hear it.
                    self.wfile.write(b"event: beat\ndata: {}\n\n")
                else:
                    state = api.snapshot(site, numbers)
                    version = new
                    numbers = {at: box["number"] for at, box in enumerate(state["boxes"])}
                    self.wfile.write(b"data: " + msgspec.json.encode(state) + b"\n\n")
                time.sleep(SHORTEST_INTERVAL_S)
        finally:
            server.readers.release()

    def _image(self, found: re.Match[str]) -> None:
        view = self.server.site.box(int(found[2])).view
        key = (found[3], int(found[4]))
        if found[1] == "picture":
            picture = view.picture(key)
            body, kind = None if picture is None else picture.jpeg, "image/jpeg"
        else:
            body, kind = view.map_png(key, overlay=found[1] == "overlay"), "image/png"
        if body is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "this picture is not kept")
        # A part's picture never changes: what the browser has, it need not fetch again.
        self._send(HTTPStatus.OK, kind, body, cache="private, max-age=3600, immutable")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BODY_BYTES:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too much, or of unknown length")
        return self.rfile.read(int(length))

    def _who(self) -> Person | None:
        return self.server.site.access.who(self.headers.get("Cookie", ""))

    @property
    def _secure(self) -> bool:
        return self.server.scheme == "https"

    def _redirect(self, to: str, cookie: str | None = None) -> None:
        self._send(HTTPStatus.SEE_OTHER, "text/plain", b"", {"Location": to}, cookie)

    def _json(self, status: HTTPStatus, value: object) -> None:
        self._send(status, "application/json", msgspec.json.encode(value))

    def _send(
        self,
        status: HTTPStatus,
        kind: str,
        body: bytes,
        more: dict[str, str] | None = None,
        cookie: str | None = None,
        cache: str = "no-store",
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": cache}
        for name, value in {**headers, **SECURITY, **(more or {})}.items():
            self.send_header(name, value)
        if cookie is not None:
            self.send_header("Set-Cookie", cookie)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
