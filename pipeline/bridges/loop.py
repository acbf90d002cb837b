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

    def close(self, last: Coroutine[Any, Any, object] | None, limit_s: float) -> None:
        """Run `last`, cancel what still runs, end the thread; `last` and the rest may take
        `limit_s` each. Never raises; a thread that does not end is reported and left behind."""
        asyncio.run_coroutine_threadsafe(self._end(last, limit_s), self._loop)
        self._thread.join(2 * limit_s)
        if self._thread.is_alive():
            log.error("%s: a task does not end; its thread is abandoned", self._thread.name)
        else:
            self._loop.close()

    async def _end(self, last: Coroutine[Any, Any, object] | None, limit_s: float) -> None:
        try:
            if last is not None:
                await asyncio.wait_for(last, limit_s)
        except asyncio.TimeoutError:  # the built-in one from Python 3.11 on only
            log.error("%s: closing took longer than %g s", self._thread.name, limit_s)
        except Exception:
            # Libraries raise classes of their own; none of them may keep the thread alive.
            log.exception("%s: closing failed", self._thread.name)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loop.stop()
