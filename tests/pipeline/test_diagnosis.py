"""The one line of `listen`: a table of what was found and what it says."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from skrd4ad.pipeline.alarms import ALARMS
from skrd4ad.pipeline.diagnosis import EXIT_CODES, Diagnosis, Findings, diagnose
from skrd4ad.pipeline.stream_check import StreamStatus
from skrd4ad.pipeline.wire_messages import (
    BalanceFields,
    CameraFields,
    CountFields,
    HealthFields,
    HeartbeatHeader,
)

GOOD = StreamStatus(True, True, True, True, "RUNNING", 10, 0, 1.0, 100.0, 0)
NEVER = StreamStatus(False, False, False, False, "", 0, 0, None, None, 0)
RUNNING = CameraFields(state="running", admitted=5, reconnects=0, last_age_ms=10)
HEALTH = HealthFields(ready=True, uptime_s=1.0, cams={"cam0": RUNNING, "cam1": RUNNING})


def beat(alarms: tuple[int, ...] = (), **health: Any) -> HeartbeatHeader:
    return HeartbeatHeader(
        v="1.0", box="edge07", boot="a" * 16, seq=10, t=1, mono=1, period_ms=500, state="RUNNING",
        health=msgspec.structs.replace(HEALTH, **health), counts=CountFields(), alarms=alarms,
    )  # fmt: skip


def camera(**changes: Any) -> dict[str, CameraFields]:
    return {"cam0": RUNNING, "cam1": msgspec.structs.replace(RUNNING, **changes)}


def found(status: StreamStatus = GOOD, **changes: Any) -> Findings:
    return dataclasses.replace(Findings(status, beat(), "ready"), **changes)


def never(**changes: Any) -> Findings:
    return found(NEVER, heartbeat=None, **changes)


def but(**changes: Any) -> StreamStatus:
    return dataclasses.replace(GOOD, **changes)


SILENT = but(alive=False, fresh=False, silent_ms=4200.0)
LOST = but(contiguous=False, missing=3)

CASES = [
    ("all good", found(), "fine", "all is well"),
    ("clocks apart", found(clock_apart_ms=-75_000.0), "fine", "75.0 s apart"),
    ("clocks a little apart", found(clock_apart_ms=900.0), "fine", "all is well"),
    ("a warning", found(heartbeat=beat((3001,))), "fine", "3001 frames were dropped"),
    ("trying", never(link="connecting"), "waiting", "no connection yet"),
    ("port closed", never(link="connecting", reach="refused"), "box", "does not run"),
    ("host dead", never(link="connecting", reach="silent"), "network", "does not answer at all"),
    ("typing error", never(link="connecting", reach="unknown name"), "network", "not known here"),
    ("ipc file absent", never(link="connecting", reach="local"), "box", "nobody serves"),
    ("no key", never(link="refused"), "keys", "asks for a key"),
    ("wrong key", never(link="refused", with_keys=True), "keys", "refuses our key"),
    ("wrong port", never(), "box", "no heartbeat comes"),
    ("handshake hangs", never(link="connected"), "box", "no heartbeat comes"),
    ("something else", never(malformed=4), "box", "not SKRD/1"),
    ("version 2", never(foreign_versions=4), "box", "another version"),
    ("ended", found(but(alive=False, state="BYE")), "box", "(BYE)"),
    ("program hangs", found(SILENT), "box", "the program hangs"),
    ("program killed", found(SILENT, link="connecting", reach="refused"), "box", "does not run"),
    ("cable cut", found(SILENT, link="connecting", reach="silent"), "network", "4.2 s: its comp"),
    ("not known yet", found(SILENT, link="connecting"), "waiting", "knocking at its door"),
    ("backlog answers", found(SILENT, link="connected"), "box", "not the program: it hangs"),
    ("port open", found(SILENT, link="connecting", reach="open"), "box", "not the program"),
    ("locked out", found(SILENT, link="refused"), "keys", "does not let us in"),
    ("late", found(but(fresh=False, age_ms=2300.0)), "network", "2300 ms late"),
    ("camera lost", found(heartbeat=beat(cams=camera(state="reopening", detail="no such device"))),
     "camera", "cam1 is reopening (no such device)"),
    ("camera lost, state", found(but(valid=False, state="DEGRADED"),
     heartbeat=beat(cams=camera(state="failed"))), "camera", "cam1 is failed"),
    ("camera frozen", found(heartbeat=beat((1002,))), "camera", "1002 camera_frozen"),
    ("counters", found(heartbeat=beat(balance=BalanceFields(admitted=3, results=1))),
     "box", "do not balance"),
    ("stalled", found(heartbeat=beat(stalled=("infer",))), "box", "no progress at: infer"),
    ("engine", found(heartbeat=beat((2001, 3001))), "box", "2001 engine_failed"),
    ("disk", found(heartbeat=beat((4001,))), "box", "4001 journal_failed"),
    ("unknown alarm", found(heartbeat=beat((9999,))), "box", "an alarm of a newer release"),
    ("lost", found(LOST), "network", "3 events were lost on the way"),
    ("lost for good", found(LOST, gone=2), "network", "does not have 2 of them"),
    ("starting", found(but(valid=False, state="STARTING")), "box", "it is starting"),
    ("draining", found(but(valid=False, state="DRAINING")), "box", "it is ending"),
    ("no trigger", found(but(valid=False), heartbeat=beat(cams=camera(delivers=False))),
     "camera", "cam1 delivers nothing yet"),
    ("not ready", found(but(valid=False)), "box", "it is not ready (RUNNING)"),
    # The first thing that explains the rest:
    ("camera before losses", found(LOST, heartbeat=beat(cams=camera(state="reopening"))),
     "camera", "cam1 is reopening"),
    ("silence before losses", found(dataclasses.replace(SILENT, contiguous=False, missing=9)),
     "box", "the program hangs"),
    ("camera before disk", found(heartbeat=beat((1001, 4001))), "camera", "1001 camera_lost"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "case", "where", "words"), CASES, ids=[c[0] for c in CASES])
def test_each_case_names_the_place_and_the_reason(
    name: str, case: Findings, where: str, words: str
) -> None:
    said = diagnose(case)
    assert said.where == where
    assert words in said.line
    assert len(said.line) < 120
    assert (said.where == "fine") == (case.status.ok and EXIT_CODES[said.where] == 0)


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_every_error_alarm_has_its_own_diagnosis_and_no_warning_stops(alarm: Any) -> None:
    said: Diagnosis = diagnose(found(heartbeat=beat((alarm.code,))))
    assert str(alarm.code) in said.text
    assert (said.where == "fine") == (alarm.severity == "warning")
