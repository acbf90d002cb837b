"""Which taps the station file asks for. One place, so that a newcomer sees all of them."""

from __future__ import annotations

from .archive import ArchiveTap
from .pictures import PictureTap
from .publish import Publisher
from .station import Station
from .taps import Tap


def station_taps(station: Station, publisher: Publisher) -> list[Tap]:
    """The taps of this station, not opened. Raises ConfigError where settings contradict."""
    taps: list[Tap] = []
    if station.archive is not None:
        taps.append(ArchiveTap(station.archive, publisher.last_result, publisher.boot))
    if station.pictures is not None:
        taps.append(PictureTap(station.pictures, publisher))
    return taps
