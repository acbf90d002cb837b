"""A process that may only have what the line beside it leaves."""

from __future__ import annotations

import os
import sys


def yield_to_the_line() -> None:
    """Let the calling thread, and the threads that it starts, run only where a core is free.

    A thread of the line that wakes takes the core from it at once. From a merely nice thread it
    does not: Linux lets that one finish its slice first, up to 3 ms (docs/performance.md).

    Only for processes that share nothing with the line: a thread that holds a lock of the line,
    the interpreter's for one, must not have to wait for a free core. Linux only; elsewhere
    nothing changes.
    """
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
