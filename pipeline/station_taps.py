"""Which taps the station file asks for. One place, so that a newcomer sees all of them."""

from __future__ import annotations

from .station import Station
from .taps import Tap


def station_taps(station: Station) -> list[Tap]:
    """The taps of this station, not opened. Raises ConfigError where settings contradict."""
    taps: list[Tap] = []
    return taps
