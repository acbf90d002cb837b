"""What the page sends: feedback, a threshold, and regions; to whom it lets do it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from skrd4ad.calibration.regions import load_regions
from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.key_files import write_key_pair
from skrd4ad.pipeline.records import Verdict
from skrd4ad.pipeline.replay import replay_client
from skrd4ad.pipeline.screen.access import Access
from skrd4ad.pipeline.screen.boxes import Endpoints
from skrd4ad.pipeline.screen.region_desk import RegionDesk
from skrd4ad.pipeline.security import ClientKeys, new_key_pair

FREE = "tcp://127.0.0.1:0"


class Screen:
    """A box with journal and control, its line, and a page for people of one role."""

    def __init__(self, screen_parts: ModuleType, box_parts: ModuleType, folder: Path) -> None:
        self.parts = screen_parts
        self.box = box_parts.Box(journal=folder / "journal.sqlite", map_policy="ng", control=FREE)
        self.line = screen_parts.AskedLine()
        self.box.publisher.control(self.line)
        publisher = self.box.publisher
        self.endpoints = Endpoints(
            publisher.events_endpoint,
            publisher.maps_endpoint,
            publisher.replay_endpoint,
            publisher.control_endpoint,
        )
        self.regions = folder / "regions"
        self.pages: list[Any] = []

    def page(self, role: str = "engineer", control: bool = True, desk: bool = True) -> Any:
        endpoints = self.endpoints
        if not control:
            endpoints = Endpoints(endpoints.events, endpoints.maps)
        page = self.parts.Page(
            [endpoints], Access(local_role=role), RegionDesk(self.regions) if desk else None
        )
        self.pages.append(page)
        self.box.wait_for_clients(1)
        return page

    def close(self) -> None:
        for page in self.pages:
            page.close()
        self.box.close()


@pytest.fixture
def screen(screen_parts: ModuleType, box_parts: ModuleType, tmp_path: Path) -> Iterator[Screen]:
    screen = Screen(screen_parts, box_parts, tmp_path)
    yield screen
    screen.close()


def test_feedback_reaches_the_box_with_who_said_it(screen: Screen) -> None:
    page = screen.page("viewer")
    screen.box.send(screen.parts.result(1, Verdict.NG))
    part = page.until(lambda s: s["number"] == 1)["last_reject"]
    said = {"box": 0, "boot": part["boot"], "seq": part["seq"], "truth": "ok", "who": "Ann"}
    assert page.post("/api/feedback", said) == (200, {"truth": "ok", "who": "Ann"})
    (shown,) = page.json("/api/parts")["parts"]
    assert shown["mark"] == {"truth": "ok", "who": "Ann"}
    with ControlClient(screen.endpoints.control, patience_s=30) as line:
        (entry,) = line.audit()
    assert entry.op == "feedback"
    assert '"who":"Ann"' in entry.arguments
    # What a person said counts in the preview.
    assert page.json("/api/preview?threshold=0.5")["good_marked"] == 1


def test_feedback_for_another_run_of_the_line_goes_nowhere(screen: Screen) -> None:
    page = screen.page()
    status, answer = page.post(
        "/api/feedback", {"box": 0, "boot": "0" * 16, "seq": 4711, "truth": "ng"}
    )
    assert status == 409
    assert "no part of that run" in answer["error"]
    assert page.views[0].parts("", None)[1].tolist() == []


def test_without_control_the_page_says_what_is_missing(screen: Screen) -> None:
    page = screen.page(control=False)
    screen.box.send(screen.parts.result(1))
    page.until(lambda s: s["number"] == 1)
    said = {"box": 0, "boot": screen.box.publisher.boot, "seq": 2, "truth": "ok"}
    status, answer = page.post("/api/feedback", said)
    assert status == 409
    assert "--control" in answer["error"]


def test_a_box_that_does_not_answer_is_said_so(screen: Screen, box_parts: ModuleType) -> None:
    gone = Endpoints(*["tcp://127.0.0.1:9"] * 2, None, f"tcp://127.0.0.1:{box_parts.free_port()}")
    page = screen.parts.Page([gone], Access(local_role="engineer"))
    screen.pages.append(page)
    status, answer = page.post("/api/threshold", {"box": 0, "value": 0.4})
    assert status == 502
    assert "no answer from" in answer["error"]


def test_a_threshold_is_ordered_by_engineers_only(screen: Screen) -> None:
    page = screen.page("viewer")
    status, answer = page.post("/api/threshold", {"box": 0, "value": 0.4})
    assert status == 403
    assert "only an engineer may" in answer["error"]
    assert screen.line.asked == []
    page = screen.page("engineer")
    order = {"box": 0, "value": 0.4, "who": "Ann"}
    assert page.post("/api/threshold", order) == (200, {"value": 0.4, "revision": 7})
    assert screen.line.asked == [("threshold", "", "", 0.4, "Ann")]
    order = {"box": 0, "value": 0.3, "camera": "cam0", "region": "lead"}
    assert page.post("/api/threshold", order)[0] == 200
    assert screen.line.asked[1:] == [("threshold", "cam0", "lead", 0.3, "local")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"box": 0, "value": "high"},
        {"box": 0, "value": 1e300},
        {"box": 0, "value": 0.4, "plan": "x.plan"},
        {"box": "0", "value": 0.4},
    ],
)
def test_an_order_that_is_none_is_refused(screen: Screen, body: object) -> None:
    page = screen.page()
    assert page.post("/api/threshold", body)[0] == 400
    assert page.post("/api/threshold", {"box": 3, "value": 0.4})[0] == 404
    assert screen.line.asked == []


def test_orders_of_other_sites_are_refused(screen: Screen) -> None:
    page = screen.page()
    order = {"box": 0, "value": 0.4}
    for origin in ("http://evil.example", "", "null"):
        assert page.post("/api/threshold", order, Origin=origin)[0] == 403
    assert page.get("/api/threshold").status == 404
    assert screen.line.asked == []


DRAWN = {
    "image_width": 96,
    "image_height": 64,
    "ignore": [[[0, 0], [10, 0], [0, 10]]],
    "regions": [
        {"name": "lead", "polygon": [[20, 20], [40, 20], [40, 40], [20, 40]], "threshold": 0.7}
    ],
}


def body(regions: dict[str, Any], digest: str = "") -> dict[str, Any]:
    return {"box": 0, "camera": "cam0", "digest": digest, "regions": regions}


def seen(screen: Screen) -> Any:
    """A page that has seen a picture and a map of cam0."""
    page = screen.page()
    screen.box.send(screen.parts.result(1, Verdict.NG))
    seq = page.until(lambda s: s["number"] == 1)["last_reject"]["seq"]
    screen.box.do(lambda: screen.box.publisher.post_picture(screen.parts.picture(seq)))
    page.until(lambda s: s["cameras"][0]["pictured"] and s["cameras"][0]["map"])
    return page


def test_regions_are_stored_where_calibration_reads_them(screen: Screen) -> None:
    page = seen(screen)
    before = page.json("/api/regions?box=0&camera=cam0")
    assert (before["digest"], before["regions"]) == ("", None)
    status, stored = page.post("/api/regions", body(DRAWN))
    assert status == 200, stored
    path = screen.regions / "edge07" / "cam0.yaml"
    assert stored["path"] == str(path)
    regions = load_regions(path)
    assert regions.regions[0].name == "lead"
    assert regions.regions[0].threshold == 0.7
    assert page.json("/api/regions?box=0&camera=cam0") == stored
    # With an outdated digest nothing is overwritten.
    assert page.post("/api/regions", body(DRAWN))[0] == 409
    renamed = {**DRAWN, "regions": [{**DRAWN["regions"][0], "name": "lid"}]}
    status, _ = page.post("/api/regions", body(renamed, stored["digest"]))
    assert status == 200
    assert load_regions(path).regions[0].name == "lid"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_width": 95}, "95 x 64 pixels, but the picture has 96 x 64"),
        ({"ignore": [[[0, 0], [10, 0]]]}, "at least 3"),
        ({"ignore": [[[0, 0], [96, 0], [0, 10]]]}, "outside"),
        ({"ignore": [[[-0.5, -0.5], [95.5, -0.5], [95.5, 63.5], [-0.5, 63.5]]]}, "covers no pixel"),
        ({"regions": [{"name": "Lead", "polygon": [[0, 0], [9, 0], [0, 9]]}]}, "not a usable"),
        ({"colour": "red"}, "unknown field"),
    ],
)
def test_regions_that_the_line_would_refuse_are_not_stored(
    screen: Screen, change: dict[str, Any], said: str
) -> None:
    page = seen(screen)
    status, answer = page.post("/api/regions", body({**DRAWN, **change}))
    assert status == 422
    assert said in answer["error"]
    assert not screen.regions.exists()


def test_regions_need_an_engineer_a_folder_and_a_real_camera(screen: Screen) -> None:
    assert screen.page("viewer").post("/api/regions", body(DRAWN))[0] == 403
    assert screen.page(desk=False).post("/api/regions", body(DRAWN))[0] == 409
    page = screen.page()
    page.until(lambda s: s["box"])
    for camera in ("../cam0", "", "a/b", "."):
        status, _ = page.post("/api/regions", {**body(DRAWN), "camera": camera})
        assert status == 422, camera
        assert page.get(f"/api/regions?camera={camera}").status == 422
    assert not screen.regions.exists()


@pytest.mark.parametrize(("role", "status"), [("viewer", 409), ("engineer", 200)])
def test_the_role_of_the_page_s_key_counts_at_the_box(
    screen_parts: ModuleType, box_parts: ModuleType, tmp_path: Path, role: str, status: int
) -> None:
    """An engineer at the page cannot do more than the page itself may at a box with keys."""
    folder, mine = tmp_path / "keys", tmp_path / "mine"
    write_key_pair(folder, "server", "server", *new_key_pair())
    write_key_pair(mine, "page", role, *new_key_pair())
    (folder / "allowed").mkdir()
    (folder / "allowed" / "page.key").write_bytes((mine / "page.key").read_bytes())
    keys = ClientKeys.read(mine / "page.secret", folder / "server.key")
    box = box_parts.Box(
        journal=tmp_path / "journal.sqlite", map_policy="ng", control=FREE, keys=str(folder)
    )
    line = screen_parts.AskedLine()
    box.publisher.control(line)
    endpoints = Endpoints(
        box.events,
        box.publisher.maps_endpoint,
        box.publisher.replay_endpoint,
        box.publisher.control_endpoint,
        keys,
    )
    page = screen_parts.Page([endpoints], Access(local_role="engineer"))
    try:
        box.wait_for_clients(1)
        box.send(screen_parts.result(1, Verdict.NG))
        part = page.until(lambda s: s["last_reject"] and s["last_reject"]["overlay"])["last_reject"]
        said = {"box": 0, "boot": part["boot"], "seq": part["seq"], "truth": "ng", "who": "Ann"}
        assert page.post("/api/feedback", said)[0] == 200
        assert page.post("/api/threshold", {"box": 0, "value": 0.4})[0] == status
        assert len(line.asked) == (status == 200)
    finally:
        page.close()
        box.close()


def test_a_page_that_opens_later_shows_what_was_before(screen: Screen) -> None:
    screen.box.send(*(screen.parts.result(number) for number in range(1, 30)))
    screen.box.send(screen.parts.result(30, Verdict.NG))
    deadline = time.monotonic() + screen.parts.PATIENCE_S
    with replay_client(screen.endpoints.replay, None) as client:
        newest = screen.box.publisher.last_seq
        while len(list(client.events(1, newest, 30.0))) < newest:
            assert time.monotonic() < deadline
    page = screen.page()
    while len(page.json("/api/parts")["parts"]) < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sum(group["n"] for group in page.json("/api/trends")["history"]) == 30
    assert page.state()["number"] == 0
