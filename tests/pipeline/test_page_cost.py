"""What an open page costs the line: its p99 with and without one, in turns within one run.

Line, page and browser are processes of their own on this computer. The browser runs at the lowest
priority: on a real station it is somewhere else and takes nothing from the line.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import psutil
import pytest
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import ResultMessage

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
RATE = 50.0
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


def in_turns(
    kit: ModuleType, folder: Path, plan: Path, turns: int, parts: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Latencies of each turn (without a page, with one); one line runs through all of them."""
    ports = kit.Ports.free()
    stream = kit.start_stream(folder, plan, ports, RATE, SIZE)
    without: list[list[int]] = []
    with_page: list[list[int]] = []
    page = None
    line = psutil.Process(stream.popen.pid)
    try:
        with Subscriber(ports.events) as events:
            latencies_us(events, int(2 * RATE), 120.0)  # warm
            for turn in range(2 * turns):
                if turn % 2 == 0:
                    with cpu_told(line, "without", parts):
                        without.append(latencies_us(events, parts, 60 + parts / RATE * 4))
                    continue
                page, url = kit.start_page(folder, ports)
                with kit.browser_tab(folder, viewport={"width": 1280, "height": 900}) as tab:
                    tab.goto(url)
                    tab.locator("#scene .picture").wait_for()
                    with cpu_told(line, "with a page", parts):
                        with_page.append(latencies_us(events, parts, 60 + parts / RATE * 4))
                    assert tab.locator("#link").inner_text() == "● live"
                page.end()
                page = None
    finally:
        if page is not None:
            page.end()
        stream.end()
    return without, with_page


def p99(values: list[int]) -> float:
    return float(np.percentile(values, 99))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_an_open_page_moves_the_line_s_p99_by_at_most_ten_percent(
    page_processes: ModuleType, tiny_plan: Path, tmp_path: Path
) -> None:
    turns = int(os.environ.get("SKRD4AD_PAGE_TURNS", "5"))
    without, with_page = in_turns(page_processes, tmp_path, tiny_plan, turns, int(20 * RATE))
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
