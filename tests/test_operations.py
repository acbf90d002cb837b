"""docs/operations.md has an answer for every exit code, alarm and reason that the code knows."""

from __future__ import annotations

import re
from pathlib import Path

from skrd4ad import errors
from skrd4ad.cli import EXIT_CODES
from skrd4ad.pipeline.alarms import ALARMS
from skrd4ad.pipeline.reasons import REASONS

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
SOURCES = "\n".join(path.read_text() for path in sorted((REPOSITORY / "pipeline").rglob("*.py")))


def rows(heading: str) -> dict[str, list[str]]:
    """First cell -> the other cells of the table below a heading."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in table[2:]}


def test_every_alarm_has_a_row_and_something_to_do() -> None:
    found = rows("Alarms")
    assert list(found) == [str(alarm.code) for alarm in ALARMS]
    for alarm in ALARMS:
        name, look, do = found[str(alarm.code)]
        assert name == f"`{alarm.name}`"
        assert look
        assert do


def test_every_exit_code_has_a_row() -> None:
    of_errors = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.SkrdError)
    }
    said = {int(number) for number in re.findall(r"\b(\d+) [a-z]", EXIT_CODES)}
    assert {int(code) for code in rows("Exit codes")} == of_errors | said


def test_every_reason_has_a_row_with_its_meaning() -> None:
    found = rows("Reasons of an `err`")
    assert {reason: cells[0] for reason, cells in found.items()} == REASONS
    assert all(cells[1] for cells in found.values())


def test_every_reason_in_the_code_is_in_the_table() -> None:
    patterns = (
        r"failure=\"(\w+)\"",
        r"uninspected\(\s*\"(\w+)\"",
        r"not_judged\(\s*\w+, \"(\w+)\"",
        r"frame\.failure or \"(\w+)\"",
        r"\.failure = \(\"(\w+)\"",
        r"Prepared\([^)]*?\"(\w+)\", str\(error\)",
    )
    used = {reason for pattern in patterns for reason in re.findall(pattern, SOURCES)}
    assert len(used) >= 5
    assert used <= set(REASONS)
    line = (REPOSITORY / "docs" / "line.md").read_text()
    listed = line.split("Reasons of an `err`:", 1)[1].split("Three parts", 1)[0]
    assert set(re.findall(r"`(\w+)`", listed)) == set(REASONS)
