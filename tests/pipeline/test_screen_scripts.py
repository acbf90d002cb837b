"""The page's own reasoning, in the browser that runs it: what the word says, what is drawn."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
WEB = Path(__file__).resolve().parents[2] / "pipeline" / "web"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not news."""


@pytest.fixture(scope="module")
def script(page_processes: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """`script(module, expression, argument)`: the expression, with the module's names as `m`."""
    handler = functools.partial(_Quiet, directory=str(WEB))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    with page_processes.browser_tab(tmp_path_factory.mktemp("browser")) as tab:
        tab.goto(f"{address}/icon.svg")

        def run(module: str, expression: str, argument: Any = None) -> Any:
            imported = f"const m = await import('{address}/{module}')"
            return tab.evaluate(f"async (a) => {{ {imported}; return ({expression}); }}", argument)

        yield run
    server.shutdown()
    server.server_close()


def part(number: int, verdict: str = "ok", **more: Any) -> dict[str, Any]:
    return {
        "number": number,
        "verdict": verdict,
        "score": 0.25,
        "thr": 0.5,
        "cam": "cam0",
        "reason": [],
        "t_pub": number * 10**9,
        **more,
    }


def snapshot(**changes: Any) -> dict[str, Any]:
    status = {"ok": True, "alive": True, "fresh": True, "contiguous": True, "valid": True}
    status |= {"state": "RUNNING", "silent_s": 0} | changes.pop("status", {})
    last = changes.pop("last", part(7))
    return {
        "status": status,
        "cameras": [{"name": "cam0", "last": last}],
        "quiet_s": 0.1,
        "pace_s": 1.0,
        "followed_s": 0.1,
        "at": 1000,
        "added": [],
        **changes,
    }


LIVE = {"live": True, "silenceMs": 100, "fault": None}
Says = Callable[..., dict[str, Any]]


@pytest.fixture
def says(script: Any) -> Says:
    def says(
        box: dict[str, Any] | None = None, link: Any = LIVE, now: int = 1000, held: Any = None
    ) -> dict[str, Any]:
        argument = {"box": snapshot() if box is None else box, "link": link, "now": now}
        found: dict[str, Any] = script(
            "judge.js", "m.standing(a.box, a.link, a.now, a.held)", {**argument, "held": held}
        )
        return found

    return says


@pytest.mark.parametrize("verdict", ["ok", "ng", "review", "err"])
def test_a_live_line_s_newest_verdict_is_the_word(says: Says, verdict: str) -> None:
    found = says(snapshot(last=part(7, verdict)))
    assert (found["kind"], found["live"]) == (verdict, True)


@pytest.mark.parametrize(
    ("box", "link", "word"),
    [
        ({}, {**LIVE, "live": False, "silenceMs": 3100}, "NOT CONNECTED"),
        ({}, {**LIVE, "live": False, "silenceMs": None}, "NOT CONNECTED"),
        ({}, {**LIVE, "live": False, "fault": "x is undefined"}, "NOT CONNECTED"),
        ({"status": {"alive": False, "silent_s": 4}}, LIVE, "NO SIGNAL"),
        ({"status": {"alive": False, "silent_s": None}}, LIVE, "NO SIGNAL"),
        ({"status": {}, "last": None}, LIVE, "WAITING"),
        ({"status": {"alive": False, "state": "BYE"}}, LIVE, "STOPPED"),
        ({"status": {"valid": False, "state": "DEGRADED"}}, LIVE, "NOT READY"),
        ({"status": {"fresh": False}}, LIVE, "LATE"),
        ({"quiet_s": 10.5}, LIVE, "NO PARTS"),
        ({"followed_s": 4.5}, LIVE, "NO SIGNAL"),
    ],
)
def test_an_old_ok_never_looks_live(
    says: Says, box: dict[str, Any], link: dict[str, Any], word: str
) -> None:
    found = says(snapshot(**box), link)
    assert found["word"] == word
    assert found["live"] is False
    assert found["kind"] in ("none", "idle")


def test_time_alone_makes_a_verdict_old(says: Says) -> None:
    box = snapshot(at=1000, quiet_s=8.0)
    assert says(box, now=1000 + 1900)["word"] == "OK"
    assert says(box, now=1000 + 2100)["word"] == "NO PARTS"
    # A slow line is not idle between two of its parts.
    slow = snapshot(at=1000, quiet_s=58.0, pace_s=20.0)
    assert says(slow, now=1000 + 1900)["word"] == "OK"
    assert says(slow, now=1000 + 2100)["word"] == "NO PARTS"
    # Beats of the page's server alone keep nothing alive.
    assert says(snapshot(at=1000), now=1000 + 3800)["word"] == "OK"
    assert says(snapshot(at=1000), now=1000 + 4000)["word"] == "NO SIGNAL"


def test_a_reject_of_a_fast_line_is_held_and_let_go(script: Any, says: Says) -> None:
    fast = snapshot(pace_s=0.02, added=[part(5, "ng"), part(6), part(7)])
    hold = "m.heldReject(a.box, a.held, a.now)"
    held = script("judge.js", hold, {"box": fast, "held": None, "now": 1000})
    assert held["part"]["number"] == 5
    quiet = {**fast, "added": [part(8)], "cameras": [{"name": "cam0", "last": part(8)}]}
    assert script("judge.js", hold, {"box": quiet, "held": held, "now": 2900}) == held
    assert script("judge.js", hold, {"box": quiet, "held": held, "now": 3100}) is None
    assert says(quiet, now=1900, held=held)["kind"] == "ng"
    assert says(quiet, now=3100, held=held)["kind"] == "ok"
    # Where parts come by hand, the part at hand is the one that counts.
    slow = {**fast, "pace_s": 1.0}
    assert script("judge.js", hold, {"box": slow, "held": None, "now": 1000}) is None


def test_a_chosen_camera_is_judged_by_its_own_parts(script: Any) -> None:
    cameras = [
        {"name": "top", "last": part(9, cam="top", t_pub=100 * 10**9)},
        {"name": "side", "last": part(8, "ng", cam="side", t_pub=99 * 10**9)},
        {"name": "late", "last": part(2, cam="late", t_pub=60 * 10**9)},
        {"name": "new", "last": None},
    ]
    box = {**snapshot(), "cameras": cameras}
    words = {
        name: script(
            "judge.js",
            "m.standing(a.box, a.link, 1000, null, a.camera).word",
            {"box": box, "link": LIVE, "camera": name},
        )
        for name in ("", "top", "side", "late", "new")
    }
    # The camera that stopped beside one that runs is not OK any more.
    assert words == {"": "OK", "top": "OK", "side": "NG", "late": "NO PARTS", "new": "WAITING"}


FILE = {
    "schema": "skrd4ad-regions/1",
    "image_width": 100,
    "image_height": 50,
    "ignore": [[[0, 0], [10, 0], [0, 10]]],
    "camera": "/dev/v4l/by-id/cam",
    "min_area_px": 3,
    "regions": [
        {
            "name": "lead",
            "polygon": [[20, 20], [40, 20], [40, 40]],
            "threshold": None,
            "review_value": 0.8,
            "min_area_mm2": 0.5,
        }
    ],
}


def test_a_regions_file_comes_back_as_it_went(script: Any) -> None:
    back = "m.toFile(m.fromFile(a), {width: 100, height: 50}, a)"
    assert script("region_shapes.js", back, FILE) == FILE


def test_shapes_stay_inside_the_picture(script: Any) -> None:
    size = "{width: 100, height: 50}"
    found = script("region_shapes.js", f"m.rectangle([-20, 10], [150, 70], {size})")
    assert found == [[-0.5, 10], [99.5, 10], [99.5, 49.5], [-0.5, 49.5]]
    triangle = [[20, 20], [40, 20], [40, 40]]
    moved = script("region_shapes.js", f"m.moved(a, 1000, -1000, {size})", triangle)
    assert moved == [[79.5, -0.5], [99.5, -0.5], [99.5, 19.5]]
    assert script("region_shapes.js", "m.withoutPoint(a, 1)", triangle) == triangle
    assert script("region_shapes.js", "m.doubledArea(a)", triangle) == 400
    shapes = [{"points": triangle, "name": "lead"}]
    wider = "m.scaled(a, {width: 100, height: 50}, {width: 200, height: 50})"
    assert script("region_shapes.js", wider, shapes)[0]["points"] == [
        [40.5, 20],
        [80.5, 20],
        [80.5, 40],
    ]
    assert script("region_shapes.js", "m.freeName([{name: 'region1'}])") == "region2"


def test_undo_and_redo_know_what_is_saved(script: Any) -> None:
    steps = """(() => {
      const one = new m.Steps([1]), seen = [];
      one.do([2]); one.do([3]); seen.push(one.dirty);
      one.undo(); seen.push(one.now[0]); one.undo(); one.undo();
      seen.push(one.now[0], one.dirty); one.redo(); seen.push(one.now[0]);
      one.do([9]); one.redo(); seen.push(one.now[0]);
      return seen;
    })()"""
    assert script("region_shapes.js", steps) == [True, 2, 1, False, 2, 9]


def test_figures_are_written_as_people_read_them(script: Any) -> None:
    spans = "[0.04, 9.94, 34, 150, 8000, 400000].map(m.span)"
    assert script("dom.js", spans) == ["0.0 s", "9.9 s", "34 s", "3 min", "2 h", "5 days"]
    assert script("dom.js", "[m.count(1234567), m.percent(0.1234), m.number(null)]") == [
        "1 234 567",
        "12.3 %",
        "–",
    ]
    steps = "[0.03, 0.7, 7, 20].map(m.roundStep).map((x) => +x.toPrecision(6))"
    assert script("canvas.js", steps) == [0.05, 1, 10, 20]
    assert script("live.js", "m.quantiles([3, 1, 2])") == {"p50": 2, "p99": 3}
    assert script("live.js", "m.quantiles([])") == {"p50": None, "p99": None}
