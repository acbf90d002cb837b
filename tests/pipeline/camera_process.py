"""A camera as a process of its own, whose script prints "running" when it answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

END_S = 30.0


class CameraProcess:
    """Starts, kills, stops and continues `python SCRIPT WORDS...`."""

    def __init__(self, script: str, name: str) -> None:
        self._script, self._name = script, name
        self._process: subprocess.Popen[str] | None = None

    def launch(self, *words: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, self._script, *map(str, words)],
            stdin=subprocess.PIPE,  # it ends with this process, whatever ends that
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "running\n", f"{self._name} did not start"

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(END_S)
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                pipe.close()
            self._process = None
