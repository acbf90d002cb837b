"""What may be ordered while the line runs: a trigger, resync, thresholds, another plan, its end.

Orders come from the control thread; the infer thread looks at what judges before every batch. Each
event names plan and revision that judged its part, because both travel with the part.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence

from ..calibration.regions import REST
from ..engine.spec import Threshold
from .control_port import ControlRefused
from .line_plan import PlanSlot
from .plan_change import PlanChanges
from .trigger_door import TriggerDoor

log = logging.getLogger(__name__)


class RunningLine:
    """The `LineControl` of a line; safe from any thread once the line is ready."""

    def __init__(
        self,
        slots: Sequence[PlanSlot],
        changes: PlanChanges,
        end: Callable[[], None],
        doors: Mapping[str, TriggerDoor] | None = None,
    ) -> None:
        self._slots, self._changes, self._end = slots, changes, end
        self._doors = doors or {}
        self._cameras = tuple(camera for slot in slots for camera in slot.cameras)

    def threshold(self, camera: str) -> Threshold:
        return self._slot(camera).rulebook.threshold

    def set_threshold(self, camera: str, region: str, value: float, who: str) -> int:
        """The new revision. Holds until the line ends: the plan's file is not changed."""
        slot = self._slot(camera)
        region = region or REST
        known = _regions_of(slot, camera)
        if region not in known:
            raise ControlRefused(
                f"there is no region '{region}'", f"known here: {', '.join(known)}"
            )
        if not math.isfinite(value):
            raise ControlRefused("a threshold is a finite number")
        rulebook = slot.change(camera, region, float(value))
        log.info(
            "%s changed the threshold of %s, %s, to %g (revision %d)",
            who,
            f"camera {camera}" if camera else "all cameras",
            region,
            value,
            rulebook.threshold.revision,
        )
        return rulebook.threshold.revision

    def trigger(self, camera: str, part_id: str | None) -> int:
        self._check_camera(camera)
        return self._triggered(camera).trigger(part_id)

    def reload_plan(self, camera: str, path: str) -> str:
        """The new digest; of all cameras that share the plan of `camera`."""
        return self._changes.reload(self._slot(camera), path)

    def rollback_plan(self, camera: str) -> str:
        return self._changes.rollback(self._slot(camera))

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

    def _slot(self, camera: str) -> PlanSlot:
        self._check_camera(camera)
        if camera:
            return next(slot for slot in self._slots if camera in slot.cameras)
        if len(self._slots) > 1:
            known = "; ".join(f"{slot.name}: {', '.join(slot.cameras)}" for slot in self._slots)
            raise ControlRefused("this line runs several plans", f"name a camera of one ({known})")
        return self._slots[0]

    def _check_camera(self, camera: str) -> None:
        if camera and camera not in self._cameras:
            known = ", ".join(self._cameras)
            raise ControlRefused(f"there is no camera '{camera}'", f"known here: {known}")


def _regions_of(slot: PlanSlot, camera: str) -> list[str]:
    """Regions whose threshold can be changed, of one camera or of all."""
    assert slot.now is not None, "orders come when the line is ready"
    views = [view for name, view in slot.now.views.items() if camera in ("", name)]
    return list(dict.fromkeys([REST, *(name for view in views for name in view.region_names)]))
