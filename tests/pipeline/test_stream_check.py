"""alive, fresh, contiguous, valid: what each message and each silence does to them."""

from __future__ import annotations

import pytest
from skrd4ad.pipeline import wire
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.stream_check import MAX_GAPS, Gap, Restart, StreamCheck
from skrd4ad.pipeline.wire import Message

SECOND = 1_000_000_000
BOOT_A, BOOT_B = "a" * 16, "b" * 16


def state(seq: int, state: str = "RUNNING", boot: str = BOOT_A, mono: int = 0) -> Message:
    header = fields.StateHeader(
        v="1.0",
        box="edge07",
        boot=boot,
        seq=seq,
        t=0,
        mono=mono,
        state=state,  # type: ignore[arg-type]
        previous="STARTING",
    )
    return wire.decode(wire.encode_state(header))


def beat(
    seq: int, *, ready: bool = True, boot: str = BOOT_A, mono: int = 0, state: str = "RUNNING"
) -> Message:
    header = fields.HeartbeatHeader(
        v="1.0",
        box="edge07",
        boot=boot,
        seq=seq,
        t=0,
        mono=mono,
        period_ms=500,
        state=state,  # type: ignore[arg-type]
        health=fields.HealthFields(ready=ready, uptime_s=1.0),
        counts=fields.CountFields(),
    )
    return wire.decode(wire.encode_heartbeat(header))


def test_a_running_stream_is_ok_and_silence_ends_it() -> None:
    check = StreamCheck()
    assert not check.status(0).ok
    assert check.receive(state(1), 0) == ()
    assert not check.status(0).valid
    assert check.receive(beat(1), 0) == ()
    assert check.status(0).ok
    assert check.status(int(1.5 * SECOND)).ok
    late = check.status(int(1.6 * SECOND))
    assert (late.alive, late.fresh, late.contiguous, late.valid) == (False, False, True, True)


def test_a_late_joiner_misses_nothing_but_what_follows() -> None:
    check = StreamCheck()
    assert check.receive(state(500), 0) == ()
    assert check.receive(state(501), 0) == ()
    assert check.status(0).contiguous


def test_a_gap_is_named_exactly_and_stays_until_it_is_filled() -> None:
    check = StreamCheck()
    check.receive(state(10), 0)
    assert check.receive(state(14), 0) == (Gap("edge07", BOOT_A, 11, 13),)
    assert check.status(0).missing == 3
    assert check.fill(12)
    assert check.gaps == (Gap("edge07", BOOT_A, 11, 11), Gap("edge07", BOOT_A, 13, 13))
    assert not check.fill(12)
    assert check.fill(11)
    assert check.fill(13)
    assert check.status(0).contiguous


def test_a_heartbeat_shows_that_the_last_event_was_lost() -> None:
    check = StreamCheck()
    check.receive(state(10), 0)
    assert check.receive(beat(11), 0) == (Gap("edge07", BOOT_A, 11, 11),)
    assert check.receive(beat(11), 0) == ()


def test_joining_on_a_heartbeat_expects_the_next_number() -> None:
    check = StreamCheck()
    check.receive(beat(10), 0)
    assert check.receive(state(11), 0) == ()
    assert check.receive(state(13), 0) == (Gap("edge07", BOOT_A, 12, 12),)


def test_a_duplicate_is_ignored() -> None:
    check = StreamCheck()
    check.receive(state(10), 0)
    assert check.receive(state(10), 0) is None
    assert check.receive(state(9), 0) is None
    assert check.duplicates == 2
    assert check.status(0).contiguous


def test_a_restart_that_counts_on_is_told_and_its_losses_are_known() -> None:
    check = StreamCheck()
    check.receive(state(10), 0)
    assert check.receive(state(13, boot=BOOT_B), 0) == (
        Restart("edge07", BOOT_A, BOOT_B),
        Gap("edge07", BOOT_B, 11, 12),
    )
    assert check.status(0).restarts == 1


def test_a_restart_that_counts_from_one_is_told_and_its_losses_are_known() -> None:
    check = StreamCheck()
    check.receive(state(10), 0)
    assert check.receive(state(1, boot=BOOT_B), 0) == (Restart("edge07", BOOT_A, BOOT_B),)
    check = StreamCheck()
    check.receive(state(10), 0)
    notices = check.receive(state(3, boot=BOOT_B), 0)
    assert notices == (Restart("edge07", BOOT_A, BOOT_B), Gap("edge07", BOOT_B, 1, 2))


def test_after_a_restart_nothing_is_valid_until_the_line_is_ready_again() -> None:
    check = StreamCheck()
    check.receive(beat(10), 0)
    check.receive(state(11, boot=BOOT_B), 0)
    assert not check.status(0).valid
    check.receive(beat(11, boot=BOOT_B), 0)
    assert check.status(0).valid


@pytest.mark.parametrize("name", ["STARTING", "DEGRADED", "DRAINING"])
def test_only_running_and_ready_is_valid(name: str) -> None:
    check = StreamCheck()
    check.receive(beat(1, state=name), 0)
    assert not check.status(0).valid
    check.receive(beat(1, ready=False), 0)
    assert not check.status(0).valid


def test_bye_ends_the_stream_at_once() -> None:
    check = StreamCheck()
    check.receive(beat(1), 0)
    check.receive(state(2, "BYE"), 0)
    assert check.ended
    assert not check.status(0).alive


def test_messages_that_were_held_up_are_not_fresh_whatever_the_clocks_say() -> None:
    check = StreamCheck(max_age_ms=500)
    offset = 77 * SECOND
    for second in range(3):
        check.receive(beat(1, mono=second * SECOND), offset + second * SECOND)
        assert check.status(offset + second * SECOND).fresh
    # The same stream after it waited 2 s in a buffer: heartbeats of the past arrive now.
    check.receive(beat(1, mono=3 * SECOND), offset + 5 * SECOND)
    status = check.status(offset + 5 * SECOND)
    assert status.alive
    assert not status.fresh
    assert status.age_ms == pytest.approx(2000)


def test_clocks_that_drift_apart_do_not_look_like_a_delay() -> None:
    check = StreamCheck(max_age_ms=50)
    # 200 ppm, far beyond any crystal, for three hours: 2.2 s of drift in all.
    for half_second in range(3 * 3600 * 2):
        sent = half_second * SECOND // 2
        check.receive(beat(1, mono=sent), sent + sent // 5000)
    assert check.status(sent + sent // 5000).fresh


def test_endless_losses_are_counted_and_take_no_endless_memory() -> None:
    check = StreamCheck()
    losses = MAX_GAPS + 500
    for number in range(losses + 1):
        check.receive(state(1 + 2 * number), 0)
    assert check.status(0).missing == losses
    assert len(check.gaps) == MAX_GAPS
    for gap in check.gaps:
        assert check.fill(gap.first)
    # What is no longer known one by one was still lost.
    assert check.gaps == ()
    assert check.status(0).missing == 500
    assert not check.status(0).contiguous
    check.forget_gaps()
    assert check.status(0).contiguous
