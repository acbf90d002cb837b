"""The operator's page over real sockets: what it shows, to whom, and that it stays bounded."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skrd4ad.cli import main
from skrd4ad.errors import NetworkError
from skrd4ad.pipeline.live import GALLERY, HISTORY, MAPS, LiveView, paint_map
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Defect, Latency, Part, Result, Verdict
from skrd4ad.pipeline.serve import feed
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.web_server import MOST_READERS, PageServer
from skrd4ad.pipeline.wire_messages import HealthFields

PATIENCE_S = 30.0


def result(number: int, verdict: Verdict = Verdict.OK, name: str = "") -> Result:
    values = np.zeros((32, 32), np.float32)
    values[8:16, 8:16] = {Verdict.OK: 0.1, Verdict.NG: 0.9}.get(verdict, 0.55)
    return Result(
        camera="cam0",
        camera_seq=number,
        frame_id=number,
        captured_ns=time.time_ns(),
        captured_mono_ns=time.monotonic_ns(),
        captured_source="file",
        captured_error_ns=0,
        part=Part(),
        name=name or f"{number}.png",
        verdict=verdict,
        reasons=() if verdict is Verdict.OK else ("score",),
        evaluated=verdict is not Verdict.ERR,
        score=float("nan") if verdict is Verdict.ERR else float(values.max()),
        threshold=0.5,
        defects=(Defect("image", 0.9, 0.5, 64, (8, 8, 8, 8), (9, 9)),)
        if verdict is Verdict.NG
        else (),
        latency=Latency(),
        anomaly_map=None if verdict is Verdict.ERR else values,
        map_to_image=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    )


class Page:
    """A page being served and the line it shows."""

    def __init__(self, publisher: Publisher, server: PageServer, view: LiveView) -> None:
        self.publisher, self.server, self.view = publisher, server, view

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        host, port = self.server.server_address[:2]
        connection = http.client.HTTPConnection(str(host), int(port), timeout=PATIENCE_S)
        connection.request("GET", path, headers=headers)
        return connection.getresponse()

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/state.json").read())
        return found

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while not holds(state := self.state()):
            assert time.monotonic() < deadline, state
            time.sleep(0.02)
        return state


@pytest.fixture
def page() -> Iterator[Page]:
    free = "tcp://127.0.0.1:0"
    settings = PublishSettings(events=free, maps=free, map_policy="all")
    view, stop = LiveView(), threading.Event()
    with Publisher(settings, "edge07") as publisher:
        stream = Subscriber(publisher.events_endpoint, publisher.maps_endpoint)
        stream.open()
        server = PageServer("127.0.0.1:0", view)
        feeder = threading.Thread(target=feed, args=(stream, view, stop))
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        feeder.start()
        serving.start()
        try:
            assert publisher.wait_for_subscribers(1, PATIENCE_S)
            publisher.send_state("RUNNING")
            publisher.heartbeat_if_due(HealthFields(ready=True, uptime_s=1.0))
            yield Page(publisher, server, view)
        finally:
            stop.set()
            view.close()
            server.shutdown()
            server.server_close()
            feeder.join(PATIENCE_S)
            serving.join(PATIENCE_S)
            stream.close()


def test_the_newest_verdict_its_map_and_the_counters_are_shown(page: Page) -> None:
    page.publisher.send_result(result(1))
    page.publisher.send_result(result(2, Verdict.NG, name="bad.png"))
    state = page.until(lambda s: s["number"] == 2 and s["gallery"] and s["gallery"][0]["has_map"])
    assert state["box"] == "edge07"
    assert state["status"]["ok"] is True
    assert state["last"]["verdict"] == "ng"
    assert state["counts"] == {"ok": 1, "ng": 1, "review": 0, "err": 0}
    assert [entry["verdict"] for entry in state["history"]] == ["ok", "ng"]
    (shown,) = state["gallery"]
    assert shown["name"] == "bad.png"
    picture = page.get(f"/map/{shown['boot']}/{shown['seq']}.png")
    assert picture.headers["Content-Type"] == "image/png"
    pixels = np.asarray(Image.open(io.BytesIO(picture.read())))
    assert pixels.shape == (32, 32, 3)
    assert pixels[8, 8].tolist() == [255, 255, 255]  # the outline
    assert pixels[12, 12, 0] > 150 > pixels[12, 12, 2]  # far above the threshold: red
    assert pixels[0, 0].tolist() == [14, 18, 34]


def test_the_colour_scale_is_fixed_with_the_threshold_at_its_middle() -> None:
    raw = np.arange(256, dtype=np.uint8).reshape(16, 16)
    painted = paint_map(np.where(raw > 127, 0, raw).astype(np.uint8))
    assert painted[0, 0].tolist() == [14, 18, 34]
    assert painted[7, 15].tolist() == pytest.approx([250, 210, 50], abs=4)
    assert not (paint_map(np.full((8, 8), 127, np.uint8)) == 255).all(axis=2).any()
    assert (paint_map(np.full((8, 8), 128, np.uint8)) == 255).all(axis=2).any()


def test_events_push_each_part_once_and_end_with_the_server(page: Page) -> None:
    page.publisher.send_result(result(1))
    stream = page.get("/events")
    assert stream.headers["Content-Type"] == "text/event-stream"
    numbers: list[int] = []
    for index in range(2, 6):
        page.publisher.send_result(result(index))
    while len(numbers) < 5:
        line = stream.readline()
        if line.startswith(b"data: "):
            numbers += [entry["number"] for entry in json.loads(line[6:])["history"]]
    assert numbers == [1, 2, 3, 4, 5]
    page.view.close()
    rest = stream.read()
    assert b'"number": 6' not in rest


def test_a_line_that_stops_is_shown_as_stopped(page: Page) -> None:
    page.publisher.send_result(result(1))
    page.until(lambda s: s["number"] == 1)
    page.publisher.close("shift over")
    state = page.until(lambda s: not s["status"]["alive"])
    assert state["status"]["ok"] is False
    assert state["status"]["state"] == "BYE"
    assert any("shift over" in notice["text"] for notice in state["notices"])


def test_an_uninspected_part_has_no_score_and_no_map(page: Page) -> None:
    page.publisher.send_result(result(1, Verdict.ERR))
    state = page.until(lambda s: s["number"] == 1)
    assert state["last"]["score"] is None
    assert state["last"]["evaluated"] is False
    assert state["gallery"][0]["has_map"] is False


def test_alarms_appear_and_go(page: Page) -> None:
    page.publisher.send_alarm("camera_lost", True, "no frames for 3 s", camera="cam0")
    state = page.until(lambda s: s["alarms"])
    assert state["alarms"][0]["name"] == "camera_lost"
    page.publisher.send_alarm("camera_lost", False, "", camera="cam0")
    page.until(lambda s: not s["alarms"])


def test_memory_is_bounded_however_long_the_shift(page: Page) -> None:
    for number in range(1, HISTORY + 100):
        page.publisher.send_result(result(number, Verdict.NG))
        if number % 50 == 0:  # the map socket drops for a slow reader; give it a moment
            time.sleep(0.02)
    state = page.until(lambda s: s["number"] == HISTORY + 99)
    assert len(state["history"]) == HISTORY
    assert len(state["gallery"]) == GALLERY
    assert len(page.view._maps) <= MAPS
    assert page.get("/map/0123456789abcdef/1.png").status == 404


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "localhost:1", "[::1]:80"])
def test_the_computers_own_names_are_answered(page: Page, host: str) -> None:
    assert page.get("/", Host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""]
)
def test_a_foreign_name_that_points_here_is_refused(page: Page, host: str) -> None:
    for path in ("/", "/state.json", "/events"):
        assert page.get(path, Host=host).status == 403


@pytest.mark.parametrize(
    "path", ["/../cli.py", "/page.py", "/map/x/1.png", "/web/page.html", "/page.js/"]
)
def test_nothing_else_is_served(page: Page, path: str) -> None:
    assert page.get(path).status == 404


def test_the_page_needs_no_internet_and_runs_no_foreign_program(page: Page) -> None:
    response = page.get("/")
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    for path in ("/", "/page.js", "/page.css"):
        body = page.get(path).read().decode()
        assert "http://" not in body
        assert "https://" not in body
        assert "innerHTML" not in body


def test_too_many_open_pages_are_refused_and_the_others_stay(page: Page) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_READERS):
            stream = page.get("/events")
            assert stream.status == 200
            stack.callback(stream.close)
        assert page.get("/events").status == 503
        assert page.get("/state.json").status == 200


def test_an_address_that_others_reach_needs_a_word() -> None:
    with pytest.raises(NetworkError, match="can be reached by other hosts"):
        PageServer("0.0.0.0:0", LiveView())
    server = PageServer("0.0.0.0:0", LiveView(), insecure=True)
    server.server_close()


def test_a_port_in_use_is_one_sentence_and_exit_code_6(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--listen", f"127.0.0.1:{port}"]) == 6
    assert f"error: port {port} is already in use" in capsys.readouterr().err
    assert main(["serve", "--listen", "8080"]) == 2


def test_the_verb_waits_for_a_line_serves_and_ends_on_sigterm() -> None:
    command = [sys.executable, "-m", "skrd4ad", "serve", "--listen", "127.0.0.1:0"]
    command += ["--connect", "tcp://127.0.0.1:9", "--maps", "tcp://127.0.0.1:9"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.request("GET", "/state.json")
        state = json.loads(connection.getresponse().read())
        assert state["last"] is None
        assert state["status"].get("alive", False) is False
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "the page is closed" in out
    assert "Traceback" not in err
