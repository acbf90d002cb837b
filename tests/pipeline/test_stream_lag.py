"""How late a frame is, from stamps and arrivals: frames held back, routes that change, restarts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.pipeline.capture.stream_lag import StreamLag

MS = 1_000_000


@given(st.integers(0, 10**12), st.lists(st.integers(0, 2_000), min_size=1, max_size=80))
def test_the_lag_is_what_was_added_to_the_quickest_way(offset: int, delays: list[int]) -> None:
    lag = StreamLag(100 * MS)
    lag.of(0, offset + 30 * MS)  # the way takes 30 ms when nothing is in it
    arrived = offset + 30 * MS
    for number, delay in enumerate(delays, start=1):
        sent = number * 100 * MS
        arrived = max(arrived, offset + sent + (30 + delay) * MS)
        assert lag.of(sent, arrived) == arrived - (offset + sent + 30 * MS)


def test_a_stall_and_its_burst() -> None:
    lag = StreamLag(100 * MS)
    for number in range(10):
        assert lag.of(number * 100 * MS, number * 100 * MS + 5 * MS) == 0
    late = [lag.of(number * 100 * MS, 2000 * MS + number * MS) for number in range(10, 20)]
    assert late[0] == 1005 * MS
    assert late == sorted(late, reverse=True)
    assert lag.of(2100 * MS, 2105 * MS) == 0


def test_a_longer_route_is_the_usual_one_after_a_while() -> None:
    lag = StreamLag(100 * MS)
    for number in range(100):
        lag.of(number * 100 * MS, number * 100 * MS)
    slower = [lag.of(n * 100 * MS, n * 100 * MS + 150 * MS) for n in range(100, 300)]
    assert slower[0] == 150 * MS
    assert slower[-1] == 0


def test_stamps_that_say_nothing() -> None:
    lag = StreamLag(100 * MS)
    lag.of(0, 0)
    assert lag.of(0, 40 * MS) is None
    assert lag.of(0, 80 * MS) is None
    assert lag.of(100 * MS, 180 * MS) == 0
    assert lag.of(90_000 * MS, 220 * MS) is None, "it began anew"
    assert lag.of(90_040 * MS, 260 * MS) == 0


@given(st.integers(1, 40), st.integers(1, 85))
def test_a_stream_that_begins_in_the_past_is_not_settled_before_it_shows_the_present(
    backlog: int, read_ms: int
) -> None:
    """Frames of 10 a second that wait in a buffer are read in `read_ms` each, then as they come."""
    lag = StreamLag(100 * MS)
    now = backlog * 100 * MS
    for number in range(400):
        made = number * 100 * MS
        now = max(now + read_ms * MS, made)
        lag.of(made, now)
        if now - made >= 100 * MS:
            assert not lag.settled, f"frame {number} is {(now - made) // MS} ms old"
    assert lag.settled
