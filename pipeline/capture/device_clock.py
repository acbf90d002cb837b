"""When an image was taken, from the clocks of the camera and of this machine. Pure.

A camera's clock counts from its own start (or by PTP). Reading it between two looks at our clock
bounds the difference of the two; without such a reading the difference is only known when both
evidently show the same time. Otherwise the arrival of the first packet is all there is.
"""

from __future__ import annotations

from ..records import CaptureSource

_SAME_CLOCK_NS = 50_000_000
"""An image stamped this shortly before its first packet arrived was stamped by our own time."""
_DRIFT = 100e-6
"""How fast two quartz clocks may move apart; the bound grows until the next reading."""


class DeviceClock:
    """All times in ns: `wall` is this machine's wall clock, `device` the camera's counter."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        self._half_width_ns = 0
        self._read_at_ns = 0

    def note_reading(self, before_wall_ns: int, device_ns: int, after_wall_ns: int) -> None:
        """The camera's counter was latched somewhere between two looks at the wall clock."""
        middle = (before_wall_ns + after_wall_ns) // 2
        self._offset_ns = middle - device_ns
        self._half_width_ns = (after_wall_ns - before_wall_ns + 1) // 2
        self._read_at_ns = after_wall_ns

    def captured(
        self, device_ns: int, first_packet_wall_ns: int, exposure_ns: int = 0
    ) -> tuple[int, CaptureSource, int]:
        """(wall ns of the capture, by whose clock, error bound in ns).

        `exposure_ns` widens the bound: cameras stamp the start or the end of it. A stamp that
        would lie after its own arrival or more than 10 s before is not believed.
        """
        if self._offset_ns is not None:
            wall_ns = device_ns + self._offset_ns
            drift_ns = round(abs(first_packet_wall_ns - self._read_at_ns) * _DRIFT)
            error_ns = self._half_width_ns + drift_ns
            age_ns = first_packet_wall_ns - wall_ns
            if -error_ns <= age_ns <= 10_000_000_000:
                return min(wall_ns, first_packet_wall_ns), "device", error_ns + exposure_ns
        age_ns = first_packet_wall_ns - device_ns
        if 0 <= age_ns <= _SAME_CLOCK_NS + exposure_ns:
            # By chance no counter lies this close to ours: both show one time (PTP), and they
            # differ by less than what lies between stamp and arrival.
            return device_ns, "device", age_ns + exposure_ns
        return first_packet_wall_ns, "driver", exposure_ns + _SAME_CLOCK_NS
