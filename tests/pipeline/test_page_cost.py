"""What a page that somebody uses costs the line: its p99 with and without, in turns in one run.

Line, page and browser are processes of their own on this computer, with the shares of its cores
that an installed station gives them. The browser gets only what all else leaves: on a real station
it is somewhere else and takes nothing from the line.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import ResultMessage

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
RATE = 50.0
STAY_MS = 1500
SIZE = 640
"""Pixels a side of the camera's images, and of the pictures that the line makes for the page."""


def latencies_us(stream: Subscriber, parts: int, patience_s: float) -> list[int]:
    """Capture to socket of the next `parts` results, as the line states them."""
    while stream.receive(0.0) is not None:
        pass
    found: list[int] = []
    deadline = time.monotonic() + patience_s
    while len(found) < parts:
        assert time.monotonic() < deadline, f"{len(found)} parts in {patience_s} s"
        item = stream.receive(0.5)
        if isinstance(item, ResultMessage):
            found.append(item.header.lat_us.total)
    return found


@contextmanager
def cpu_told(line: psutil.Process, name: str, parts: int) -> Iterator[None]:
    """Print what the line's process itself worked for a part: other work hardly moves that."""
    before = line.cpu_times()
    yield
    after = line.cpu_times()
    spent = after.user + after.system - before.user - before.system
    print(f"{name}: the line took {1e3 * spent / parts:.2f} ms of CPU a part")


def look_around(tab: Any, number: int) -> None:
    """Through all views as a person would: mark a part, try a threshold, draw a region."""

    def go(view: str) -> None:
        tab.locator(f"#nav a[href='#/{view}']").click()
        tab.locator(f"#{view}").wait_for()
        tab.wait_for_timeout(STAY_MS)

    go("parts")
    tab.locator("#gallery .card").first.click()
    tab.locator("#part input[name=who]").fill(f"Ann {number}")
    tab.get_by_role("button", name="Good: a false reject").click()
    tab.wait_for_timeout(STAY_MS)
    tab.keyboard.press("Escape")
    go("threshold")
    for _ in range(3):
        tab.locator("#preview-slider").press("ArrowRight")
        tab.wait_for_timeout(STAY_MS / 3)
    go("regions")
    tab.get_by_role("button", name="Add a rectangle").click()
    tab.wait_for_timeout(STAY_MS)
    tab.get_by_role("button", name="Undo").click()
    go("live")
    tab.wait_for_timeout(2 * STAY_MS)


def in_turns(
    kit: ModuleType, shares: ModuleType, folder: Path, plan: Path, turns: int, parts: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Latencies of each turn (without a page, with one); one line runs through all of them."""
    ports = kit.Ports.free()
    without: list[list[int]] = []
    with_page: list[list[int]] = []
    patience_s = 60 + parts / RATE * 4
    rounds = 0
    with ExitStack() as stack:
        # The shares that `make install` gives the services.
        first = stack.enter_context(shares.line_group())
        last = stack.enter_context(shares.idle_group())
        if first is None or last is None:
            print("no right to make control groups: line and page share the cores evenly")
        stream = kit.start_stream(folder, plan, ports, RATE, SIZE)
        stack.callback(stream.end)
        line = psutil.Process(stream.popen.pid)
        shares.join(first, line.pid)
        events = stack.enter_context(Subscriber(ports.events))
        latencies_us(events, int(2 * RATE), 120.0)  # warm
        for _ in range(turns):
            with cpu_told(line, "without", parts):
                without.append(latencies_us(events, parts, patience_s))
            page, url = kit.start_page(folder, ports)
            try:
                shares.join(last, page.popen.pid)
                with kit.browser_tab(folder, viewport={"width": 1280, "height": 900}) as tab:
                    tab.goto(url)
                    tab.locator("#scene .picture").wait_for()
                    with cpu_told(line, "with a page", parts), ThreadPoolExecutor(1) as beside:
                        counting = beside.submit(latencies_us, events, parts, patience_s)
                        while not counting.done():
                            look_around(tab, rounds)
                            rounds += 1
                        with_page.append(counting.result())
                    assert tab.locator("#link").inner_text() == "● live"
            finally:
                page.end()
    return without, with_page


def p99(values: list[int]) -> float:
    return float(np.percentile(values, 99))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_open_page_moves_the_line_s_p99_by_at_most_ten_percent(
    page_processes: ModuleType,
    core_shares: ModuleType,
    write_tiny_plan: Callable[..., Path],
    tmp_path: Path,
) -> None:
    plan = page_processes.plan_that_rejects(write_tiny_plan, tmp_path)
    turns = int(os.environ.get("SKRD4AD_PAGE_TURNS", "5"))
    without, with_page = in_turns(
        page_processes, core_shares, tmp_path, plan, turns, int(20 * RATE)
    )
    pairs = [p99(shown) / p99(alone) for alone, shown in zip(without, with_page, strict=True)]
    for name, group in (("without", without), ("with a page", with_page)):
        each = ", ".join(f"{p99(turn) / 1e3:.2f}" for turn in group)
        middle = statistics.median(one for turn in group for one in turn) / 1e3
        print(f"{name}: p50 {middle:.2f} ms, p99 of each turn {each} ms")
    pooled = p99([one for turn in with_page for one in turn]) / p99(
        [one for turn in without for one in turn]
    )
    # Each turn against the one beside it, because other work on the machine comes in bursts.
    ratio = statistics.median(pairs)
    print(f"p99 with a page / without: median of the pairs {ratio:.3f}, all turns {pooled:.3f}")
    assert ratio <= 1.10
