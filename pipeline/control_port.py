"""What a running line lets its operators do. The control socket asks, the line answers."""

from __future__ import annotations

from typing import Protocol

from ..engine.spec import Threshold
from ..errors import SkrdError


class ControlRefused(SkrdError):
    """The line is asked for something it cannot or may not do now; the sentence says why."""

    exit_code = 6


class LineControl(Protocol):
    """Safe to call from any thread while the line runs. Raises ControlRefused with the reason.

    Names of cameras are those of the station; "" means the only one, or all where that makes sense.
    """

    def trigger(self, camera: str, part_id: str | None) -> int:
        """Fire the camera's software trigger for this part; its trigger number comes back."""

    def threshold(self, camera: str) -> Threshold:
        """The calibration of the plan that judges this camera now."""

    def set_threshold(self, camera: str, region: str, value: float, who: str) -> int:
        """Judge by `value` from the next part on; the new revision comes back.

        `region` "" or "image" is the plan's own threshold, and with it that of every region that
        has none; `camera` "" means all cameras of the only plan.
        """

    def reload_plan(self, camera: str, path: str) -> str:
        """Open and warm up the plan beside the running one, then swap; its digest comes back.

        Blocks for seconds. When anything fails the old plan keeps running (alarm "reload_failed").
        """

    def rollback_plan(self, camera: str) -> str:
        """Back to the plan before the last change, as `reload_plan` does; its digest comes back."""

    def resync(self, camera: str) -> None:
        """Pair the next trigger with the next frame again, after the fault was looked at."""

    def drain(self) -> None:
        """Finish what was admitted, say BYE and end, as SIGTERM does."""
