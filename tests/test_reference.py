"""The reference pages are what the code says now; `make reference` writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from skrd4ad.cli import VERBS
from skrd4ad.pipeline.alarms import ALARMS
from skrd4ad.pipeline.topics import KINDS
from skrd4ad.reference import pages

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "reference"


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return pages()


def test_the_pages_are_current(written: dict[str, str]) -> None:
    stored = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    assert stored == written, "run: make reference"


def test_nothing_is_left_out(written: dict[str, str]) -> None:
    for verb in VERBS:
        assert f"\n## {verb.name}\n" in written["commands.md"]
    for alarm in ALARMS:
        assert f"| {alarm.code} | `{alarm.name}` |" in written["codes.md"]
    for info in KINDS.values():
        assert f"`{info.shape}`".replace("|", "\\|") in written["codes.md"]
    for option in ("--camera", "--plan", "--station", "--health"):
        assert f"`{option} " in written["commands.md"]
    for key in ("cameras[].uri", "publish.journal.path", "publish.keys", "gate"):
        assert f"`{key}" in written["station.md"]
