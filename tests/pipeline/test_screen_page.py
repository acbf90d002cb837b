"""The operator's page over real sockets: what it shows of a box, and that it stays bounded."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skrd4ad.pipeline.records import Verdict
from skrd4ad.pipeline.screen.boxes import Endpoints
from skrd4ad.pipeline.screen.live import GALLERY, HISTORY
from skrd4ad.pipeline.screen.part_images import KEPT
from skrd4ad.pipeline.screen.web_server import MOST_READERS


@pytest.fixture
def box(box_parts: ModuleType) -> Iterator[Any]:
    box = box_parts.Box(map_policy="ng")
    yield box
    box.close()


@pytest.fixture
def page(screen_parts: ModuleType, box: Any) -> Iterator[Any]:
    maps = box.publisher.maps_endpoint
    page = screen_parts.Page([Endpoints(box.events, maps)])
    box.wait_for_clients(1)
    yield page
    page.close()


@pytest.fixture
def result(screen_parts: ModuleType) -> Any:
    return screen_parts.result


def pixels(answer: Any) -> Any:
    return np.asarray(Image.open(io.BytesIO(answer.read())))


def test_the_newest_verdict_its_map_and_the_counters_are_shown(
    page: Any, box: Any, result: Any
) -> None:
    box.send(result(1), result(2, Verdict.NG, name="bad.png"))
    state = page.until(lambda s: s["number"] == 2 and s["last_reject"]["overlay"])
    assert state["box"] == "edge07"
    state = page.until(lambda s: s["status"]["ok"])
    assert state["cameras"][0]["last"]["verdict"] == "ng"
    assert state["counts"] == {"ok": 1, "ng": 1, "review": 0, "err": 0}
    assert [(one["verdict"], one["name"]) for one in state["history"]] == [
        ("ok", "1.png"),
        ("ng", "bad.png"),
    ]
    (shown,) = page.json("/api/parts?box=0")["parts"]
    assert shown["name"] == "bad.png"
    # The map has half the image's pixels each way, and both begin at the same edge.
    assert shown["overlay"] == {"x": -0.5, "y": -0.5, "width": 96.0, "height": 64.0}
    answer = page.get(f"/map/0/{shown['boot']}/{shown['seq']}.png")
    assert answer.headers["Content-Type"] == "image/png"
    assert "immutable" in answer.headers["Cache-Control"]
    painted = pixels(answer)
    assert painted.shape == (32, 48, 3)
    assert painted[8, 8].tolist() == [255, 255, 255]  # the outline
    assert painted[12, 12, 0] > 150 > painted[12, 12, 2]  # far above the threshold: red
    overlay = pixels(page.get(f"/overlay/0/{shown['boot']}/{shown['seq']}.png"))
    assert overlay.shape == (32, 48, 4)
    assert overlay[12, 12, 3] > 200
    assert overlay[0, 0, 3] < 40


def test_the_camera_s_picture_comes_with_its_place_on_the_captured_image(
    page: Any, box: Any, result: Any, screen_parts: ModuleType
) -> None:
    box.send(result(1))
    seq = page.until(lambda s: s["number"] == 1)["cameras"][0]["last"]["seq"]
    box.do(lambda: box.publisher.post_picture(screen_parts.picture(seq, grey=200)))
    state = page.until(lambda s: s["cameras"][0]["pictured"])
    shown = state["cameras"][0]["pictured"]
    assert (shown["picture"]["width"], shown["picture"]["height"]) == (96, 64)
    answer = page.get(f"/picture/0/{shown['boot']}/{seq}.jpg")
    assert answer.headers["Content-Type"] == "image/jpeg"
    picture = pixels(answer)
    assert picture.shape == (32, 48, 3)
    assert abs(int(picture[5, 5, 0]) - 200) < 4


def test_events_push_each_part_once_and_end_with_the_page(page: Any, box: Any, result: Any) -> None:
    box.send(result(1))
    stream = page.get("/events")
    assert stream.headers["Content-Type"] == "text/event-stream"
    numbers: list[int] = []
    for number in range(2, 6):
        box.send(result(number))
    while len(numbers) < 5:
        line = stream.readline()
        if line.startswith(b'data: {"boxes'):
            state = json.loads(line[6:])["boxes"][0]
            numbers += [entry["number"] for entry in state["history"]]
    assert numbers == [1, 2, 3, 4, 5]
    page.changes.close()
    assert b'"number":6' not in stream.read()


def test_a_silent_box_still_makes_the_page_s_server_speak(page: Any, box: Any) -> None:
    page.until(lambda s: s["box"])
    box.fall_silent()
    page.until(lambda s: s["status"].get("alive") is False)
    stream = page.get("/events")
    lines = [stream.readline() for _ in range(9)]
    assert b"event: beat\n" in lines or sum(line.startswith(b'data: {"b') for line in lines) > 3


def test_a_line_that_stops_is_shown_as_stopped(page: Any, box: Any, result: Any) -> None:
    box.send(result(1))
    page.until(lambda s: s["number"] == 1)
    box.do(lambda: box.publisher.send_state("BYE", "shift over"))
    state = page.until(lambda s: not s["status"]["alive"])
    assert state["status"]["ok"] is False
    assert state["status"]["state"] == "BYE"
    assert any("shift over" in notice["text"] for notice in state["notices"])


def test_an_uninspected_part_has_no_score_and_no_map(page: Any, box: Any, result: Any) -> None:
    box.send(result(1, Verdict.ERR))
    page.until(lambda s: s["number"] == 1)
    (shown,) = page.json("/api/parts")["parts"]
    assert shown["score"] is None
    assert shown["evaluated"] is False
    assert shown["overlay"] is None


def test_alarms_appear_with_their_meaning_and_go(page: Any, box: Any) -> None:
    alarm = box.publisher.send_alarm
    box.do(lambda: alarm("camera_lost", True, "no frames for 3 s", camera="cam0"))
    state = page.until(lambda s: s["alarms"])
    assert state["alarms"][0]["name"] == "camera_lost"
    assert state["alarms"][0]["meaning"].startswith("a camera delivers no frames")
    box.do(lambda: alarm("camera_lost", False, "", camera="cam0"))
    page.until(lambda s: not s["alarms"])


def test_the_gallery_is_filtered_and_ordered(page: Any, box: Any, result: Any) -> None:
    box.send(
        result(1, Verdict.NG, score=0.8),
        result(2, Verdict.REVIEW, camera="left"),
        result(3, Verdict.ERR, reasons=("unreadable",)),
        result(4, Verdict.NG, score=0.95, simulated=True, truth="scratch"),
    )
    page.until(lambda s: s["number"] == 4)

    def names(query: str) -> list[str]:
        return [part["name"] for part in page.json(f"/api/parts?box=0&{query}")["parts"]]

    whole = page.json("/api/parts")
    assert whole["total"] == whole["found"] == 4
    assert whole["cameras"] == ["cam0", "left"]
    assert whole["kinds"] == [
        "reason:score",
        "reason:unreadable",
        "region:image",
        "rendered:scratch",
    ]
    assert names("") == ["4.png", "3.png", "2.png", "1.png"]
    assert names("verdict=ng") == ["4.png", "1.png"]
    assert names("camera=left") == ["2.png"]
    assert names("kind=reason:unreadable") == ["3.png"]
    assert names("kind=rendered:scratch") == ["4.png"]
    assert names("kind=region:image&verdict=review") == ["2.png"]
    assert names("order=score") == ["3.png", "4.png", "1.png", "2.png"]
    assert names("limit=1") == ["4.png"]
    assert names(f"since={time.time() + 60:.0f}") == []
    assert names(f"until={time.time() + 60:.0f}&since={time.time() - 600:.0f}") == names("")
    for wrong in ("since=x", "since=nan", "since=inf", "limit=-1"):
        assert page.get(f"/api/parts?{wrong}").status == 400
    assert page.get("/api/parts?box=7").status == 404


def test_trends_and_the_preview_are_answered(page: Any, box: Any, result: Any) -> None:
    box.send(*(result(number, score=0.01 * number) for number in range(1, 41)))
    box.send(result(41, Verdict.NG, score=0.6))
    page.until(lambda s: s["number"] == 41)
    trends = page.json("/api/trends?box=0")
    assert sum(minute["ok"] for minute in trends["minutes"]) == 40
    assert sum(group["n"] for group in trends["history"]) == 41
    assert page.json("/api/preview?box=0")["current"] == 0.5
    found = page.json("/api/preview?box=0&threshold=0.355")
    assert (found["n"], found["newly_rejected"], found["newly_passed"]) == (41, 5, 0)
    assert [part["name"] for part in found["changed"]] == [f"{n}.png" for n in range(40, 35, -1)]
    found = page.json("/api/preview?box=0&threshold=0.7")
    assert (found["newly_passed"], found["rejected_after"]) == (1, 0)
    assert [part["name"] for part in found["changed"]] == ["41.png"]


def test_memory_is_bounded_however_long_the_shift(page: Any, box: Any, result: Any) -> None:
    many = max(HISTORY, GALLERY) + 60
    for number in range(1, many + 1):
        box.send(result(number, Verdict.NG))
    state = page.until(lambda s: s["number"] == many)
    assert len(state["history"]) == HISTORY
    assert page.json("/api/parts")["total"] == GALLERY
    images = page.views[0]._images
    assert len(images._maps.kept) <= KEPT
    assert page.get("/map/0/0123456789abcdef/1.png").status == 404


def test_two_boxes_on_one_page_stay_apart(
    screen_parts: ModuleType, box_parts: ModuleType, box: Any, result: Any
) -> None:
    other = box_parts.Box(map_policy="ng")
    page = screen_parts.Page(
        [Endpoints(one.events, one.publisher.maps_endpoint) for one in (box, other)]
    )
    try:
        for one in (box, other):
            one.wait_for_clients(1)
        box.send(result(1, Verdict.NG))
        other.send(result(1), result(2))
        page.until(lambda s: s["number"] == 1)
        deadline = time.monotonic() + screen_parts.PATIENCE_S
        while (boxes := page.json("/state.json")["boxes"])[1]["number"] < 2:
            assert time.monotonic() < deadline
        assert [box["counts"]["ng"] for box in boxes] == [1, 0]
        assert len(page.json("/api/parts?box=0")["parts"]) == 1
        assert page.json("/api/parts?box=1")["parts"] == []
    finally:
        page.close()
        other.close()


def test_too_many_open_pages_are_refused_and_the_others_stay(page: Any) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_READERS):
            stream = page.get("/events")
            assert stream.status == 200
            stack.callback(stream.close)
        assert page.get("/events").status == 503
        assert page.get("/state.json").status == 200


@pytest.mark.parametrize(
    "path",
    ["/../cli.py", "/page.py", "/map/0/x/1.png", "/web/../access.py", "/web/", "/api/", "/logout"],
)
def test_nothing_else_is_served(page: Any, path: str) -> None:
    assert page.get(path).status == 404


def test_the_page_needs_no_internet_and_runs_no_foreign_program(page: Any) -> None:
    response = page.get("/")
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    names = [line.split('"')[0] for line in response.read().decode().split('"/web/')[1:]]
    assert {"base.css", "main.js", "icon.svg"} <= set(names)
    from skrd4ad.pipeline.screen.web_files import web_files

    for name, content in web_files().items():
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, name
        assert "https://" not in text, name
        assert "innerHTML" not in text, name
        assert len(text.splitlines()) < 400, name
        assert page.get(f"/web/{name}").status == 200
