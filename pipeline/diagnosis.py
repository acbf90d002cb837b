"""Is it the camera, the box, the network, the keys, or nothing? One sentence, and what to do.

Pure: what was found in, words out. The first thing that explains the rest is named.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msgspec import UNSET

from .alarms import ALARM_BY_CODE, Alarm
from .link import Link, Reach
from .stream_check import StreamStatus
from .wire_messages import HeartbeatHeader

Where = Literal["fine", "camera", "box", "network", "keys", "waiting"]
EXIT_CODES: dict[Where, int] = {
    "fine": 0, "waiting": 6, "camera": 3, "box": 6, "network": 6, "keys": 6,
}  # fmt: skip
_CAMERA_WELL = frozenset({"running", "starting", "ended", "stopped"})
_PLACE: dict[int, Where] = {1: "camera", 5: "keys", 7: "camera"}
"""By the thousands of an alarm's code; all others are the box's own."""
_CLOCK_APART_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Findings:
    """What a listener knows."""

    status: StreamStatus
    heartbeat: HeartbeatHeader | None
    link: Link
    reach: Reach | None = None
    """What a knock at the port said, where the connection does not come about."""
    with_keys: bool = False
    malformed: int = 0
    foreign_versions: int = 0
    fetched: int = 0
    gone: int = 0
    clock_apart_ms: float | None = None
    """Our wall clock minus the box's, the quickest way here included."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`advice` is "" where nothing is to be done."""

    where: Where
    text: str
    advice: str = ""

    @property
    def line(self) -> str:
        """The one line for people."""
        place = "" if self.where in ("fine", "waiting") else f"{self.where}: "
        return place + self.text


def diagnose(found: Findings) -> Diagnosis:
    """The first that holds of: nothing heard, ended, silent, late, camera, box, lost, not ready."""
    status = found.status
    if status.silent_ms is None:
        return _never_heard(found)
    if status.state == "BYE":
        return Diagnosis("box", "the line was ended in the ordinary way (BYE)", "start it again")
    if not status.alive:
        return _fell_silent(found, status.silent_ms)
    if not status.fresh:
        return Diagnosis(
            "network",
            f"messages arrive {status.age_ms or 0:.0f} ms late, or this computer is too slow",
            "look at the load of this computer, then at cable and switch",
        )
    beat = found.heartbeat
    if beat is not None:
        trouble = _camera(beat) or _box(beat) or _alarm(beat)
        if trouble is not None:
            return trouble
    if not status.contiguous:
        return _lost(found)
    if not status.valid:
        return _not_ready(status, beat)
    return _fine(found)


def _never_heard(found: Findings) -> Diagnosis:
    if found.link == "refused":
        if found.with_keys:
            return Diagnosis(
                "keys",
                "the box refuses our key, or it is not the box of this --server-key",
                "on the box: skrd4ad keys list KEYS, and the audit lines of its log",
            )
        return Diagnosis(
            "keys", "the box asks for a key", "give --key and --server-key (skrd4ad keys)"
        )
    if found.foreign_versions:
        return Diagnosis(
            "box", "it speaks another version of the protocol", "bring both to the same release"
        )
    if found.malformed:
        return Diagnosis(
            "box", "what this port sends is not SKRD/1", "is it the events port (5555)?"
        )
    if found.link in ("ready", "connected"):
        return Diagnosis(
            "box",
            "connected, but no heartbeat comes",
            "is it the events port (5555), and not maps or control? does the program hang?",
        )
    if found.reach is None or found.reach == "open":
        return Diagnosis("waiting", "no connection yet")
    return _unreachable(found.reach, "has never been heard")


def _fell_silent(found: Findings, silent_ms: float) -> Diagnosis:
    since = f"nothing for {silent_ms / 1000:.1f} s"
    if found.link == "refused":
        return Diagnosis(
            "keys", f"{since}: the box does not let us in any more", "skrd4ad keys list KEYS"
        )
    if found.reach is not None and found.reach != "open":
        return _unreachable(found.reach, since)
    if found.link == "ready":
        return Diagnosis(
            "box",
            f"{since}, though the connection stands: the program hangs, or a cable was just cut",
            "stop the line; look at the box's log",
        )
    if found.link == "connected" or found.reach == "open":
        return Diagnosis(
            "box",
            f"{since}: its computer answers, but not the program: it hangs",
            "stop the line; look at the box's log; restart skrd4ad-stream",
        )
    return Diagnosis("waiting", f"{since}: box or network? knocking at its door", "stop the line")


def _unreachable(reach: Reach, since: str) -> Diagnosis:
    if reach == "refused":
        return Diagnosis(
            "box",
            f"{since}: its computer answers, but the program does not run (or on another port)",
            "start skrd4ad-stream there; compare the port with its start message",
        )
    if reach == "unknown name":
        return Diagnosis("network", f"{since}: this name is not known here", "try its IP address")
    if reach == "local":
        return Diagnosis(
            "box", f"{since}: nobody serves this file or address", "start skrd4ad-stream"
        )
    return Diagnosis(
        "network",
        f"{since}: its computer does not answer at all",
        "cable, switch, address, firewall, power of the box, in this order",
    )


def _camera(beat: HeartbeatHeader) -> Diagnosis | None:
    for name, camera in sorted(beat.health.cams.items()):
        if camera.state not in _CAMERA_WELL:
            detail = f" ({camera.detail})" if camera.detail else ""
            return Diagnosis(
                "camera",
                f"{name} is {camera.state}{detail}, reconnected {camera.reconnects} times",
                "cable and power of the camera; then its entry in the station file",
            )
    for code in beat.alarms:
        if code // 1000 == 1 and _severity(code) == "error":
            return _of_alarm(code)
    return None


def _box(beat: HeartbeatHeader) -> Diagnosis | None:
    health = beat.health
    if not health.balance.holds:
        return Diagnosis(
            "box", "parts are unaccounted for: its counters do not balance", "report it, with a log"
        )
    if health.stalled is not UNSET and health.stalled:
        return Diagnosis(
            "box", f"no progress at: {', '.join(health.stalled)}", "look at its log; restart it"
        )
    return None


def _alarm(beat: HeartbeatHeader) -> Diagnosis | None:
    for code in beat.alarms:
        if _severity(code) == "error":
            return _of_alarm(code)
    return None


def _of_alarm(code: int) -> Diagnosis:
    alarm = ALARM_BY_CODE.get(code, Alarm(code, "unknown", "error", "an alarm of a newer release"))
    where: Where = _PLACE.get(code // 1000, "box")
    return Diagnosis(
        where, f"alarm {code} {alarm.name}: {alarm.meaning}", "docs/wire.md, section 8"
    )


def _severity(code: int) -> str:
    return ALARM_BY_CODE[code].severity if code in ALARM_BY_CODE else "error"


def _lost(found: Findings) -> Diagnosis:
    count = found.status.missing
    if found.gone:
        return Diagnosis(
            "network",
            f"{count} events were lost, and the box does not have {found.gone} of them any more",
            "its journal is shorter than the cut was long",
        )
    return Diagnosis(
        "network",
        f"{count} events were lost on the way, or this computer is too slow",
        "give --replay tcp://HOST:5557 to fetch them",
    )


def _not_ready(status: StreamStatus, beat: HeartbeatHeader | None) -> Diagnosis:
    if status.state == "STARTING":
        return Diagnosis("box", "it is starting", "wait")
    if status.state == "DRAINING":
        return Diagnosis("box", "it is ending: the last parts are finished", "start it again")
    waits = [] if beat is None else [
        name for name, camera in sorted(beat.health.cams.items()) if camera.delivers is False
    ]  # fmt: skip
    if waits:
        return Diagnosis("camera", f"{', '.join(waits)} delivers nothing yet", "is it triggered?")
    return Diagnosis("box", f"it is not ready ({status.state or 'no state yet'})", "see its log")


def _fine(found: Findings) -> Diagnosis:
    text, beat = "all is well", found.heartbeat
    apart = found.clock_apart_ms
    if apart is not None and abs(apart) > _CLOCK_APART_MS:
        return Diagnosis(
            "fine",
            f"{text}, but the clocks of the box and here are {abs(apart) / 1000:.1f} s apart",
            "set both by NTP or PTP",
        )
    warnings = [] if beat is None else [code for code in beat.alarms if code in ALARM_BY_CODE]
    if warnings:
        alarm = ALARM_BY_CODE[warnings[0]]
        return Diagnosis("fine", f"{text}, with a warning: {alarm.code} {alarm.meaning}")
    return Diagnosis("fine", text)
