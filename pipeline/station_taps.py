"""Which taps the station file asks for. One place, so that a newcomer sees all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..engine.spec import Threshold
from .archive import ArchiveTap
from .gate.settings import check_gate
from .gate.tap import GateTap
from .monitor.drift_tap import DriftTap
from .monitor.health_tap import HealthTap
from .monitor.log_tap import LogTap
from .pictures import PictureTap
from .publish import Publisher
from .station import Station, camera_settings
from .systemd_tap import SystemdTap
from .taps import Tap


def station_taps(
    station: Station, publisher: Publisher, threshold_of: Callable[[str], Threshold]
) -> list[Tap]:
    """The taps of this station, not opened. Raises ConfigError where settings contradict.

    `threshold_of` a camera is the calibration that its drift is measured against; it is asked only
    once there are results.
    """
    taps: list[Tap] = [LogTap()]
    if os.environ.get("NOTIFY_SOCKET"):
        taps.append(SystemdTap())
    if station.drift is not None:
        taps.append(DriftTap(station.drift, threshold_of))
    if station.health is not None:
        who = publisher.box, publisher.boot
        taps.append(HealthTap(station.health, *who, lambda: publisher.active_alarms))
    if station.archive is not None:
        taps.append(ArchiveTap(station.archive, publisher.last_result, publisher.boot))
    if station.pictures is not None:
        taps.append(PictureTap(station.pictures, publisher))
    cameras = tuple(camera.name for camera in camera_settings(station)) if station.gates else ()
    for gate in station.gates:
        taps.append(GateTap(gate, check_gate(gate, cameras)))
    return taps


def health_url(taps: Sequence[Tap]) -> str | None:
    """Where health is served, once it is."""
    return next((tap.url for tap in taps if isinstance(tap, HealthTap)), None)
