"""Which files of a watched folder have their result: a list that a restart reads (seen_tap.py)."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import ConfigError

SEEN_NAME = ".skrd4ad-seen"


def seen_path(folder: Path, given: str | None) -> Path:
    """Where the list of this folder is kept."""
    return folder / SEEN_NAME if given is None else Path(given)


def read_seen(path: Path) -> dict[str, int]:
    """Name to time of writing (ns) of the files with a result; a torn last line is left out."""
    seen: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return seen
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "choose another with seen=") from error
    for line in lines:
        try:
            name, written_ns = json.loads(line)
            seen[str(name)] = int(written_ns)
        except (ValueError, TypeError):
            continue
    return seen
