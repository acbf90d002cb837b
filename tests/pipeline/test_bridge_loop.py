"""The asyncio loop beside the bridge's thread: limits hold, and its end never hangs or raises."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from skrd4ad.pipeline.bridges import loop as bridge_loop
from skrd4ad.pipeline.bridges.loop import LoopThread
from skrd4ad.pipeline.bridges.uplink import UplinkLost


async def answer() -> int:
    return 42


async def wait_long() -> None:
    await asyncio.sleep(60)


def test_a_value_comes_back_and_slowness_is_a_lost_uplink() -> None:
    thread = LoopThread("test")
    assert thread.run(answer(), 10.0) == 42
    with pytest.raises(UplinkLost, match="did not answer"):
        thread.run(wait_long(), 0.05)
    assert thread.run(answer(), 10.0) == 42
    thread.close()


def test_a_server_that_hangs_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bridge_loop, "_CLOSE_S", 0.2)
    thread, let_go = LoopThread("test"), threading.Event()

    async def hang() -> None:
        let_go.wait(60)

    with pytest.raises(UplinkLost):
        thread.run(hang(), 0.05)
    began = time.monotonic()
    thread.close()
    assert time.monotonic() - began < 30
    assert "abandoned" in caplog.text
    let_go.set()
    deadline = time.monotonic() + 30
    while asyncio.all_tasks(thread._loop):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    thread._loop.call_soon_threadsafe(thread._loop.stop)
    thread._thread.join(30)
    thread._loop.close()
