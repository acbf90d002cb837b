"""docs/wire.md names every kind, alarm, state, flag and field that exists."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest
from skrd4ad.pipeline.alarms import ALARMS
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
