"""The verb `serve`: its options, what it refuses, and that it starts and stops by itself."""

from __future__ import annotations

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from skrd4ad.cli import main
from skrd4ad.pipeline.screen.passwords import Passwords, read_people

PATIENCE_S = 60.0


def test_the_verb_waits_for_a_line_serves_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "skrd4ad", "serve", "--listen", "127.0.0.1:0"]
    command += ["--connect", "tcp://127.0.0.1:9", "--connect", "tcp://127.0.0.1:19"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.request("GET", "/state.json")
        boxes = json.loads(connection.getresponse().read())["boxes"]
        assert [box["connect"] for box in boxes] == ["tcp://127.0.0.1:9", "tcp://127.0.0.1:19"]
        assert all(box["number"] == 0 for box in boxes)
        assert not any(box["status"].get("alive", False) for box in boxes)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "the page is closed" in out
    assert "Traceback" not in err


def test_a_port_in_use_is_one_sentence_and_exit_code_6(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--listen", f"127.0.0.1:{port}"]) == 6
    assert f"error: port {port} is already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--listen", "8080"], 2, "8080"),
        (["--listen", "0.0.0.0:0"], 6, "can be reached by other hosts, and no password"),
        (["--connect", "tcp://box"], 2, "has no port"),
        (["--maps", "tcp://a:1", "--maps", "tcp://b:1"], 2, "--maps is there 2 times"),
        (["--key", "me.secret"], 2, "--key and --server-key go together"),
        (["--tls-cert", "page.pem"], 2, "--tls-cert and --tls-key go together"),
        (["--tls-cert", "no.pem", "--tls-key", "no.key"], 6, "cannot be used"),
        (["--password-file", "nowhere"], 6, "nowhere cannot be read"),
        (["--set-password", "ann"], 2, "--set-password needs --password-file"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    options: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["serve", *options]) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("error: ")
    assert "Traceback" not in shown


def test_a_password_is_set_changed_and_given_a_role(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people"
    for name, password, role in (
        ("ann", "correct horse battery", "engineer"),
        ("bob", "staple wagon lamp", "viewer"),
        ("ann", "other horse battery", "engineer"),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO(password + "\n"))
        options = ["--set-password", name, "--password-file", str(path), "--role", role]
        assert main(["serve", *options]) == 0
        assert f"{name} ({role}) is in {path}" in capsys.readouterr().out
    assert set(read_people(path)) == {"ann", "bob"}
    people = Passwords(path)
    assert people.role_of("ann", "correct horse battery") is None
    assert people.role_of("ann", "other horse battery") == "engineer"
    assert people.role_of("bob", "staple wagon lamp") == "viewer"
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    assert main(["serve", "--set-password", "eve", "--password-file", str(path)]) == 2
    assert "the password has 5 characters" in capsys.readouterr().err
    assert path.stat().st_mode & 0o777 == 0o600
