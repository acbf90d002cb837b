"""The reject gate without a belt: parts, verdicts and time come from a script.

The one rule that everything here is about: a pulse meets the part that it was decided for, or it
does not come.
"""

from __future__ import annotations

import inspect
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.errors import ConfigError
from skrd4ad.pipeline.gate.encoder import EncoderTrack, FileEncoder, SimulatedEncoder, open_encoder
from skrd4ad.pipeline.gate.fifo import MAX_PARTS, Decision, GateFifo
from skrd4ad.pipeline.gate.keeper import ALARM_HOLD_NS, GateKeeper
from skrd4ad.pipeline.gate.outputs import FileGate, Gate, GateError, make_gate
from skrd4ad.pipeline.gate.pulse import Pulse
from skrd4ad.pipeline.gate.settings import (
    EncoderSettings,
    GateSettings,
    OutputSettings,
    check_gate,
)
from skrd4ad.pipeline.outlet import Alarm
from skrd4ad.pipeline.records import Announced, Part, Verdict
from skrd4ad.pipeline.trigger_door import Refused

MS = 1_000_000


def part(seq: int, name: str | None = None) -> Part:
    return Part(name or f"A-{seq}", seq, "plc", "exact")


def announced(seq: int, at_ms: float, name: str | None = None) -> Announced:
    return Announced("cam", seq, part(seq, name), round(at_ms * MS), 0)


def causes(decisions: list[Decision]) -> list[tuple[int | None, str, bool]]:
    return [(one.camera_seq, one.cause, one.reject) for one in decisions]


# ---- which part is at the gate -------------------------------------------------------------


def test_a_part_is_decided_on_at_its_place_by_its_own_verdict() -> None:
    fifo = GateFifo(delay=100, tolerance=5)
    for seq, at in ((1, 0), (2, 10), (3, 20)):
        assert fifo.announce(announced(seq, at), at)
    # Verdicts come in any order; each finds its part.
    assert fifo.tell(3, part(3), Verdict.OK) == "taken"
    assert fifo.tell(1, part(1), Verdict.NG) == "taken"
    assert fifo.due(99) == []
    assert causes(fifo.due(100)) == [(1, "ng", True)]
    assert fifo.next_due == 110
    # 2 has none: rejected. Its late verdict acts on nobody.
    assert causes(fifo.due(120)) == [(2, "missing", True), (3, "ok", False)]
    assert fifo.tell(2, part(2), Verdict.OK) == "late"
    assert len(fifo) == 0


def test_review_passes_only_where_the_station_says_so() -> None:
    for pass_review in (False, True):
        fifo = GateFifo(0, 5, pass_review)
        fifo.announce(announced(1, 0), 0)
        fifo.tell(1, part(1), Verdict.REVIEW)
        assert causes(fifo.due(0)) == [(1, "review", not pass_review)]


def test_a_verdict_that_is_not_the_announced_parts_rejects_it() -> None:
    fifo = GateFifo(0, 5)
    fifo.announce(announced(1, 0), 0)
    assert fifo.tell(1, part(1, "B-9"), Verdict.OK) == "mismatch"
    assert fifo.tell(1, part(1), Verdict.OK) == "mismatch"
    assert causes(fifo.due(0)) == [(1, "mismatch", True)]
    assert fifo.tell(7, part(7), Verdict.OK) == "unknown"


def test_a_repeated_verdict_changes_nothing_and_a_contradicting_one_rejects() -> None:
    fifo = GateFifo(0, 5)
    for seq in (1, 2):
        fifo.announce(announced(seq, 0), 0)
        fifo.tell(seq, part(seq), Verdict.OK)
    assert fifo.tell(1, part(1), Verdict.OK) == "repeated"
    assert fifo.tell(2, part(2), Verdict.NG) == "mismatch"
    assert causes(fifo.due(0)) == [(1, "ok", False), (2, "mismatch", True)]


def test_a_pass_from_a_line_that_is_not_running_is_none() -> None:
    fifo = GateFifo(0, 5)
    for seq, verdict in ((1, Verdict.OK), (2, Verdict.NG)):
        fifo.announce(announced(seq, 0), 0)
        fifo.tell(seq, part(seq), verdict, trusted=False)
    assert causes(fifo.due(0)) == [(1, "not_running", True), (2, "ng", True)]


def test_a_refused_part_and_left_out_numbers() -> None:
    fifo = GateFifo(0, 5)
    fifo.announce(announced(1, 0), 0)
    fifo.refuse(Part("A-2", None, "plc"), 1)
    fifo.announce(announced(4, 2), 2)
    fifo.announce(announced(4, 2), 2)
    assert fifo.skipped == 2
    fifo.tell(1, part(1), Verdict.OK)
    assert causes(fifo.due(2)) == [(1, "ok", False), (None, "refused", True), (4, "missing", True)]


def test_a_belt_that_stands_still_does_not_fill_the_memory() -> None:
    fifo = GateFifo(1, 5)
    for seq in range(1, MAX_PARTS + 11):
        fifo.announce(announced(seq, 0), 0)
    assert (len(fifo), fifo.unplaced) == (MAX_PARTS, 10)


def test_pulses_join_and_the_limit_wins() -> None:
    pulse = Pulse(pulse_ns=50, max_on_ns=120)
    assert not pulse.is_on(0)
    pulse.fire(0)
    assert pulse.is_on(49)
    pulse.fire(49)
    assert (pulse.is_on(98), pulse.next_change_ns) == (True, 99)
    pulse.fire(98)
    assert pulse.is_on(119)
    assert (pulse.is_on(120), pulse.cut, pulse.next_change_ns) == (False, 1, None)
    pulse.fire(130)
    assert pulse.is_on(179)
    assert (pulse.is_on(180), pulse.cut) == (False, 1)


# ---- the encoder ---------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(-100, 100)), min_size=1, max_size=80),
    st.integers(0, 255),
)
def test_a_counter_that_begins_again_does_not_jump(
    steps: list[tuple[int, int]], start: int
) -> None:
    track, now, way = EncoderTrack(bits=8), 0, 0
    track.see(0, start)
    ways = [(0, 0)]
    for wait, step in steps:
        now, way = now + wait, way + step
        assert track.see(now, (start + way) % 256) == way
        ways.append((now, way))
    for (before, count), (after, next_count) in itertools.pairwise(ways):
        middle = (before + after) / 2
        low, high = sorted((count, next_count))
        found = track.at(round(middle))
        assert found is not None
        assert low - 1e-6 <= found <= high + 1e-6
        assert track.at(before) == count
    assert track.at(-1) is None
    assert track.at(now + 5) == way


def test_the_encoder_file_is_read_and_a_bad_one_explained(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("4711\n")
    assert FileEncoder(path).count() == 4711
    path.write_text("many")
    with pytest.raises(ConfigError, match="cannot be read"):
        open_encoder(EncoderSettings(kind="file", path=str(path)), None)
    with pytest.raises(ConfigError, match="cannot be read"):
        FileEncoder(tmp_path / "nix").open()


# ---- the whole gate, by hand-turned clock --------------------------------------------------


@dataclass
class Output:
    """Writes down when it was switched, and fails when told to."""

    now: Callable[[], int]
    switched: list[tuple[int, bool]] = field(default_factory=list)
    noted: list[Decision] = field(default_factory=list)
    broken: bool = False

    def open(self) -> None: ...

    def switch(self, on: bool) -> None:
        if self.broken:
            raise GateError("the relay is gone")
        self.switched.append((self.now(), on))

    def note(self, decision: Decision, now_ns: int) -> None:
        self.noted.append(decision)

    def close(self) -> None:
        self.switch(False)


class Stand:
    """A gate on the test stand."""

    def __init__(self, parts: ModuleType, belt: object = None, **options: object) -> None:
        self.hand = parts.HandClock(0)
        self.alarms: list[Alarm] = []
        self.output = Output(lambda: self.hand.now_ns)
        given: dict[str, object] = {"output": OutputSettings(kind="log"), "pulse_ms": 10.0}
        if belt is None:
            given["delay_ms"] = 200.0
        self.keeper = GateKeeper(
            GateSettings(**{**given, **options}),
            "cam",
            self.output,
            self.hand.clock,
            belt(self.hand) if belt else None,
            self.alarms.append,
        )
        self.keeper.turn()

    def go_to(self, now_ms: float) -> None:
        """As the gate's thread does it: turn, sleep as long as it says, turn."""
        until_ns = round(now_ms * MS)
        while True:
            wait_ns = self.keeper.turn()
            if self.hand.now_ns + wait_ns > until_ns:
                break
            self.hand.now_ns += max(wait_ns, 1)
        self.hand.now_ns = until_ns
        self.keeper.turn()

    @property
    def names(self) -> list[tuple[str, bool]]:
        return [(alarm.name, alarm.active) for alarm in self.alarms]


def test_a_bad_part_gets_its_pulse_at_its_place_and_a_good_one_none(parts: ModuleType) -> None:
    stand = Stand(parts)
    for seq, verdict in ((1, Verdict.OK), (2, Verdict.NG), (3, Verdict.OK)):
        stand.go_to(seq * 50)
        stand.keeper.announce(announced(seq, seq * 50))
        stand.keeper.tell(seq, part(seq), verdict, trusted=True)
    stand.go_to(400)
    assert stand.output.switched == [(300 * MS, True), (310 * MS, False)]
    counters = stand.keeper.counters()
    assert (counters.passed, counters.rejected, counters.missing) == (2, 1, 0)
    assert stand.alarms == []


def test_a_missing_verdict_is_a_reject_with_an_alarm_that_ends(parts: ModuleType) -> None:
    stand = Stand(parts)
    stand.keeper.announce(announced(1, 0))
    stand.go_to(250)
    stand.keeper.tell(1, part(1), Verdict.OK, trusted=True)
    stand.go_to(260)
    assert [at for at, on in stand.output.switched if on] == [200 * MS]
    counters = stand.keeper.counters()
    assert (counters.rejected, counters.missing, counters.late) == (1, 1, 1)
    assert stand.names == [("gate_missing", True)]
    stand.go_to(260 + ALARM_HOLD_NS / MS + 200)
    assert stand.names == [("gate_missing", True), ("gate_missing", False)]


def test_a_gate_that_opens_for_good_parts_lets_nothing_else_through(parts: ModuleType) -> None:
    stand = Stand(parts, fires_on="pass")
    stand.keeper.refuse(Refused("cam", "A-0", 0, "full"))
    for seq, verdict in ((1, Verdict.OK), (2, Verdict.ERR)):
        stand.keeper.announce(announced(seq, seq * 50))
        stand.keeper.tell(seq, part(seq), verdict, trusted=True)
    stand.keeper.announce(announced(3, 150))
    stand.go_to(500)
    assert [at for at, on in stand.output.switched if on] == [250 * MS]


def test_a_gate_that_comes_too_late_does_not_hit_the_next_part(parts: ModuleType) -> None:
    stand = Stand(parts, tolerance_ms=20.0)
    stand.keeper.announce(announced(1, 0))
    stand.keeper.announce(announced(2, 60))
    stand.keeper.tell(2, part(2), Verdict.OK, trusted=True)
    stand.hand.now_ns = 265 * MS  # the computer stood still while part 1 went by
    stand.go_to(400)
    assert stand.output.switched == []
    assert stand.keeper.counters().missed == 1
    assert ("gate_missed", True) in stand.names


def test_an_output_that_fails_raises_an_alarm_and_is_tried_again(parts: ModuleType) -> None:
    stand = Stand(parts, pulse_ms=300.0)
    stand.output.broken = True
    stand.keeper.announce(announced(1, 0))
    stand.go_to(350)
    assert ("gate_failed", True) in stand.names
    stand.output.broken = False
    stand.go_to(600)
    assert [on for _, on in stand.output.switched] == [True, False]


def test_the_limit_switches_off_whatever_is_asked(parts: ModuleType) -> None:
    stand = Stand(parts, pulse_ms=40.0, max_on_ms=100.0)
    for seq in range(1, 11):
        stand.keeper.announce(announced(seq, seq * 20))
    stand.go_to(1000)
    on_since = None
    for at, on in stand.output.switched:
        if on:
            on_since = at
        else:
            assert on_since is not None
            assert at - on_since <= 100 * MS
    assert ("gate_held", True) in stand.names
    assert not stand.output.switched[-1][1]


def test_a_dry_run_decides_and_never_switches(parts: ModuleType) -> None:
    stand = Stand(parts, dry_run=True)
    stand.keeper.announce(announced(1, 0))
    stand.go_to(500)
    assert stand.output.switched == []
    assert causes(stand.output.noted) == [(1, "missing", True)]
    assert stand.keeper.counters().dry_run


COUNTS = {
    "delay_counts": 200.0,
    "tolerance_counts": 20.0,
    "encoder": EncoderSettings(kind="simulated", counts_per_s=1000.0),
}


class Belt:
    """An encoder whose belt is moved by hand."""

    def __init__(self) -> None:
        self.position = 1_000_000
        self.broken = False

    def open(self) -> None: ...

    def count(self) -> int:
        if self.broken:
            raise OSError("no such device")
        return self.position

    def close(self) -> None: ...


def test_counts_decide_and_not_time(parts: ModuleType) -> None:
    belt = Belt()
    stand = Stand(parts, lambda hand: belt, **COUNTS)
    stand.keeper.announce(announced(1, 0))
    stand.keeper.tell(1, part(1), Verdict.NG, trusted=True)
    stand.keeper.turn()
    for _ in range(199):
        belt.position += 1
        stand.go_to(stand.hand.now_ns / MS + 1)
    stand.go_to(60_000)  # the belt stands for a minute, just before the gate
    assert stand.output.switched == []
    belt.position += 1
    stand.go_to(60_001)
    assert [on for _, on in stand.output.switched] == [True]


def test_a_part_is_placed_where_the_belt_was_when_it_was_seen(parts: ModuleType) -> None:
    stand = Stand(parts, lambda hand: SimulatedEncoder(1000.0, hand.clock), **COUNTS)
    stand.go_to(500)
    stand.keeper.announce(announced(1, 450))  # announced 50 ms after its picture
    stand.go_to(800)
    ((fired_ns, on), *_) = stand.output.switched
    assert on
    assert fired_ns == pytest.approx(650 * MS, abs=2 * MS)


def test_an_encoder_that_fails_is_an_alarm_and_moves_no_part(parts: ModuleType) -> None:
    belt = Belt()
    stand = Stand(parts, lambda hand: belt, **COUNTS)
    stand.keeper.announce(announced(1, 0))
    stand.keeper.turn()
    belt.broken = True
    stand.go_to(300)
    assert ("gate_failed", True) in stand.names
    assert stand.output.noted == []
    belt.broken, belt.position = False, belt.position + 205
    stand.go_to(301)
    assert causes(stand.output.noted) == [(1, "missing", True)]
    stand.keeper.announce(Announced("cam", 2, part(2), -5 * MS, 0))
    stand.go_to(302)
    assert stand.keeper.counters().unplaced == 1


def test_a_dead_encoder_is_found_out_by_the_parts_that_come(parts: ModuleType) -> None:
    belt = Belt()
    stand = Stand(parts, lambda hand: belt, **COUNTS)
    for seq in (1, 2):
        stand.go_to(seq * 50)
        stand.keeper.announce(announced(seq, seq * 50))
    stand.go_to(150)
    assert stand.names == []  # two parts at one place may be somebody trying it out
    stand.keeper.announce(announced(3, 150))
    stand.go_to(200)
    assert stand.names == [("gate_failed", True)]
    assert "does not count" in stand.alarms[0].text


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32),
    trouble=st.sampled_from([0.0, 0.2, 0.6]),
    fires_on=st.sampled_from(["reject", "pass"]),
)
def test_no_pulse_ever_meets_another_part(
    parts: ModuleType, seed: int, trouble: float, fires_on: str
) -> None:
    run_belt(parts, seed, trouble, fires_on, count=40)


@pytest.mark.parametrize("fires_on", ["reject", "pass"])
def test_a_long_belt_with_all_troubles(parts: ModuleType, fires_on: str) -> None:
    assert run_belt(parts, 20261126, 0.3, fires_on, count=2000) > 10_000


def run_belt(parts: ModuleType, seed: int, trouble: float, fires_on: str, count: int) -> int:
    """Parts every 60 ms or more, verdicts in time, late, twice, contradicting, foreign or never;
    the gate's thread is delayed. Returns the number of operations."""
    dice = random.Random(seed)
    stand = Stand(parts, fires_on=fires_on, tolerance_ms=15.0, pulse_ms=10.0)
    events: list[tuple[int, int, Callable[[], None]]] = []
    due: dict[int, int] = {}
    told: dict[int, list[tuple[int, str, bool]]] = {}
    at_ns = 0
    keeper = stand.keeper
    for seq in range(1, count + 1):
        at_ns += dice.randint(60 * MS, 150 * MS)
        due[seq] = at_ns + 200 * MS
        told[seq] = []
        seen = announced(seq, at_ns / MS)
        events.append((at_ns, seq, lambda seen=seen: keeper.announce(seen)))
        tells = 1 + (dice.random() < trouble / 4) - (dice.random() < trouble / 4)
        for _ in range(tells):
            when_ns = at_ns + dice.randint(1, (300 if dice.random() < trouble else 150) * MS)
            verdict = dice.choice([Verdict.OK, Verdict.OK, Verdict.NG, Verdict.ERR])
            own = dice.random() >= trouble / 8
            shown = part(seq) if own else part(seq, "B-1")

            def tell(seq: int = seq, shown: Part = shown, verdict: Verdict = verdict) -> None:
                keeper.tell(seq, shown, verdict, trusted=True)

            events.append((when_ns, seq, tell))
            told[seq].append((when_ns, verdict.value, own))
        if dice.random() < trouble / 8:
            events.append(
                (at_ns, seq, lambda: keeper.tell(count + 5, part(1), Verdict.OK, trusted=True))
            )
    operations = 0
    decided_at: dict[int, int] = {}
    events.append((at_ns + 900 * MS, 0, lambda: None))
    for when_ns, _, event in sorted(events, key=lambda one: one[:2]):
        while stand.hand.now_ns < when_ns:
            wait_ns = max(keeper.turn(), 1)
            operations += 1
            for decision in stand.output.noted[len(decided_at) :]:
                assert decision.camera_seq is not None
                decided_at[decision.camera_seq] = stand.hand.now_ns
            stall_ns = dice.randint(0, 60 * MS) if dice.random() < trouble / 10 else 0
            # Woken by the next event, when its sleep is over, or when the computer lets it.
            stand.hand.now_ns = min(stand.hand.now_ns + wait_ns, when_ns) + stall_ns
        operations += 1
        event()
    keeper.turn()
    for decision in stand.output.noted[len(decided_at) :]:
        assert decision.camera_seq is not None
        decided_at[decision.camera_seq] = stand.hand.now_ns
    assert [one.camera_seq for one in stand.output.noted] == list(range(1, count + 1))
    pulses = [at for at, on in stand.output.switched if on]
    wanted = []
    missed = 0
    for decision in stand.output.noted:
        seq = decision.camera_seq
        assert seq is not None
        at = decided_at[seq]
        assert decision.reject == (decision.cause != "ok")
        if fires_on == ("reject" if decision.reject else "pass"):
            if at - due[seq] <= 15 * MS:
                wanted.append(at)
            else:
                missed += 1
        if decision.cause == "ok":
            # What it was passed on: its own verdict, told in time, never contradicted by then.
            known = [one for one in told[seq] if one[0] <= at]
            assert known
            assert all(one[1] == "ok" and one[2] for one in known if one[0] < due[seq])
    # Each pulse begins with a decision of that very instant, and at each decision it is on.
    assert set(pulses) <= set(wanted)
    on_off = [at for at, _ in stand.output.switched]
    spans = list(zip(on_off[::2], on_off[1::2], strict=True))
    assert [on for _, on in stand.output.switched] == [True, False] * len(spans)
    for at in wanted:
        assert any(begin <= at < end for begin, end in spans)
    assert keeper.counters().missed == missed
    assert keeper.empty
    return operations


# ---- settings and outputs ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either delay_ms or delay_counts"),
        ({"delay_ms": 1, "delay_counts": 1}, "either delay_ms or delay_counts"),
        ({"delay_counts": 1}, "needs encoder and tolerance_counts"),
        ({"delay_ms": 1, "tolerance_counts": 1}, "go with delay_counts"),
        ({**COUNTS, "tolerance_ms": 3.0}, "in counts too"),
        ({"delay_ms": 1, "max_on_ms": 10.0}, "shorter than one pulse"),
        ({"delay_ms": 1, "camera": "nix"}, "no camera 'nix'"),
        ({"delay_ms": 1, "output": OutputSettings(kind="file")}, "needs path"),
        ({"delay_ms": 1, "output": OutputSettings(kind="log", path="x")}, "has no path"),
        ({"delay_ms": 1, "output": OutputSettings(kind="gpiod", chip="/dev/x")}, "needs line"),
        ({**COUNTS, "encoder": EncoderSettings(kind="file")}, "needs path"),
    ],
)
def test_contradicting_settings_are_one_sentence(options: dict[str, object], said: str) -> None:
    gate = GateSettings(**{"output": OutputSettings(kind="log"), **options})
    with pytest.raises(ConfigError, match=said):
        check_gate(gate, ("cam",))


def test_with_several_cameras_the_gate_names_its_own() -> None:
    gate = GateSettings(output=OutputSettings(kind="log"), delay_ms=5.0)
    assert check_gate(gate, ("only",)) == "only"
    with pytest.raises(ConfigError, match="names no camera"):
        check_gate(gate, ("left", "right"))


def test_the_file_keeps_decisions_and_switchings(tmp_path: Path) -> None:
    gate = FileGate(tmp_path / "gate.jsonl")
    gate.open()
    gate.note(Decision(7, part(7), True, "missing", 0.25, True), 99)
    gate.switch(True)
    gate.close()
    first, second = [json.loads(line) for line in (tmp_path / "gate.jsonl").open()]
    assert first == {
        "t": 99,
        "cam_seq": 7,
        "part": "A-7",
        "trigger_seq": 7,
        "reject": True,
        "cause": "missing",
        "in_time": True,
        "late_by": 0.25,
    }
    assert second == {"on": True}
    with pytest.raises(GateError, match="cannot be written"):
        FileGate(tmp_path / "no" / "gate.jsonl").open()


def test_a_chip_or_board_that_is_not_there_is_one_sentence() -> None:
    gpiod = pytest.importorskip("gpiod", reason="the extra `gate` is not installed")
    # What cannot be called without a chip has at least the parameters that we give it.
    inspect.signature(gpiod.LineRequest.set_value).bind(None, 5, gpiod.line.Value.ACTIVE)
    inspect.signature(gpiod.LineRequest.release).bind(None)
    settings_ = OutputSettings(kind="gpiod", chip="/dev/gpiochip93", line=5)
    gate: Gate = make_gate(settings_, "cam")
    with pytest.raises(GateError, match="line 5 of /dev/gpiochip93 cannot be used"):
        gate.open()
    jetson = make_gate(OutputSettings(kind="jetson", pin=12), "cam")
    with pytest.raises(ConfigError, match=r"Jetson\.GPIO"):
        jetson.open()
