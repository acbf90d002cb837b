"""Taps see what the line publishes; a tap that fails is taken off and costs no verdict."""

from __future__ import annotations

import pytest
from skrd4ad.errors import ConfigError
from skrd4ad.pipeline import wire_messages as wire
from skrd4ad.pipeline.outlet import Alarm
from skrd4ad.pipeline.records import Result
from skrd4ad.pipeline.taps import RaiseAlarm, TappedOutlet


class Paper:
    """An outlet that writes down what it sends."""

    subscribers = 0

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.closed = False

    def open(self) -> None: ...

    def send_result(self, result: Result, dropped_since_boot: int = 0) -> int:
        self.sent.append(result)
        return len(self.sent)

    def send_state(self, state: wire.State, text: str = "") -> int:
        self.sent.append(state)
        return len(self.sent)

    def send_alarm(self, name: str, active: bool, text: str = "", camera: str = "") -> int:
        self.sent.append(Alarm(name, active, text, camera))
        return len(self.sent)

    def heartbeat_if_due(self, snapshot) -> bool:
        snapshot()
        return True

    def wait_for_subscribers(self, count: int, timeout_s: float) -> bool:
        return True

    def close(self, text: str = "") -> None:
        self.closed = True


class Watcher:
    name = "watcher"

    def __init__(self, fail_at: str = "") -> None:
        self.fail_at = fail_at
        self.seen: list[object] = []

    def open(self, raise_alarm: RaiseAlarm) -> None:
        self.raise_alarm = raise_alarm
        if self.fail_at == "open":
            raise ConfigError("the watcher has no eyes")

    def on_result(self, result: object, seq: int) -> None:
        if self.fail_at == "on_result":
            raise RuntimeError("cannot look")
        self.seen.append(("result", result, seq))

    def on_state(self, state: str, text: str) -> None:
        self.seen.append(("state", state, text))

    def on_alarm(self, alarm: Alarm) -> None:
        self.seen.append(("alarm", alarm))
        self.raise_alarm(Alarm("tap_failed", True, "an answer to every alarm"))

    def on_heartbeat(self, health: object) -> None:
        self.seen.append(("heartbeat", health))

    def close(self) -> None:
        self.seen.append("closed")


def test_a_tap_sees_what_was_sent_with_its_seq() -> None:
    paper, watcher = Paper(), Watcher()
    outlet = TappedOutlet(paper, [watcher])
    outlet.open()
    assert outlet.send_state("RUNNING", "go") == 1
    assert outlet.send_result("part", 0) == 2
    assert outlet.heartbeat_if_due(lambda: "health")
    outlet.close()
    assert watcher.seen == [
        ("state", "RUNNING", "go"),
        ("result", "part", 2),
        ("heartbeat", "health"),
        "closed",
    ]
    assert paper.closed


def test_a_tap_that_raises_is_taken_off_with_an_alarm_and_the_others_go_on() -> None:
    paper, broken, watcher = Paper(), Watcher("on_result"), Watcher()
    outlet = TappedOutlet(paper, [broken, watcher])
    outlet.open()
    assert [outlet.send_result("a"), outlet.send_result("b")] == [1, 2]
    outlet.heartbeat_if_due(lambda: "health")
    text = "watcher: RuntimeError: cannot look"
    assert paper.sent == ["a", "b", Alarm("tap_failed", True, text)]
    assert [entry[1] for entry in watcher.seen if entry[0] == "result"] == ["a", "b"]


def test_alarms_on_alarms_do_not_hold_the_line() -> None:
    paper, watcher = Paper(), Watcher()
    outlet = TappedOutlet(paper, [watcher])
    outlet.open()
    outlet.send_alarm("camera_lost", True)
    for _ in range(3):
        outlet.heartbeat_if_due(lambda: "health")
    assert len(paper.sent) == 4  # one answer for each turn


def test_a_tap_that_cannot_open_stops_the_start_and_closes_the_others() -> None:
    paper, first, second = Paper(), Watcher(), Watcher("open")
    outlet = TappedOutlet(paper, [first, second])
    with pytest.raises(ConfigError, match="no eyes"):
        outlet.open()
    assert first.seen == ["closed"]
    assert second.seen == []
    assert paper.closed


class Follower(Watcher):
    """A watcher that is told of parts before they have a result."""

    def on_admitted(self, part: object) -> None:
        if self.fail_at == "on_admitted":
            raise RuntimeError("lost it")
        self.seen.append(("admitted", part))

    def on_refused(self, refused: object) -> None:
        self.seen.append(("refused", refused))


def test_only_who_listens_hears_of_parts_and_a_fault_there_costs_the_camera_nothing() -> None:
    paper, plain, broken, follower = Paper(), Watcher(), Follower("on_admitted"), Follower()
    outlet = TappedOutlet(paper, [plain, broken, follower])
    outlet.open()
    outlet.on_admitted("part")
    outlet.on_refused("order")
    assert plain.seen == []
    assert follower.seen == [("admitted", "part"), ("refused", "order")]
    outlet.heartbeat_if_due(lambda: "health")
    assert paper.sent == [Alarm("tap_failed", True, "Follower: RuntimeError: lost it")]
