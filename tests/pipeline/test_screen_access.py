"""The door of the page: passwords, sessions, the rate of attempts, and whose requests they are."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.errors import ConfigError, NetworkError
from skrd4ad.pipeline.screen.access import (
    ATTEMPTS,
    ATTEMPTS_ALL,
    COOKIE,
    MOST_SESSIONS,
    SESSION_S,
    WINDOW_S,
    Access,
    Person,
    TooManyAttempts,
    session_cookie,
)
from skrd4ad.pipeline.screen.boxes import Endpoints
from skrd4ad.pipeline.screen.passwords import Passwords, set_password

NOBODY_THERE = Endpoints("tcp://127.0.0.1:9", "tcp://127.0.0.1:9")
PASSWORD = "correct horse battery"


class Known:
    """Knows one person without a slow hash, so that hundreds of attempts take no time."""

    def role_of(self, name: str, password: str) -> Any:
        return "engineer" if (name, password) == ("ann", "right") else None


class Hands:
    """A clock for `now_s`."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def cookie(token: str | None) -> str:
    assert token is not None
    return f"other=1; {COOKIE}={token}"


# ---- sessions -----------------------------------------------------------------------------------


def test_a_session_lasts_a_shift_and_ends_with_log_out() -> None:
    now = Hands()
    access = Access(Known(), now_s=now)
    assert access.log_in("ann", "wrong", "here") is None
    token = access.log_in("ann", "right", "here")
    assert access.who(cookie(token)) == Person("ann", "engineer")
    now.now_s += SESSION_S - 1
    assert access.who(cookie(token)) == Person("ann", "engineer")
    now.now_s += 2
    assert access.who(cookie(token)) is None
    token = access.log_in("ann", "right", "here")
    access.log_out(cookie(token))
    assert access.who(cookie(token)) is None


@given(st.text(max_size=80))
def test_no_invented_cookie_opens_the_door(text: str) -> None:
    access = Access(Known())
    assert access.log_in("ann", "right", "here")
    assert access.who(text) is None
    assert access.who(f"{COOKIE}={text}") is None


def test_sessions_are_bounded_the_oldest_go_first() -> None:
    access = Access(Known())
    tokens = [access.log_in("ann", "right", "here") for _ in range(MOST_SESSIONS + 1)]
    assert access.who(cookie(tokens[0])) is None
    assert all(access.who(cookie(token)) for token in tokens[1:])


def test_guessing_from_one_address_is_stopped_for_a_minute() -> None:
    now = Hands()
    access = Access(Known(), now_s=now)
    for _ in range(ATTEMPTS):
        assert access.log_in("ann", "wrong", "there") is None
    with pytest.raises(TooManyAttempts):
        access.log_in("ann", "right", "there")
    # Somebody at another desk is not locked out by it.
    assert access.log_in("ann", "right", "here")
    now.now_s += WINDOW_S + 1
    assert access.log_in("ann", "right", "there")


def test_guessing_from_many_addresses_is_stopped_too() -> None:
    access = Access(Known())
    for attempt in range(ATTEMPTS_ALL):
        assert access.log_in("ann", "wrong", f"address{attempt}") is None
    with pytest.raises(TooManyAttempts):
        access.log_in("ann", "right", "a new one")


def test_without_passwords_everybody_has_the_local_role() -> None:
    assert Access().who("") == Person("", "viewer")
    assert Access(local_role="engineer").who("") == Person("", "engineer")


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites() -> None:
    text = session_cookie("abc", secure=True)
    assert "HttpOnly" in text
    assert "SameSite=Strict" in text
    assert text.endswith("Secure")
    assert "Secure" not in session_cookie("abc", secure=False)
    assert "Max-Age=0" in session_cookie("", secure=False)


# ---- whose request ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "localhost:1", "[::1]:80"])
def test_the_computers_own_names_are_ours(host: str) -> None:
    assert Access().host_is_ours(host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.7", "a b", "[::1"],
)
def test_a_foreign_name_is_not_ours_on_a_local_page(host: str) -> None:
    assert not Access().host_is_ours(host)


def test_with_passwords_addresses_and_named_hosts_are_ours() -> None:
    access = Access(Known(), ["Line3.plant.example"], own_name=lambda: "edge07.plant.example")
    for host in (
        "10.0.0.7:8080",
        "edge07:8080",
        "edge07.local",
        "line3.plant.example",
        "[fe80::1]",
    ):
        assert access.host_is_ours(host), host
    assert not access.host_is_ours("evil.example")


def test_only_our_own_page_may_post() -> None:
    access = Access()
    assert access.is_own_request("http://localhost:8080", "localhost:8080", "http")
    for origin in ("", "null", "http://evil.example", "http://localhost:81", "https://localhost"):
        assert not access.is_own_request(origin, "localhost:8080", "http"), origin
    assert not access.is_own_request("http://", "", "http")


# ---- the password file --------------------------------------------------------------------------


def test_a_password_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "people"
    set_password(path, "ann", PASSWORD)
    path.chmod(0o640)
    with pytest.raises(NetworkError, match="can be read by other users"):
        Passwords(path)


@pytest.mark.parametrize(
    "line",
    [
        "ann:secret",
        "ann:owner:scrypt:32768:8:1:" + "0" * 32 + ":" + "0" * 64,
        "ann:viewer:scrypt:1024:8:1:" + "0" * 32 + ":" + "0" * 64,  # too cheap
        "ann:viewer:scrypt:32767:8:1:" + "0" * 32 + ":" + "0" * 64,  # not a power of two
        "ann:viewer:scrypt:1048576:8:1:" + "0" * 32 + ":" + "0" * 64,  # more memory than we give
    ],
)
def test_a_damaged_password_file_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "people"
    path.write_text(f"# who may log in\n\n{line}\n")
    path.chmod(0o600)
    with pytest.raises(NetworkError, match="line 3 is not a password line"):
        Passwords(path)
    path.write_text("# nobody\n")
    with pytest.raises(NetworkError, match="names nobody"):
        Passwords(path)


def test_passwords_are_kept_as_salted_hashes(tmp_path: Path) -> None:
    path = tmp_path / "people"
    set_password(path, "ann", PASSWORD, "engineer")
    set_password(path, "bob", PASSWORD)
    text = path.read_text()
    assert "correct" not in text
    assert len({line.split(":")[-1] for line in text.splitlines()}) == 2
    people = Passwords(path)
    assert people.role_of("ann", PASSWORD) == "engineer"
    assert people.role_of("bob", PASSWORD) == "viewer"
    for name, password in (("ann", "x"), ("eve", PASSWORD), ("ann", "y" * 2000), ("", "")):
        assert people.role_of(name, password) is None
    with pytest.raises(ConfigError, match="cannot be a name"):
        set_password(path, "a:b", PASSWORD)


# ---- over real sockets --------------------------------------------------------------------------


@pytest.fixture
def door(screen_parts: ModuleType, tmp_path: Path) -> Iterator[Any]:
    path = tmp_path / "people"
    set_password(path, "ann", PASSWORD, "engineer")
    page = screen_parts.Page([NOBODY_THERE], Access(Passwords(path)), listen="0.0.0.0:0")
    yield page
    page.close()


def log_in(page: Any, name: str, password: str, **headers: str) -> Any:
    form = urlencode({"name": name, "password": password}).encode()
    return page.ask("POST", "/login", form, **{"Origin": f"http://{page.host}", **headers})


def test_nothing_is_shown_without_a_password(door: Any) -> None:
    assert door.get("/").headers["Location"] == "/login"
    assert door.get("/login").status == 200
    for path in ("/state.json", "/events", "/api/parts", "/api/about", "/picture/0/0/1.jpg"):
        assert door.get(path).status == 401, path
    assert door.post("/api/feedback", {}, Origin=f"http://{door.host}")[0] == 401
    refused = log_in(door, "ann", "wrong")
    assert (refused.status, refused.headers["Location"]) == (303, "/login?wrong")
    assert refused.headers["Set-Cookie"] is None
    answer = log_in(door, "ann", PASSWORD)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    session = answer.headers["Set-Cookie"].partition(";")[0]
    assert door.get("/", Cookie=session).status == 200
    about = door.json("/api/about", Cookie=session)
    assert (about["who"], about["role"], about["log_out"]) == ("ann", "engineer", True)
    out = door.ask("POST", "/logout", b"", Cookie=session, Origin=f"http://{door.host}")
    assert (out.status, out.headers["Location"]) == (303, "/login")
    assert door.get("/state.json", Cookie=session).status == 401


def test_another_site_s_page_cannot_log_in_or_post(door: Any) -> None:
    for origin in ("http://evil.example", "null", ""):
        assert log_in(door, "ann", PASSWORD, Origin=origin).status == 403, origin
    assert door.get("/", Host="evil.example").status == 403
    assert door.get("/web/main.js", Host="evil.example").status == 403


def test_guessing_over_http_is_stopped(door: Any) -> None:
    for _ in range(ATTEMPTS):
        assert log_in(door, "ann", "wrong").headers["Location"] == "/login?wrong"
    assert log_in(door, "ann", PASSWORD).headers["Location"] == "/login?wait"


def test_an_address_that_others_reach_needs_passwords(screen_parts: ModuleType) -> None:
    with pytest.raises(NetworkError, match="can be reached by other hosts"):
        screen_parts.Page([NOBODY_THERE], listen="0.0.0.0:0")


@pytest.mark.parametrize(
    ("length", "status"), [("300000", 413), ("-1", 413), ("x", 413), ("", 413)]
)
def test_a_body_too_large_is_refused_unread(door: Any, length: str, status: int) -> None:
    with socket.create_connection(door.server.server_address[:2], timeout=30) as connection:
        lines = [
            "POST /login HTTP/1.1",
            f"Host: {door.host}",
            f"Origin: http://{door.host}",
            *([f"Content-Length: {length}"] if length else []),
        ]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while chunk := connection.recv(4096):  # the server closes: nothing can be smuggled in
            answer += chunk
    assert answer.startswith(f"HTTP/1.1 {status}".encode())


def test_https_encrypts_and_marks_its_cookie(screen_parts: ModuleType, tmp_path: Path) -> None:
    certificate, key, people = (tmp_path / name for name in ("page.pem", "page.key", "people"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    set_password(people, "ann", PASSWORD)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    page = screen_parts.Page([NOBODY_THERE], Access(Passwords(people)), tls=context)
    try:
        trust = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection(page.host, timeout=30, context=trust)
        form = urlencode({"name": "ann", "password": PASSWORD}).encode()
        connection.request("POST", "/login", form, {"Origin": f"https://{page.host}"})
        answer = connection.getresponse()
        assert answer.headers["Location"] == "/"
        assert answer.headers["Set-Cookie"].endswith("Secure")
        # Somebody who speaks plain HTTP to it, or nothing at all, blocks nobody.
        with socket.create_connection(page.server.server_address[:2], timeout=30) as silent:
            silent.sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection = http.client.HTTPSConnection(page.host, timeout=30, context=trust)
            connection.request("GET", "/login")
            assert connection.getresponse().status == 200
    finally:
        page.close()


def test_the_refusals_are_sentences(door: Any) -> None:
    body = json.loads(door.get("/state.json").read())
    assert body == {"error": "log in first"}
