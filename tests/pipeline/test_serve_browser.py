"""The page in a real Chromium beside a real line at 50 parts a second: what a person sees and does.

Line, page and browser are processes of their own. Skips where no browser is installed.
With SKRD4AD_SCREENSHOTS=DIR it keeps what the browser showed.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from skrd4ad.calibration.regions import load_regions
from skrd4ad.pipeline.control_client import ControlClient

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.timeout(400)
RATE = 50.0
SHOTS = os.environ.get("SKRD4AD_SCREENSHOTS")
VIEWS = ("live", "parts", "threshold", "regions")
LONGEST_WORDS = """
  document.getElementById("caption").textContent = "a part with a long name ".repeat(9);
  document.getElementById("link").textContent = "no data 59 min";
  document.getElementById("mini").hidden = false;
  document.getElementById("mini").textContent = "NOT INSPECTED";
"""
"""What stands there when something is wrong, and a part with a long name."""
VERDICT = re.compile("^(OK|NG)$")
expect = playwright.expect
NAMELESS = """() => [...document.querySelectorAll('button, a, input, select, [role=button]')]
  .filter((one) => one.checkVisibility())
  .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))
  .map((one) => one.outerHTML.slice(0, 200))"""
"""What somebody can use but a screen reader cannot name."""


class Scene:
    """A line, its page and a tab that shows it."""

    def __init__(self, kit: ModuleType, folder: Path, plan: Path, tab: Any) -> None:
        self.kit, self.folder, self.plan, self.tab = kit, folder, plan, tab
        self.ports = kit.Ports.free()
        self.regions = folder / "regions"
        more = ("--regions", str(self.regions), "--role", "engineer")
        self.page, self.url = kit.start_page(folder, self.ports, *more)
        self.stream: Any = None
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        tab.on("console", lambda said: self.complaints.append(said.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", self._note_request)

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.foreign.append(request.url)

    def start_line(self) -> None:
        self.stream = self.kit.start_stream(self.folder, self.plan, self.ports, RATE)

    def state(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        connection.request("GET", "/state.json")
        found: dict[str, Any] = json.loads(connection.getresponse().read())["boxes"][0]
        return found

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + self.kit.PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline
            self.tab.wait_for_timeout(50)

    def go(self, view: str) -> None:
        self.tab.locator(f"#nav a[href='#/{view}']").click()
        expect(self.tab.locator(f"#{view}")).to_be_visible()

    def shot(self, name: str) -> None:
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            self.tab.screenshot(path=str(Path(SHOTS) / f"{name}.png"))

    def close(self) -> None:
        for process in (self.stream, self.page):
            if process is not None:
                process.end()


@pytest.fixture
def scene(
    page_processes: ModuleType, write_tiny_plan: Callable[..., Path], tmp_path: Path
) -> Iterator[Scene]:
    plan = page_processes.plan_that_rejects(write_tiny_plan, tmp_path)
    with page_processes.browser_tab(tmp_path, viewport={"width": 1280, "height": 900}) as tab:
        scene = Scene(page_processes, tmp_path, plan, tab)
        try:
            yield scene
        finally:
            scene.close()


def loaded_width(picture: Any) -> int:
    return int(picture.evaluate("image => image.complete ? image.naturalWidth : 0"))


def test_a_person_goes_through_the_whole_page_while_the_line_runs(scene: Scene) -> None:
    tab = scene.tab
    tab.goto(scene.url)
    word = tab.locator("#word")
    expect(word).to_have_text("NO SIGNAL")
    expect(tab.locator("#banner")).to_be_visible()
    scene.start_line()
    expect(word).to_have_text(VERDICT)
    expect(tab.locator("#banner")).to_be_hidden()
    see_live(scene)
    see_gallery_and_give_feedback(scene)
    preview_and_order_a_threshold(scene)
    draw_and_save_regions(scene)
    see_every_size(scene)
    see_it_stop(scene)
    # The browser itself notes the refusal that the region editor shows.
    assert [one for one in scene.complaints if "409 (Conflict)" not in one] == []
    assert scene.foreign == []


def see_live(scene: Scene) -> None:
    tab = scene.tab
    expect(tab.locator("#answers .yes")).to_have_count(4)
    assert "edge07" in tab.title()
    # A reject is held, with its picture and its map over it, both of the same part.
    picture, over = tab.locator("#scene .picture"), tab.locator("#scene .map")
    scene.until(lambda: over.count() == 1 and picture.count() == 1 and loaded_width(over) == 64)
    scene.until(lambda: picture.count() == 1 and loaded_width(picture) == 256)
    # In one step, because the next part may take their place at any moment.
    apart = """() => ['.picture', '.map'].map((kind) => {
      const box = document.querySelector(`#scene ${kind}`)?.getBoundingClientRect();
      return box && [box.x, box.y, box.width, box.height];
    })"""
    places: list[list[float] | None] = []

    def both_there() -> bool:
        places[:] = tab.evaluate(apart)
        return all(places) and places[0][2] > 100

    scene.until(both_there)
    assert places[1] == pytest.approx(places[0], abs=1.0)
    opacity = "document.documentElement.style.getPropertyValue('--map-opacity')"
    assert float(tab.evaluate(opacity)) == 0.7
    tab.keyboard.press("m")
    assert float(tab.evaluate(opacity)) == 0
    tab.keyboard.press("m")
    # Large enough to read from three metres: capitals of 2 cm and more on a 96 dpi screen.
    assert tab.locator("#word").evaluate("e => parseFloat(getComputedStyle(e).fontSize)") > 100
    ok = tab.locator("#count-ok")
    before = ok.inner_text()
    expect(ok).not_to_have_text(before)
    scene.shot("live_light")
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(11, 15, 19)"
    tab.emulate_media(color_scheme="light")


def see_gallery_and_give_feedback(scene: Scene) -> None:
    tab = scene.tab
    scene.go("parts")
    cards = tab.locator("#gallery .card")
    expect(cards).not_to_have_count(0)
    tab.get_by_role("button", name="Review", exact=True).click()
    expect(cards).to_have_count(0)
    expect(tab.locator("#gallery-none")).to_be_visible()
    tab.get_by_role("button", name="NG", exact=True).click()
    expect(cards).not_to_have_count(0)
    expect(tab.locator("#filter-kind option")).not_to_have_count(1)
    tab.select_option("#filter-kind", "region:image")
    tab.select_option("#filter-order", "score")
    expect(cards).not_to_have_count(0)
    expect(tab.locator("#gallery .card:not(.ng)")).to_have_count(0)
    scene.until(lambda: loaded_width(tab.locator("#gallery img").first) > 0)
    scene.shot("parts")
    cards.first.click()
    expect(tab.locator("#part-title")).to_contain_text("NG")
    tab.locator("#part input[name=who]").fill("Ann")
    tab.get_by_role("button", name="Good: a false reject").click()
    expect(tab.locator("#part .truth.ok")).to_have_attribute("aria-pressed", "true")
    expect(tab.locator("#part")).to_contain_text("Ann said: really good")
    scene.shot("feedback")
    tab.keyboard.press("Escape")
    expect(tab.locator("#part")).to_be_hidden()
    with ControlClient(scene.ports.control, patience_s=scene.kit.PATIENCE_S) as line:
        (entry,) = [one for one in line.audit() if one.op == "feedback"]
    assert '"truth":"ok"' in entry.arguments
    assert '"who":"Ann"' in entry.arguments


def preview_and_order_a_threshold(scene: Scene) -> None:
    tab = scene.tab
    scene.go("threshold")
    table = tab.locator("#preview-table")
    expect(table).to_contain_text("Newly rejected")
    # No part of a camera that is not there: nothing to count, and nothing fails over it.
    tab.locator("#preview-camera").evaluate(
        "one => one.append(new Option('nobody', 'nobody', false, true))"
    )
    tab.locator("#preview-slider").press("ArrowRight")
    expect(table).to_contain_text("Waiting for parts")
    tab.select_option("#preview-camera", "")
    expect(table).to_contain_text("Newly rejected")
    tab.locator("#preview-value").fill("1.45")
    tab.locator("#preview-value").press("Enter")
    expect(table).to_contain_text("at 1.4500")
    newly = table.locator("tr", has_text="Newly rejected").locator(".then")
    scene.until(lambda: int(newly.inner_text().replace(" ", "")) > 0)
    assert "95 %:" in table.inner_text()
    # The slider is the same, for hands and for keyboards.
    tab.locator("#preview-slider").press("ArrowRight")
    expect(table).not_to_contain_text("at 1.4500")
    tab.locator("#preview-value").fill("1.66")
    tab.locator("#preview-value").press("Enter")
    passed = table.locator("tr", has_text="Newly passed").locator(".then")
    scene.until(lambda: int(passed.inner_text().replace(" ", "")) > 0)
    expect(tab.locator("#preview-changed .card")).not_to_have_count(0)
    # Cards stay from one preview to the next, and open the parts that are shown now.
    tab.locator("#preview-slider").press("ArrowRight")
    expect(table).not_to_contain_text("at 1.6600")
    tab.locator("#preview-value").fill("1.66")
    tab.locator("#preview-value").press("Enter")
    expect(table).to_contain_text("at 1.6600")
    card = tab.locator("#preview-changed .card").first
    name = card.locator(".name").inner_text().split(" · ")[1]
    card.click()
    expect(tab.locator("#part-title")).to_contain_text(name)
    tab.locator("#part").get_by_role("button", name="Close").click()
    expect(tab.locator("#part")).to_be_hidden()
    scene.shot("threshold")
    assert scene.state()["cameras"][0]["last"]["thr"] == scene.kit.THRESHOLD
    tab.locator("#send-threshold").click()
    tab.locator("#question-yes").click()
    expect(tab.locator(".toast").last).to_contain_text("judges by 1.66 now (revision 2)")
    scene.until(lambda: scene.state()["cameras"][0]["last"]["thr"] == 1.66)


def draw_and_save_regions(scene: Scene) -> None:
    tab = scene.tab
    scene.go("regions")
    drawing = tab.locator(".drawing")
    scene.until(lambda: drawing.get_attribute("viewBox") == "-0.5 -0.5 256 256")
    place = drawing.bounding_box()

    def at(x: float, y: float) -> tuple[float, float]:
        """Where this pixel of the captured image lies on the screen."""
        scale = place["width"] / 256
        return place["x"] + (x + 0.5) * scale, place["y"] + (y + 0.5) * scale

    tab.get_by_role("button", name="Rectangle", exact=True).click()
    place = drawing.bounding_box()
    tab.mouse.move(*at(60, 60))
    tab.mouse.down()
    tab.mouse.move(*at(120, 90), steps=4)
    tab.mouse.move(*at(180, 140), steps=4)
    tab.mouse.up()
    name = tab.locator(".shapes input.name")
    expect(name).to_have_value("region1")
    name.fill("case")
    name.press("Tab")
    tab.keyboard.type("1.5")
    # A polygon that is ignored, closed on its first corner.
    tab.get_by_role("button", name="Ignore", exact=True).click()
    tab.get_by_role("button", name="Polygon", exact=True).click()
    place = drawing.bounding_box()
    for corner in ((10, 10), (50, 10), (10, 50), (10, 10)):
        tab.mouse.click(*at(*corner))
    expect(tab.locator(".shapes li.ignore")).to_have_count(1)
    # The keyboard moves what is chosen; undo takes it back.
    tab.locator(".region.ignore").press("ArrowRight")
    tab.locator(".region.ignore").press("Shift+ArrowDown")
    tab.get_by_role("button", name="Undo").click()
    scene.shot("regions")
    tab.locator("#save-regions").click()
    path = scene.regions / "edge07" / "top.yaml"
    expect(tab.locator(".toast").last).to_contain_text(str(path))
    stored = load_regions(path)
    assert (stored.image_width, stored.image_height) == (256, 256)
    (region,) = stored.regions
    assert (region.name, region.threshold) == ("case", 1.5)
    corners = [value for point in region.polygon for value in point]
    wanted = [60, 60, 180, 60, 180, 140, 60, 140]
    assert corners == pytest.approx(wanted, abs=1.0)
    ignored = [value for point in stored.ignore[0] for value in point]
    assert ignored == pytest.approx([11, 10, 51, 10, 11, 50], abs=1.0)
    # A second person stored something else meanwhile: nothing is overwritten.
    path.write_text(path.read_text().replace("case", "lid"))
    tab.get_by_role("button", name="Add a rectangle").click()
    tab.locator("#save-regions").click()
    expect(tab.locator("#question-text")).to_contain_text("Somebody else saved")
    tab.locator("#question-yes").click()
    expect(name).to_have_value("lid")


def see_every_size(scene: Scene) -> None:
    tab = scene.tab
    for width, height in ((1024, 768), (390, 844)):
        tab.set_viewport_size({"width": width, "height": height})
        for view in VIEWS:
            scene.go(view)
            tab.wait_for_timeout(100)
            assert too_wide(scene, width) == [], view
            assert tab.evaluate(NAMELESS) == []
            scene.shot(f"{view}_{width}")
    scene.go("live")
    assert too_wide(scene, 390, LONGEST_WORDS) == []
    tab.set_viewport_size({"width": 1280, "height": 900})


def too_wide(scene: Scene, width: int, first: str = "") -> list[str]:
    """What reaches beyond the right edge, where that makes the page scroll sideways."""
    found: list[str] = scene.tab.evaluate(
        "(width) => {"
        + first
        + """
          if (document.documentElement.scrollWidth <= width) return [];
          return [...document.querySelectorAll("body *")]
            .filter((one) => one.getBoundingClientRect().right > width + 0.5)
            .map((one) => `${one.tagName}#${one.id}.${one.className}`);
        }""",
        width,
    )
    return found


def see_it_stop(scene: Scene) -> None:
    """The promise of 3 a.m.: whatever stops, an old OK never looks live."""
    tab = scene.tab
    scene.go("live")
    word, stage = tab.locator("#word"), tab.locator("#stage")
    expect(word).to_have_text(VERDICT)
    assert "old" not in stage.get_attribute("class")
    scene.page.send(signal.SIGSTOP)
    expect(word).to_have_text("NOT CONNECTED")
    # As on a tablet that slept for an hour: its monotonic clock stood still meanwhile.
    tab.evaluate("() => { const now = Date.now; Date.now = () => now() + 3600000; }")
    expect(tab.locator("#why")).to_contain_text("60 min")
    expect(tab.locator("#verdict")).to_have_class(re.compile("^verdict none long$"))
    expect(tab.locator("#banner")).to_contain_text("what is below is old")
    # The banner lies above everything else.
    on_top = "b => document.elementFromPoint(640, b.getBoundingClientRect().y + 8) === b"
    assert tab.locator("#banner").evaluate(on_top)
    assert "old" in stage.get_attribute("class")
    scene.shot("not_connected")
    scene.page.send(signal.SIGCONT)
    expect(word).to_have_text(VERDICT)
    scene.stream.send(signal.SIGSTOP)
    expect(word).to_have_text("NO SIGNAL")
    expect(tab.locator("#why")).to_contain_text("stop feeding parts")
    scene.shot("no_signal")
    scene.stream.send(signal.SIGCONT)
    expect(word).to_have_text(VERDICT)
    scene.stream.end()
    expect(word).to_have_text("STOPPED")
    scene.start_line()
    expect(word).to_have_text(VERDICT)
    # A program that broke may show nothing as if it worked.
    before = len(scene.complaints)
    tab.evaluate("() => { setTimeout(() => { throw new Error('as a test') }, 0) }")
    expect(word).to_have_text("NOT CONNECTED")
    expect(tab.locator("#why")).to_contain_text("this page failed (Uncaught Error: as a test)")
    assert [text for text in scene.complaints[before:] if "as a test" not in text] == []
    del scene.complaints[before:]
