"""The asyncio loop beside the bridge's thread: limits hold, and its end never hangs or raises."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
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
    thread.close(None, 10.0)


def test_the_last_task_runs_and_what_else_runs_is_cancelled() -> None:
    thread, seen = LoopThread("test"), []

    async def work() -> None:
        try:
            await wait_long()
        finally:
            seen.append("cancelled")

    async def last() -> None:
        asyncio.get_running_loop().create_task(work())
        await asyncio.sleep(0)
        seen.append("last")

    thread.close(last(), 30.0)
    assert seen == ["last", "cancelled"]
    assert not thread._thread.is_alive()


def test_a_last_task_that_fails_or_is_slow_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise OSError("the socket is gone")

    for last, said in ((fail(), "the socket is gone"), (wait_long(), "longer than 0.05 s")):
        thread = LoopThread("test")
        thread.close(last, 0.05 if said.startswith("longer") else 30.0)
        assert said in caplog.text
        thread._thread.join(30)
        assert not thread._thread.is_alive()
        thread._loop.close()


def test_a_thread_that_hangs_is_reported_and_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    thread, let_go = LoopThread("test"), threading.Event()

    async def hang() -> None:
        let_go.wait(60)

    with pytest.raises(UplinkLost):
        thread.run(hang(), 0.05)
    began = time.monotonic()
    thread.close(answer(), 0.1)
    assert time.monotonic() - began < 30
    assert "abandoned" in caplog.text
    let_go.set()
    thread._thread.join(30)
    assert not thread._thread.is_alive()
    thread._loop.close()
