"""What may be ordered while the line runs: a trigger, resync, another threshold, and its end.

Orders come from the control thread; the infer thread looks at `threshold` before every batch. The
first event judged by a new threshold already carries its revision, because both travel through
the same queue to the publish thread.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ..engine.spec import Threshold
from .control_port import ControlRefused
from .trigger_door import TriggerDoor

log = logging.getLogger(__name__)


class RunningLine:
    """The `LineControl` of a line whose cameras share one plan; safe from any thread."""

    def __init__(
        self,
        cameras: Sequence[str],
        threshold: Threshold,
        end: Callable[[], None],
        doors: Mapping[str, TriggerDoor] | None = None,
    ) -> None:
        self._cameras = tuple(cameras)
        self._end = end
        self._doors = doors or {}
        self._lock = threading.Lock()
        self.threshold = threshold
        """Replaced as a whole, so a reader without the lock sees the old one or the new one."""

    def set_threshold(self, camera: str, region: str, value: float, who: str) -> int:
        """The new revision. Holds until the line ends: the plan's file is not changed."""
        self._check_camera(camera)
        if camera and len(self._cameras) > 1:
            raise ControlRefused(
                "all cameras of this line share one plan and its threshold",
                "leave the camera out to change it for all of them",
            )
        if region not in ("", "image"):
            raise ControlRefused(f"the plan has no region '{region}'", "known here: image")
        if not math.isfinite(value):
            raise ControlRefused("a threshold is a finite number")
        with self._lock:
            old = self.threshold
            self.threshold = msgspec.structs.replace(
                old, value=float(value), method="manual", revision=old.revision + 1
            )
            new = self.threshold
        log.info(
            "%s changed the threshold from %g to %g (revision %d)",
            who,
            old.value,
            new.value,
            new.revision,
        )
        return new.revision

    def trigger(self, camera: str, part_id: str | None) -> int:
        self._check_camera(camera)
        return self._triggered(camera).trigger(part_id)

    def reload_plan(self, camera: str, path: str) -> str:
        self._check_camera(camera)
        raise ControlRefused(
            "this line cannot change its plan while it runs",
            "drain it, and start it again with the new plan",
        )

    def resync(self, camera: str) -> None:
        self._check_camera(camera)
        if not self._doors:
            raise ControlRefused("this line does not pair triggers with frames; nothing to resync")
        for door in [self._triggered(camera)] if camera else list(self._doors.values()):
            door.resync()

    def drain(self) -> None:
        self._end()

    def _triggered(self, camera: str) -> TriggerDoor:
        if not self._doors:
            raise ControlRefused(
                "the cameras of this line take no trigger from the network",
                "a camera with `trigger:` in the station file does",
            )
        if camera in self._doors:
            return self._doors[camera]
        known = ", ".join(self._doors)
        if camera:
            raise ControlRefused(f"camera '{camera}' takes no trigger", f"those that do: {known}")
        if len(self._doors) > 1:
            raise ControlRefused("which camera is meant?", f"name one of: {known}")
        return next(iter(self._doors.values()))

    def _check_camera(self, camera: str) -> None:
        if camera and camera not in self._cameras:
            known = ", ".join(self._cameras)
            raise ControlRefused(f"there is no camera '{camera}'", f"known here: {known}")
