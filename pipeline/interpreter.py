"""How the interpreter is set up for a line: short waits between threads, no second thread pool."""

from __future__ import annotations

import gc
import sys

import cv2


def prefer_short_waits() -> None:
    """Hand the interpreter over every 0.5 ms instead of 5, so that no thread waits for another's
    Python; and keep OpenCV from starting a thread pool beside the engine's."""
    sys.setswitchinterval(0.0005)
    cv2.setNumThreads(1)


def settle_memory() -> None:
    """What exists when the line is ready stays: the collector need not look at it for every few
    hundred parts again (its longest pass is then short)."""
    gc.collect()
    gc.freeze()
