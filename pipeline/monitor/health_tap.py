"""Health over HTTP: a tap that tells a process of its own, once a second, how the line is.

publish thread   counts verdicts, keeps the last heartbeat: microseconds, no lock is ever waited for
health thread    one small message a second to the process; starts it again when it has died
health process   answers /metrics, /healthz and /readyz (health_child.py, at low priority)

The line binds the address itself, so that a port in use ends the command at once, and keeps it
while the process is replaced.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import msgspec

from ... import __version__
from .. import wire_messages as wire
from ..endpoints import bind_problem, check_exposure
from ..outlet import Alarm
from ..records import Result, Verdict
from ..taps import RaiseAlarm
from ..topics import VERDICTS
from .snapshot import Snapshot

log = logging.getLogger(__name__)
_EVERY_S = 1.0
_RESTART_WAIT_S = 2.0
_CLOSE_WAIT_S = 1.0


class HealthSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`health:` of the station file."""

    listen: str = "127.0.0.1:9464"
    """HOST:PORT of the pages; port 0 takes a free one."""
    insecure: bool = False
    """Allow an address that other hosts can reach: the pages need no key."""


class HealthTap:
    """See taps.Tap. `alarms` gives code and camera of the active ones; any thread may ask it."""

    name = "health"

    def __init__(
        self,
        settings: HealthSettings,
        box: str,
        boot: str,
        alarms: Callable[[], tuple[tuple[int, str], ...]],
    ) -> None:
        self._settings, self._box, self._boot, self._alarms = settings, box, boot, alarms
        self._state: wire.State = "STARTING"
        self._counts: dict[str, dict[str, int]] = {}
        self._reasons: dict[str, dict[str, int]] = {}
        self._newest: wire.HealthFields | None = None
        self._closing = threading.Event()
        self._listener: socket.socket | None = None
        self._link: socket.socket | None = None
        self._thread = threading.Thread(target=self._loop, name="health", daemon=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://{settings.listen}"

    def open(self, raise_alarm: RaiseAlarm) -> None:
        """Raises ConfigError or NetworkError when the address cannot be served."""
        endpoint = f"tcp://{self._settings.listen}"
        check_exposure(endpoint, insecure=self._settings.insecure)
        host, _, port = self._settings.listen.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host.strip("[]"), int(port)))
            self._listener.listen(16)
        except OSError as error:
            self._listener.close()
            problem = bind_problem(endpoint, error.errno or 0, error.strerror or str(error))
            raise problem from error
        self.url = f"http://{host}:{self._listener.getsockname()[1]}"
        log.info("health on %s/healthz, /readyz and /metrics", self.url)
        self._thread.start()

    def on_result(self, result: Result, seq: int) -> None:
        if result.camera not in self._counts:
            self._counts[result.camera] = dict.fromkeys(VERDICTS, 0)
        self._counts[result.camera][result.verdict.value] += 1
        if result.verdict is Verdict.ERR:
            reasons = self._reasons.setdefault(result.camera, {})
            for reason in result.reasons:
                reasons[reason] = reasons.get(reason, 0) + 1

    def on_state(self, state: wire.State, text: str) -> None:
        self._state = state

    def on_alarm(self, alarm: Alarm) -> None:
        """The publisher knows which are active, its own included; it is asked for each snapshot."""

    def on_heartbeat(self, health: wire.HealthFields) -> None:
        self._newest = health

    def close(self) -> None:
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(_CLOSE_WAIT_S)
        for end in (self._link, self._listener):
            if end is not None:
                end.close()
        if self.process is not None:
            try:
                self.process.wait(_CLOSE_WAIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    # ---- the health thread -----------------------------------------------------------------

    def _loop(self) -> None:
        told: wire.HealthFields | None = None
        while not self._closing.is_set():
            wait_s = _EVERY_S
            try:
                if self._link is None:
                    self._start()
                health = self._newest
                # The same heartbeat twice would hide that the publish thread hangs.
                if health is not None and health is not told:
                    self._tell(health)
                    told = health
            except OSError as error:
                log.warning("the health process is gone (%s); starting another", error)
                self._drop_process()
                wait_s = _RESTART_WAIT_S
            self._closing.wait(wait_s)

    def _start(self) -> None:
        assert self._listener is not None, "open() comes first"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        numbers = (self._listener.fileno(), theirs.fileno())
        command = [sys.executable, "-m", "skrd4ad.pipeline.monitor.health_child"]
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [*command, *map(str, numbers)], pass_fds=numbers, stdin=subprocess.DEVNULL
                )
            except OSError:
                ours.close()
                raise
        self._link = ours

    def _tell(self, health: wire.HealthFields) -> None:
        assert self._link is not None, "_start() comes first"
        snapshot = Snapshot(
            box=self._box,
            boot=self._boot,
            version=__version__,
            pid=os.getpid(),
            state=self._state,
            health=health,
            # Copied in one step each: the publish thread goes on counting.
            results={
                camera: wire.CountFields(**counts) for camera, counts in self._counts.copy().items()
            },
            reasons={camera: reasons.copy() for camera, reasons in self._reasons.copy().items()},
            alarms=self._alarms(),
        )
        try:
            self._link.send(msgspec.json.encode(snapshot))
        except BlockingIOError:
            log.warning("the health process does not take what it is told; is the box overloaded?")

    def _drop_process(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
