"""docs/wire.md names every kind, alarm, state, flag and field that exists."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from pathlib import Path
from types import ModuleType

import pytest
from skrd4ad.pipeline.alarms import ALARMS
from skrd4ad.pipeline.diagnosis import Findings, diagnose
from skrd4ad.pipeline.listen_screen import doctor_lines
from skrd4ad.pipeline.listen_view import Tally
from skrd4ad.pipeline.stream_check import StreamStatus
from skrd4ad.pipeline.topics import KINDS
from skrd4ad.pipeline.wire_messages import State

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_every_alarm_has_its_row(alarm: typing.Any) -> None:
    row = f"| {alarm.code} | `{alarm.name}` | {alarm.severity} | {alarm.meaning} |"
    assert row in TEXT


def test_alarm_codes_and_names_are_unique() -> None:
    assert len({alarm.code for alarm in ALARMS}) == len({a.name for a in ALARMS}) == len(ALARMS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_its_row(kind: str) -> None:
    info = KINDS[kind]  # type: ignore[index]
    assert f"| `{kind}` | `{info.shape}` | {info.sent} |" in TEXT


def test_every_state_is_explained() -> None:
    assert all(f"`{state}`" in TEXT or f"{state}:" in TEXT for state in typing.get_args(State))


def test_the_example_of_a_header_is_the_golden_one() -> None:
    block = TEXT.partition("```json\n")[2].partition("```")[0]
    golden = Path(__file__).parent / "golden" / "res_ng" / "1_header.json"
    assert json.loads(block) == json.loads(golden.read_bytes())


def test_the_first_program_prints_what_comes(box_parts: ModuleType) -> None:
    """The first block of Python in the page, word for word, with another port."""
    box = box_parts.Box()
    program = TEXT.partition("```python\n")[2].partition("```")[0]
    assert "tcp://127.0.0.1:5555" in program
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program.replace("tcp://127.0.0.1:5555", box.events)],
        stdout=subprocess.PIPE,
        text=True,
    )
    box.wait_for_clients(1)
    box.send(box_parts.result(1))
    assert process.stdout is not None
    line = process.stdout.readline()
    process.kill()
    process.communicate()
    box.close()
    assert line.startswith('res/edge07/cam0/ok {"v":"1.0","kind":"res","box":"edge07"')


def test_every_line_of_the_doctor_is_explained(box_parts: ModuleType) -> None:
    status = StreamStatus(True, True, True, True, "RUNNING", 1, 0, 1.0, 1.0, 0)
    found = Findings(status, None, "ready")
    for line in doctor_lines(found, diagnose(found), Tally(), (), 0):
        name = line.split("  ")[0].split(" |")[0]
        # The verdicts' own line needs no explanation.
        assert name in ("", "results") or f"| `{name}`" in TEXT, line
