"""Shares of the cores as an installed station gives them, by control groups of our own.

Linux shares the cores among sessions first (sched_autogroup), and a browser started by Playwright
has a session of its own: neither niceness nor SCHED_IDLE keeps it back from other sessions'
threads. A control group replaces the session's group, with a weight of its own or idle as a whole.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE_S = 20.0
_NUMBERS = itertools.count()
LINE_WEIGHT = 1000
"""Of the slice that the services are installed in (deploy/skrd4ad.slice)."""
STARTER = """#!/bin/sh
{join}
exec chrt --idle 0 {program} "$@"
"""
JOIN_GROUP = "echo $$ >{group}/cgroup.procs || exit 1"
# Without the right to make a group: the least share for its session. Its threads still finish
# their slices, up to 3 ms, before a thread of another session gets the core.
LOWER_SESSION = "[ ! -e /proc/self/autogroup ] || echo 19 >/proc/self/autogroup || exit 1"


def starter(path: Path, program: str | os.PathLike[str], group: Path | None) -> Path:
    """An executable at `path` that starts `program` with the same arguments, last in line."""
    join = LOWER_SESSION if group is None else JOIN_GROUP.format(group=group)
    path.write_text(STARTER.format(join=join, program=program))
    path.chmod(0o700)
    return path


@contextlib.contextmanager
def idle_group() -> Iterator[Path | None]:
    """A group whose programs run where a core is free; None where we may not make one."""
    with _group("idle", {"cpu.idle": "1"}) as group:
        yield group


@contextlib.contextmanager
def line_group() -> Iterator[Path | None]:
    """A group with the installed services' weight; None where we may not make one."""
    shares = str(LINE_WEIGHT * 1024 // 100)
    with _group("line", {"cpu.weight": str(LINE_WEIGHT), "cpu.shares": shares}) as group:
        yield group


def join(group: Path | None, process: int) -> None:
    """Move a process with all its threads into the group, where there is one."""
    if group is not None:
        (group / "cgroup.procs").write_text(str(process))


@contextlib.contextmanager
def _group(name: str, settings: dict[str, str]) -> Iterator[Path | None]:
    group = _make(name, settings)
    try:
        yield group
    finally:
        if group is not None:
            _remove(group)


def _make(name: str, settings: dict[str, str]) -> Path | None:
    # Version 1 of control groups mounts the cpu controller by itself, version 2 has one tree.
    for root in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")):
        group = root / f"skrd4ad-test-{os.getpid()}-{next(_NUMBERS)}-{name}"
        try:
            group.mkdir()
        except OSError:
            continue
        # The two versions call a weight by different names.
        known = [key for key in settings if (group / key).exists()]
        try:
            for key in known:
                (group / key).write_text(settings[key])
        except OSError:
            known = []
        if known:
            return group
        group.rmdir()
    return None


def _remove(group: Path) -> None:
    """Once the last of its programs has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            group.rmdir()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
