"""The documents say what the program does: verbs, options and links are checked."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
from skrd4ad.cli import VERBS

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
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


def test_every_verb_is_in_the_readme() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert [verb.name for verb in VERBS if f"`{verb.name}`" not in text] == []


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_every_documented_command_is_understood(
    page: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verb, options and values as argparse takes them. The tutorials' commands are also run
    (test_tutorials.py)."""
    words = shlex.split(command.removesuffix("&"))
    if words[0] in ("VERB", "--help", "--version"):
        return
    verbs = {verb.name: verb for verb in VERBS}
    assert words[0] in verbs, f"{page}: no verb '{words[0]}'"
    parser = argparse.ArgumentParser(prog=words[0])
    importlib.import_module(f"skrd4ad.{verbs[words[0]].module}").add_arguments(parser)
    code: object = 0
    try:
        parser.parse_args(words[1:])
    except SystemExit as end:
        code = end.code  # --help ends with 0
    assert code == 0, f"{page}: {command}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [
        target for target in targets if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []
