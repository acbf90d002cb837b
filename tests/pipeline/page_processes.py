"""A real line, a real page and a real browser, each in a process of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from core_shares import idle_group, starter
from free_ports import free_ports
from skrd4ad.engine.spec import Threshold

PATIENCE_S = 60.0
THRESHOLD = 1.63
"""Of the arithmetic plan's scores of rendered parts, 1.38 to 1.68, some lie above this."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def plan_that_rejects(write_tiny_plan: Callable[..., Path], folder: Path) -> Path:
    """The arithmetic plan with THRESHOLD, in `folder`."""
    threshold = Threshold(
        value=THRESHOLD,
        method="manual",
        target_false_reject_rate=0.01,
        attainable_rate=0.01,
        n_normals=99,
        source="this test",
    )
    return write_tiny_plan(folder / "tiny.plan", threshold=threshold)


@dataclass(frozen=True)
class Ports:
    """Where one box is found."""

    events: str
    maps: str
    replay: str
    control: str

    @classmethod
    def free(cls) -> Ports:
        return cls(*(f"tcp://127.0.0.1:{port}" for port in free_ports(4)))


class Process:
    """`python -m skrd4ad ...` until `end`; `first_line` is what it prints once it works."""

    def __init__(self, folder: Path, name: str, *words: str) -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "skrd4ad", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.popen.stdout is not None
        self.first_line = self.popen.stdout.readline()
        assert self.first_line, self._log.read_text()

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """What else it printed."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.send_signal(number)
        out, _ = self.popen.communicate(timeout=PATIENCE_S)
        return out


def start_stream(folder: Path, plan: Path, ports: Ports, rate: float, size: int = 256) -> Process:
    """A line of rendered parts of `size` pixels a side, `rate` a second, with journal, replay and
    control."""
    camera = f"test:seed=3,defect=0.05,rate={rate:g},bank=16,size={size}"
    station: dict[str, Any] = {
        "version": 1,
        "box": "edge07",
        "plan": str(plan),
        "cameras": [{"name": "top", "uri": camera}],
        "publish": {
            "events": ports.events,
            "maps": ports.maps,
            "replay": ports.replay,
            "control": ports.control,
            "journal": {"path": str(folder / "journal.sqlite")},
        },
    }
    path = folder / "station.yaml"
    path.write_text(yaml.safe_dump(station))
    return Process(folder, "stream", "stream", "--station", str(path), "--json")


def start_page(folder: Path, ports: Ports, *more: str) -> tuple[Process, str]:
    """(the process, the page's address)."""
    words = ["serve", "--connect", ports.events, "--maps", ports.maps, "--replay", ports.replay]
    words += ["--control", ports.control, "--listen", "127.0.0.1:0", *more]
    process = Process(folder, "serve", *words)
    return process, "http://" + process.first_line.partition("http://")[2].partition("/")[0]


@contextlib.contextmanager
def browser_tab(folder: Path, **options: Any) -> Iterator[Any]:
    """A tab of a headless Chromium with `options` of its context.

    The browser and Playwright's own process are last in line: on a real station they would be on
    another computer.
    """
    from playwright._impl._driver import compute_driver_executable
    from playwright.sync_api import expect, sync_playwright

    assert CHROMIUM is not None, "the tests that need a browser look for one first"
    expect.set_options(timeout=PATIENCE_S * 1000)
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(idle_group())
        browser_path = starter(folder / "browser", CHROMIUM, group)
        node = starter(folder / "node", compute_driver_executable()[0], group)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("PLAYWRIGHT_NODEJS_PATH", str(node))
        driver = stack.enter_context(sync_playwright())
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        stack.callback(browser.close)
        tab = browser.new_context(**options).new_page()
        tab.set_default_timeout(PATIENCE_S * 1000)
        yield tab
