"""A number that grows with every change, and readers that wait for it to differ."""

from __future__ import annotations

import threading


class Changes:
    """Shared by all boxes of a page. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._version = 0
        self._closed = False

    def bump(self) -> None:
        """Something is new."""
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Send every waiting reader home."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, seen_version: int, timeout_s: float) -> int | None:
        """The version once it differs from `seen_version` or time is up; None after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._version != seen_version, timeout_s)
            return None if self._closed else self._version
