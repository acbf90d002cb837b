"""One line an event, and never a secret in it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.logs import JsonFormatter, TextFormatter, with_fields
from skrd4ad.redaction import keep_secret, redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:p4ss@host:554/x", "rtsp://***@host:554/x"),
        ("rtsp://user:p@ss/w:rd@host/x", "rtsp://***@host/x"),
        ("rtsp://user@host/x", "rtsp://***@host/x"),
        ("'rtsp://u:p@a/1' and http://u:q@b/2", "'rtsp://***@a/1' and http://***@b/2"),
        ("http://host/x", "http://host/x"),
        ("mail me@example.org", "mail me@example.org"),
        ("?user=me&password=geheim&fps=3", "?user=me&password=***&fps=3"),
        ('{"token": "abc"}', '{"token": "***"}'),
        ("api_key=abc, secret: xyz", "api_key=***, secret: ***"),
    ],
)
def test_what_is_hidden_and_what_is_not(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown


@given(
    st.text(st.characters(exclude_categories=("Z", "C"), exclude_characters="'\"<>"), min_size=4),
    st.sampled_from(["rtsp://{}:{}@10.0.0.7/live", "camera http://u{}:{}@cam.local: lost"]),
)
def test_no_password_survives(password: str, form: str) -> None:
    marked = f"Zz{password}zZ"
    assert marked not in redacted(form.format("user", marked))


def test_a_secret_that_was_named_is_hidden_everywhere() -> None:
    keep_secret("J0hn{D0e}&Co=:1234")
    assert redacted("the key J0hn{D0e}&Co=:1234 is bad") == "the key *** is bad"
    keep_secret("")
    keep_secret("ab")
    assert redacted("about") == "about"


def record(message: str, *values: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("x").makeRecord(
        "x.y", logging.WARNING, "f.py", 1, message, values, None, extra=dict(extra)
    )
    made.created, made.msecs = 1.5, 500.0
    return made


def test_a_json_line_is_one_object_with_its_fields() -> None:
    fields = with_fields(code=1001, camera="a", text="http://u:p@h", active=True)
    line = JsonFormatter().format(record("lost %s\nsecond line", "rtsp://u:p@h/x", **fields))
    assert "\n" not in line
    found = json.loads(line)
    assert found["time"] == "1970-01-01T00:00:01.500Z"
    assert found["level"] == "warning"
    assert found["message"] == "lost rtsp://***@h/x\nsecond line"
    assert (found["code"], found["active"], found["text"]) == (1001, True, "http://***@h")


def test_a_traceback_loses_its_secrets_in_both_formats() -> None:
    try:
        raise ValueError("cannot open rtsp://user:geheim@host/x")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    for formatter in (JsonFormatter(), TextFormatter()):
        made.exc_text = None
        text = formatter.format(made)
        assert "ValueError" in text
        assert "geheim" not in text


def test_a_user_s_mistake_is_one_json_line_when_a_program_reads_the_log(tmp_path: Path) -> None:
    station = tmp_path / "station.yaml"
    station.write_text("log_format: json\ncameras: [{uri: 'rtsp://u:geheim@127.0.0.1:1/x'}]\n")
    done = subprocess.run(
        [sys.executable, "-m", "skrd4ad", "stream", "--station", str(station)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    assert found["message"] == "no plan is named"
    assert found["exit_code"] == 2
    assert found["hint"]


@pytest.mark.parametrize("setting", ["SKRD4AD_LOG_FORMAT=xml", "SKRD4AD_LOG=LOUD"])
def test_a_log_that_does_not_exist_is_a_usage_error(setting: str) -> None:
    name, _, value = setting.partition("=")
    done = subprocess.run(
        [sys.executable, "-m", "skrd4ad", "doctor"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert setting in done.stderr
    assert "Traceback" not in done.stderr
