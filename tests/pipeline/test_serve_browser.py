"""The page in a real Chromium, while a line publishes: what a person sees and clicks.

Skips where no browser is installed (pip install playwright; a `chromium` on the path).
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skrd4ad.pipeline.live import LiveView
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.serve import feed
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.web_server import PageServer
from skrd4ad.pipeline.wire_messages import HealthFields

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

PATIENCE_S = 30.0
SHOTS = os.environ.get("SKRD4AD_SCREENSHOTS")
"""A folder that keeps what the browser showed, to look at."""


def result(number: int, verdict: Verdict) -> Result:
    y, x = np.mgrid[:64, :64]
    bump = np.exp(-((x - 40) ** 2 + (y - 22) ** 2) / 60.0)
    peak = {Verdict.OK: 0.15, Verdict.REVIEW: 0.55, Verdict.NG: 0.9}[verdict]
    values = (0.08 + peak * bump + 0.03 * np.sin(x / 3.0 + number)).astype(np.float32)
    now_mono, now = time.monotonic_ns(), time.time_ns()
    return Result(
        camera="cam0",
        camera_seq=number,
        frame_id=number,
        captured_ns=now - 9_000_000,
        captured_mono_ns=now_mono - 9_000_000 - number % 7 * 500_000,
        captured_source="file",
        captured_error_ns=0,
        part=Part(),
        name=f"part <b>{number}</b>.png",
        verdict=verdict,
        reasons=() if verdict is Verdict.OK else ("score",),
        evaluated=True,
        score=float(values.max()),
        threshold=0.5,
        defects=(),
        latency=Latency(infer_us=8000),
        anomaly_map=values,
        map_to_image=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    )


class Line:
    """A publisher on its own thread: 50 parts a second, told what to send, until stopped."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.verdict = Verdict.OK
        self.sent = 0
        self.close_page: Callable[[], None] = lambda: None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self.publisher.send_state("RUNNING")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            self.sent += 1
            verdict = self.verdict
            if self.sent % 40 == 0:
                verdict = Verdict.NG if self.sent % 80 else Verdict.REVIEW
            self.publisher.send_result(result(self.sent, verdict))
            self.publisher.heartbeat_if_due(HealthFields(ready=True, uptime_s=1.0))


@pytest.fixture
def line_and_url() -> Iterator[tuple[Line, str]]:
    free = "tcp://127.0.0.1:0"
    settings = PublishSettings(events=free, maps=free, map_policy="ng")
    view, stop = LiveView(), threading.Event()
    with Publisher(settings, "edge07") as publisher:
        stream = Subscriber(publisher.events_endpoint, publisher.maps_endpoint)
        stream.open()
        server = PageServer("127.0.0.1:0", view)
        threads = [
            threading.Thread(target=feed, args=(stream, view, stop)),
            threading.Thread(target=server.serve_forever, args=(0.05,)),
        ]
        for thread in threads:
            thread.start()
        line = Line(publisher)

        def close_page() -> None:
            view.close()
            server.shutdown()
            server.server_close()

        line.close_page = close_page
        try:
            assert publisher.wait_for_subscribers(1, PATIENCE_S)
            yield line, server.url
        finally:
            line.stop()
            stop.set()
            close_page()
            for thread in threads:
                thread.join(PATIENCE_S)
            stream.close()


@pytest.fixture
def browser_page() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 1150})
        page = context.new_page()
        page.set_default_timeout(PATIENCE_S * 1000)
        yield page
        browser.close()


def shot(page: Any, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_person_sees_verdicts_maps_and_a_stopped_line(
    line_and_url: tuple[Line, str], browser_page: Any
) -> None:
    line, url = line_and_url
    page, complaints = browser_page, []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    expect = playwright.expect
    expect.set_options(timeout=PATIENCE_S * 1000)

    page.goto(url)
    expect(page.locator("#word")).to_have_text("NO SIGNAL")
    line.start()
    expect(page.locator("#word")).to_have_text("OK")
    expect(page.locator("#answers .yes")).to_have_count(4)
    expect(page.locator("#box")).to_have_text("skrd4ad · edge07")

    # The defects of the running line come with their maps, names as text and never as markup.
    expect(page.locator("#gallery figure.review")).not_to_have_count(0)
    expect(page.locator("#gallery figcaption").first).to_contain_text("<b>")
    assert page.locator("#gallery b").count() == 0
    picture = page.locator("#gallery img").first
    picture.scroll_into_view_if_needed()
    until(lambda: picture.evaluate("image => image.naturalWidth") == 64)
    until(lambda: page.locator("#map").evaluate("image => image.naturalWidth") == 64)
    page.evaluate("window.scrollTo(0, 0)")
    shot(page, "page_light")

    page.emulate_media(color_scheme="dark")
    page.select_option("#filter", "ng")
    expect(page.locator("#gallery figure.review")).to_have_count(0)
    expect(page.locator("#gallery figure.ng")).not_to_have_count(0)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 19, 23)"

    line.verdict = Verdict.NG
    expect(page.locator("#word")).to_have_text("NG")
    expect(page.locator("#verdict")).to_have_class("ng")
    # Large enough to read from three metres: 2 cm and more on a 96 dpi screen.
    assert page.locator("#word").evaluate("e => parseFloat(getComputedStyle(e).fontSize)") > 76
    shot(page, "page_dark")

    line.stop()
    total = sum(int(page.locator(f"#count-{name}").inner_text()) for name in ("ok", "ng", "review"))
    until(
        lambda: (
            sum(int(page.locator(f"#count-{name}").inner_text()) for name in ("ok", "ng", "review"))
            == line.sent
        )
    )
    assert total <= line.sent
    line.publisher.close("shift over")
    expect(page.locator("#word")).to_have_text("STOPPED")
    assert complaints == []


def test_a_tablet_needs_no_sideways_scrolling(
    line_and_url: tuple[Line, str], browser_page: Any
) -> None:
    line, url = line_and_url
    line.start()
    for width, height in ((820, 1180), (390, 844)):
        browser_page.set_viewport_size({"width": width, "height": height})
        browser_page.goto(url)
        playwright.expect(browser_page.locator("#word")).to_have_text("OK", timeout=30_000)
        assert browser_page.evaluate("document.documentElement.scrollWidth") <= width
        shot(browser_page, f"page_{width}")


def test_a_page_whose_server_is_gone_says_so(
    line_and_url: tuple[Line, str], browser_page: Any
) -> None:
    line, url = line_and_url
    line.start()
    browser_page.goto(url)
    playwright.expect(browser_page.locator("#word")).to_have_text("OK", timeout=30_000)
    line.close_page()
    playwright.expect(browser_page.locator("#word")).to_have_text("NO PAGE SERVER", timeout=30_000)
    playwright.expect(browser_page.locator("#why")).to_contain_text("does not answer")
