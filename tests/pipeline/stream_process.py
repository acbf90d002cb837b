"""`skrd4ad stream` as a process of its own, on free ports, as a plant runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

PATIENCE_S = 60.0
FREE = ("--events", "tcp://127.0.0.1:0", "--maps", "tcp://127.0.0.1:0", "--json")


@dataclass(frozen=True)
class Stream:
    """A process that has said READY."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    """Its READY line: endpoints, plan, boot."""
    log: IO[str]

    def summary(self, code: int = 0) -> dict[str, Any]:
        """Wait for its end, which must be with this exit code; what it said last."""
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == code, read_all(self.log)
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


def read_all(log: IO[str]) -> str:
    log.seek(0)
    return log.read()


@contextmanager
def started(
    *arguments: object, environment: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The process, and the file with its log: a pipe that nobody reads would stop it one day."""
    command = [sys.executable, "-m", "skrd4ad", "stream", *FREE, *map(str, arguments)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        try:
            yield process, log
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def failed(*arguments: object) -> tuple[int, str]:
    """Its exit code and its log, of one that ends by itself."""
    with started(*arguments) as (process, log):
        process.communicate(timeout=PATIENCE_S)
        return process.returncode, read_all(log)


@contextmanager
def running(*arguments: object, environment: dict[str, str] | None = None) -> Iterator[Stream]:
    """A stream that says READY; killed at the end where it still runs."""
    with started(*arguments, environment=environment) as (process, log):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, read_all(log)
        yield Stream(process, json.loads(line), log)
