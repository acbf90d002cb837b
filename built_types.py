"""Types that msgspec has built: it does so on first use, which two threads must not share.

msgspec 0.22 shows a Struct's field types to other threads before it has them all. Two threads that
decode their first message of a kind at once then end the process with a segmentation fault: here
the page's two threads at their start, once in some hundred starts (docs/LOG.md).
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")
_building = threading.Lock()
_built: set[Any] = set()


def built(kind: T) -> T:
    """`kind`, a type, which from now on every thread may decode.

    Every type goes to msgspec through here (tests/test_layout.py), so that one which is nested in
    two others is built once as well.
    """
    if kind not in _built:
        with _building:
            msgspec.json.Decoder(kind)
            _built.add(kind)
    return kind
