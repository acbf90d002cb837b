"""Who may use the page: sessions, the rate of attempts, and which requests are our own page's.

No sockets and no clock of its own: requests are described by their headers, time is handed in.
"""

from __future__ import annotations

import hashlib
import http.cookies
import ipaddress
import re
import secrets
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

COOKIE = "skrd4ad_session"
SESSION_S = 12 * 3600.0
"""A shift and a little more; then the password is asked for again."""
MOST_SESSIONS = 64
ATTEMPTS, ATTEMPTS_ALL, WINDOW_S = 5, 30, 60.0
"""Wrong passwords in a minute from one address, and from all of them."""
Role = Literal["viewer", "engineer"]
ROLES: tuple[Role, ...] = get_args(Role)
"""A viewer looks and gives feedback; an engineer also changes regions and threshold."""
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Person:
    """Who uses the page; `name` is "" where nobody has to say it."""

    name: str
    role: Role


class Checker(Protocol):
    """What knows passwords; see passwords.Passwords."""

    def role_of(self, name: str, password: str) -> Role | None: ...


class TooManyAttempts(Exception):
    """Somebody guesses; nothing is looked at until the minute is over."""


class Access:
    """The door of one page. `passwords` None: a page for its own computer, where all are let in
    with `local_role`.

    `names` are further host names under which the page may be asked for. Thread-safe.
    """

    def __init__(
        self,
        passwords: Checker | None = None,
        names: Sequence[str] = (),
        now_s: Callable[[], float] = time.monotonic,
        own_name: Callable[[], str] = socket.gethostname,
        local_role: Role = "viewer",
    ) -> None:
        self._local = Person("", local_role)
        self._passwords = passwords
        host = own_name().lower()
        short = host.partition(".")[0]
        self._names = {host, short, f"{short}.local", *(name.lower() for name in names)}
        self._now_s = now_s
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        self._sessions: OrderedDict[bytes, tuple[Person, float]] = OrderedDict()
        self._failures: deque[tuple[float, str]] = deque(maxlen=10 * ATTEMPTS_ALL)

    @property
    def needs_password(self) -> bool:
        return self._passwords is not None

    def log_in(self, name: str, password: str, address: str) -> str | None:
        """A new session's token, or None for a wrong name or password.

        Raises TooManyAttempts. Passwords are looked at one at a time: each costs 32 MB and a tenth
        of a second, which somebody else must not be able to multiply.
        """
        assert self._passwords is not None
        with self._one_at_a_time:
            if self._guessing(address):
                raise TooManyAttempts
            role = self._passwords.role_of(name, password)
            if role is None:
                with self._lock:
                    self._failures.append((self._now_s(), address))
                return None
            token = secrets.token_urlsafe(32)
            with self._lock:
                self._sessions[_digest(token)] = (Person(name, role), self._now_s() + SESSION_S)
                while len(self._sessions) > MOST_SESSIONS:
                    self._sessions.popitem(last=False)
            return token

    def log_out(self, cookies: str) -> None:
        with self._lock:
            self._sessions.pop(_digest(_token(cookies)), None)

    def who(self, cookies: str) -> Person | None:
        """The person of a Cookie header; the local one where no password is needed; else None."""
        if self._passwords is None:
            return self._local
        with self._lock:
            person, until_s = self._sessions.get(_digest(_token(cookies)), (None, 0.0))
            return person if self._now_s() < until_s else None

    def host_is_ours(self, host: str) -> bool:
        """Whether a Host header is one under which this page is reached.

        Another site can point its own name at this address and use the page through a visitor's
        browser (DNS rebinding); the header then carries that name. A bare address cannot be bent.
        """
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower()
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name == "localhost" or (self.needs_password and name in self._names)
        return address.is_loopback or self.needs_password

    def is_own_request(self, origin: str, host: str, scheme: str) -> bool:
        """Whether a POST comes from our own page, by the Origin that the browser states."""
        return bool(host) and origin.lower() == f"{scheme}://{host}".lower()

    def _guessing(self, address: str) -> bool:
        with self._lock:
            since = self._now_s() - WINDOW_S
            recent = [where for when, where in self._failures if when > since]
        return recent.count(address) >= ATTEMPTS or len(recent) >= ATTEMPTS_ALL


def session_cookie(token: str, *, secure: bool) -> str:
    """A Set-Cookie value. No script can read it and no other site's page sends it."""
    life = f"Max-Age={int(SESSION_S)}" if token else "Max-Age=0"
    text = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; {life}"
    return text + ("; Secure" if secure else "")


def _token(cookies: str) -> str:
    try:
        jar = http.cookies.SimpleCookie(cookies)
    except http.cookies.CookieError:
        return ""
    return jar[COOKIE].value if COOKIE in jar else ""


def _digest(token: str) -> bytes:
    # Looked up by digest, so that neither timing nor a dump of memory gives a token away.
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
