"""Which taps the station file asks for. One place, so that a newcomer sees all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ..engine.spec import Threshold
from .archive import ArchiveTap
from .capture.uri import values
from .capture.watch_seen import seen_path
from .gate.settings import check_gate
from .gate.tap import GateTap
from .monitor.drift_tap import DriftTap
from .monitor.health_tap import HealthTap
from .monitor.log_tap import LogTap
from .pictures import PictureTap
from .publish import Publisher
from .seen_tap import SeenTap
from .station import Station, camera_names, camera_settings, camera_uris
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
    if watched := _watched_folders(station):
        taps.append(SeenTap(watched))
    cameras = tuple(camera.name for camera in camera_settings(station)) if station.gates else ()
    for gate in station.gates:
        taps.append(GateTap(gate, check_gate(gate, cameras)))
    return taps


def _watched_folders(station: Station) -> dict[str, tuple[Path, Path]]:
    """Camera to its folder, and to the list of files of it that have a result."""
    watched: dict[str, tuple[Path, Path]] = {}
    for name, uri in zip(camera_names(station), camera_uris(station.cameras), strict=True):
        if uri.scheme == "watch":
            given = values(uri).get("seen")
            path = seen_path(Path(uri.target), None if given is None else str(given))
            watched[name] = (Path(uri.target), path)
    return watched


def health_url(taps: Sequence[Tap]) -> str | None:
    """Where health is served, once it is."""
    return next((tap.url for tap in taps if isinstance(tap, HealthTap)), None)
