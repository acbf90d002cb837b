"""Secrets put in at every door, every way out searched for them: a real stream, real sockets."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest
from skrd4ad import cli
from skrd4ad.pipeline.security import ClientKeys
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import AlarmMessage

PATIENCE_S = 60.0
PAGES = ("metrics", "readyz", "healthz")
USER, PASSWORD = "inspektor", "Gehe1m-Wort"


@pytest.fixture
def camera() -> Iterator[Any]:
    """The motion-JPEG camera of test_network_camera.py."""
    path = Path(__file__).parent / "test_network_camera.py"
    spec = importlib.util.spec_from_file_location("network_camera", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.MotionJpeg()
    yield made
    made.close()


def fetched(address: str, log: IO[str]) -> str:
    """A page of the health process, which starts beside the line and may come after its READY."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return urllib.request.urlopen(address, timeout=PATIENCE_S).read().decode()
        except urllib.error.HTTPError as answer:
            return answer.read().decode()
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                log.seek(0)
                pytest.fail(f"nobody answers at {address}; the line's log: {log.read()}")
            time.sleep(0.1)


def test_no_secret_leaves_the_box_by_log_event_metric_or_file(
    streams: ModuleType, tiny_plan: Path, camera: Any, tmp_path: Path
) -> None:
    url = camera.url.replace("user:secret", f"{USER}:{PASSWORD}")
    journal, keys = tmp_path / "events.db", tmp_path / "keys"
    client = tmp_path / "client"
    assert cli.main(["keys", "new", str(keys)]) == 0
    assert cli.main(["keys", "new", str(client), "--client", "desk", "--role", "viewer"]) == 0
    assert cli.main(["keys", "allow", str(keys), str(client / "desk.key")]) == 0
    secret = json.loads((keys / "server.secret").read_text())["secret"]
    options = ["--plan", tiny_plan, "--camera", f"top={url}", "--log-format", "json"]
    options += ["--health", "127.0.0.1:0", "--journal", journal, "--keys", keys]
    events: list[str] = []
    debug = {**os.environ, "SKRD4AD_LOG": "DEBUG"}
    with streams.running(*options, environment=debug) as line:
        trusted = ClientKeys.read(client / "desk.secret", keys / "server.key")
        with Subscriber(line.ready["events"], keys=trusted) as stream:
            deadline = time.monotonic() + PATIENCE_S
            while stream.receive(1.0) is None:
                assert time.monotonic() < deadline, "nothing comes from the line"
            pages = [fetched(f"{line.ready['health']}/{page}", line.log) for page in PAGES]
            camera.close()  # the camera goes away: alarm, state, detail, log lines
            lost = False
            while not lost:
                assert time.monotonic() < deadline, "no alarm about the lost camera"
                item = stream.receive(1.0)
                events.append(repr(item))
                lost = isinstance(item, AlarmMessage) and item.header.name == "camera_lost"
            for _ in range(6):
                events.append(repr(stream.receive(1.0)))
        assert line.process.poll() is None, streams.read_all(line.log)[-2000:]
        line.process.terminate()
        out, _ = line.process.communicate(timeout=PATIENCE_S)
        err = streams.read_all(line.log)
    files = [path.read_bytes().decode("latin-1") for path in tmp_path.glob("events.db*")]
    everything = "\n".join([json.dumps(line.ready), out, err, *events, *pages, *files])
    assert len(files) >= 1
    assert "***@127.0.0.1" in everything  # the camera is named, so the search means something
    assert not re.search(f"{USER}|{PASSWORD}|{re.escape(secret)}", everything)
    logged = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert {"alarm", "state"} <= {one.get("event") for one in logged}
    alarm = next(one for one in logged if one.get("alarm") == "camera_lost")
    assert (alarm["code"], alarm["camera"], alarm["level"]) == (1001, "top", "error")


def test_check_config_and_errors_hide_the_password(tiny_plan: Path, tmp_path: Path) -> None:
    url = f"rtsp://{USER}:{PASSWORD}@127.0.0.1:1/x"
    command = [sys.executable, "-m", "skrd4ad", "stream", "--plan", str(tiny_plan)]
    for extra in (["--check-config"], []):
        done = subprocess.run(
            [*command, "--camera", url, *extra],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        text = done.stdout + done.stderr
        assert done.returncode == (0 if extra else 3)
        assert "***@127.0.0.1" in text
        assert PASSWORD not in text
