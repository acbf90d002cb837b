"""How the interpreter is set up for a line: short waits between threads, no second thread pool."""

from __future__ import annotations

import ctypes
import gc
import sys

import cv2

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""mallopt(3)"""


def prefer_short_waits() -> None:
    """Hand the interpreter over every 0.5 ms instead of 5, so that no thread waits for another's
    Python; and keep OpenCV from starting a thread pool beside the engine's."""
    sys.setswitchinterval(0.0005)
    cv2.setNumThreads(1)


def keep_freed_memory() -> bool:
    """Keep the memory of pictures and inputs for the next ones instead of giving it back.

    Otherwise each part's buffers come from the system anew, page by page: a tenth of the time a
    640 x 480 picture takes, more for larger ones. The process stays as large as it has been once.
    False where the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    kept = library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    return bool(kept and library.mallopt(_M_TRIM_THRESHOLD, 256 << 20))


def settle_memory() -> None:
    """What exists when the line is ready stays: the collector need not look at it for every few
    hundred parts again (its longest pass is then short)."""
    gc.collect()
    gc.freeze()
