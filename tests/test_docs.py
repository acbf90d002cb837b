"""The documents say what the program does: verbs, options and links are checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from skrd4ad.cli import VERBS, main

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
COMMAND = re.compile(r"^\s*(?:\$ )?skrd4ad[ -](\S.*)$")


def commands() -> list[tuple[str, str]]:
    """(page, command without the program's name) for every command line in a code block."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in text.splitlines():
            match = COMMAND.match(line)
            if match:
                found.append((page.name, match.group(1).partition("  #")[0].strip()))
    return found


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    return capsys.readouterr().out


def test_every_verb_is_in_the_readme() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert [verb.name for verb in VERBS if f"`{verb.name}`" not in text] == []


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_every_documented_command_exists(
    page: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.split()
    verbs = {verb.name for verb in VERBS}
    if words[0] not in verbs:
        assert words[0] in ("VERB", "--help", "--version"), f"{page}: no verb '{words[0]}'"
        return
    shown = help_of(words[:1], capsys)
    # `calibrate threshold`, `keys new`: a verb with jobs of its own lists them in its help.
    job = words[1] if len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]) else None
    if job is not None and re.search(rf"\b{job}\b", shown):
        shown += help_of(words[:2], capsys)
    for option in [word.partition("=")[0] for word in words if word.startswith("--")]:
        assert re.search(rf"{option}\b", shown), f"{page}: {words[0]} has no option {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [
        target for target in targets if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []
