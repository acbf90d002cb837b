"""What the line needs of a publisher, and what other threads ask the publish thread to send."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from . import wire_messages as wire
from .judge import Judged
from .records import Result


class Outlet(Protocol):
    """What the line needs of a publisher; all calls come from the publish thread."""

    def open(self) -> None: ...
    def send_result(self, result: Result, dropped_since_boot: int = 0) -> int: ...
    def send_state(self, state: wire.State, text: str = "") -> int: ...
    def send_alarm(self, name: str, active: bool, text: str = "", camera: str = "") -> int: ...
    def heartbeat_if_due(self, snapshot: Callable[[], wire.HealthFields]) -> bool: ...
    @property
    def subscribers(self) -> int: ...
    def wait_for_subscribers(self, count: int, timeout_s: float) -> bool: ...
    def close(self, text: str = "") -> None: ...


@dataclass(frozen=True, slots=True)
class State:
    """Publish this state of the line."""

    state: wire.State
    text: str = ""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Publish the start or the end of an alarm."""

    name: str
    active: bool
    text: str = ""
    camera: str = ""


class Finish:
    """Publish what has no result yet as `err`, say BYE, and end."""


Item = Judged | State | Alarm | Finish
"""What travels to the publish thread, in the order in which it is to be sent."""
