"""Which taps the station file asks for. One place, so that a newcomer sees all of them."""

from __future__ import annotations

from .pictures import PictureOutlet, PictureTap
from .station import Station
from .taps import Tap


def station_taps(station: Station, publisher: PictureOutlet) -> list[Tap]:
    """The taps of this station, not opened. Raises ConfigError where settings contradict."""
    taps: list[Tap] = []
    if station.pictures is not None:
        taps.append(PictureTap(station.pictures, publisher))
    return taps
