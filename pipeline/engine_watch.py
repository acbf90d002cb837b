"""One part that the engine fails on is an `err`; several in a row are an alarm."""

from __future__ import annotations

from collections.abc import Callable

from .records import Result

ENGINE_FAILED_AFTER = 3
"""Consecutive parts without an inference before the alarm "engine_failed"."""


class EngineWatch:
    """Sees every result in order; `send_alarm(name, active, text)` publishes."""

    def __init__(self, send_alarm: Callable[[str, bool, str], object]) -> None:
        self._send_alarm = send_alarm
        self._failures = 0

    def see(self, result: Result) -> None:
        if result.evaluated and self._failures >= ENGINE_FAILED_AFTER:
            self._send_alarm("engine_failed", False, "")
        if result.evaluated:
            self._failures = 0
        elif "engine" in result.reasons:
            self._failures += 1
            if self._failures == ENGINE_FAILED_AFTER:
                self._send_alarm("engine_failed", True, result.detail)
