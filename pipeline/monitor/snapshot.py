"""What the line tells its health process, and what the two probes answer. Pure.

healthy   every stage makes progress: a supervisor need not restart anything
ready     warm, and each camera delivers or waits for a trigger: verdicts may be acted on
"""

from __future__ import annotations

from msgspec import Struct

from ..wire_messages import CountFields, HealthFields, State

SILENT_AFTER_S = 5.0
"""Without a snapshot for so long the line is unhealthy: its publish thread, or all of it, hangs."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """One look at a line. `results` and `reasons` are by camera, since boot."""

    box: str
    boot: str
    version: str
    pid: int
    state: State
    health: HealthFields
    results: dict[str, CountFields] = {}
    reasons: dict[str, dict[str, int]] = {}
    """Of `err` parts."""
    alarms: tuple[tuple[int, str], ...] = ()
    """Code and camera ("" for none) of the alarms that are active."""


def unhealthy(snapshot: Snapshot | None, age_s: float) -> list[str]:
    """Why the line should be looked at or restarted; [] when it is healthy.

    `age_s` is the time since the snapshot came, or since the process began without one.
    """
    if age_s > SILENT_AFTER_S:
        return [f"the line has said nothing for {age_s:.0f} s"]
    if snapshot is None:
        return []
    return [f"no progress: {stage}" for stage in snapshot.health.stalled or ()]


def not_ready(snapshot: Snapshot | None, age_s: float) -> list[str]:
    """Why no verdict may be acted on; [] when the line is ready."""
    reasons = unhealthy(snapshot, age_s)
    if snapshot is None:
        return [*reasons, "the line is starting"]
    health = snapshot.health
    if snapshot.state != "RUNNING":
        reasons.append(f"state {snapshot.state}")
    for name, camera in sorted(health.cams.items()):
        if not camera.delivers:
            reasons.append(f"camera {name} is {camera.state} and delivers nothing")
    if not health.ready and not reasons:
        reasons.append("the line says that it is not ready")
    return reasons
