"""Capture times from a camera's own clock: never later than arrival, within the stated bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.pipeline.capture.device_clock import DeviceClock

MS = 1_000_000
NOW = 1_700_000_000_000 * MS


@given(
    st.integers(0, 10**15),
    st.integers(0, 3 * MS),
    st.floats(0, 1),
    st.integers(1, 60_000),
    st.integers(1, 200),
)
def test_a_latched_clock_gives_the_true_time_within_its_bound(
    boot_ns: int, width_ns: int, where: float, later_ms: int, delay_ms: int
) -> None:
    clock = DeviceClock()
    latched_ns = NOW + round(where * width_ns)
    clock.note_reading(NOW, latched_ns - (NOW - boot_ns), NOW + width_ns)
    true_ns = NOW + width_ns + later_ms * MS
    device_ns = true_ns - (NOW - boot_ns)
    captured_ns, source, error_ns = clock.captured(device_ns, true_ns + delay_ms * MS)
    assert source == "device"
    assert abs(captured_ns - true_ns) <= error_ns
    assert captured_ns <= true_ns + delay_ms * MS


def test_without_a_reading_the_first_packet_counts() -> None:
    captured_ns, source, error_ns = DeviceClock().captured(123_456 * MS, NOW, 2 * MS)
    assert (captured_ns, source) == (NOW, "driver")
    assert error_ns >= 2 * MS


def test_a_clock_that_shows_our_time_is_believed() -> None:
    assert DeviceClock().captured(NOW - 3 * MS, NOW) == (NOW - 3 * MS, "device", 3 * MS)


def test_a_clock_that_jumped_is_not_believed() -> None:
    clock = DeviceClock()
    clock.note_reading(NOW, 1000 * MS, NOW + MS)
    assert clock.captured(5 * MS, NOW + 2000 * MS)[1] == "device"
    restarted = clock.captured(5 * MS, NOW + 60_000 * MS)
    assert restarted[:2] == (NOW + 60_000 * MS, "driver")
