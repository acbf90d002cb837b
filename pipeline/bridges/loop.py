"""An asyncio loop in a thread, for libraries that serve asynchronously."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from .uplink import UplinkLost

log = logging.getLogger(__name__)
T = TypeVar("T")
_CLOSE_S = 5.0


class LoopThread:
    """Runs coroutines for other threads. `close` ends all of its tasks."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, job: Coroutine[Any, Any, T], limit_s: float) -> T:
        """The coroutine's value. Raises UplinkLost when it takes longer than `limit_s`."""
        future = asyncio.run_coroutine_threadsafe(job, self._loop)
        try:
            return future.result(limit_s)
        except concurrent.futures.TimeoutError:  # the built-in one from Python 3.11 on only
            future.cancel()
            raise UplinkLost(f"the server did not answer for {limit_s:g} s") from None

    def close(self) -> None:
        """Cancel what runs, and end the thread. Never raises; what hangs is left behind."""
        ended = asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop)
        try:
            ended.result(_CLOSE_S)
        except concurrent.futures.TimeoutError:
            log.error("%s: a task does not end; its thread is abandoned", self._thread.name)
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)
        self._loop.close()


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
