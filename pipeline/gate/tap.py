"""The gate as a tap of the line: announcements, refusals and verdicts in, pulses out.

In the line's process, because only there are parts known before they have a verdict; in a thread
of its own, because neither may wait for the other.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

import msgspec

from .. import wire_messages as wire
from ..clock import SYSTEM_CLOCK, Clock
from ..outlet import Alarm
from ..records import Announced, Result
from ..taps import RaiseAlarm
from ..trigger_door import Refused
from .encoder import open_encoder
from .keeper import GateKeeper
from .outputs import Gate, make_gate
from .settings import GateSettings

log = logging.getLogger(__name__)
NICE = -10
"""The gate's thread goes before others: on a busy computer it is late far less (docs/LOG.md)."""
STUCK_NS = 2_000_000_000
"""A gate whose thread has not come round for so long hangs in its output or encoder."""
DRAIN_LIMIT_S = 2.3
"""How long after the line began to end the gate may still follow parts; BYE comes within 3 s."""


class GateTap:
    """The gate behind one camera."""

    def __init__(
        self,
        settings: GateSettings,
        camera: str,
        clock: Clock = SYSTEM_CLOCK,
        gate: Gate | None = None,
    ) -> None:
        self.name = f"gate behind {camera}"
        self._settings, self._camera, self._clock = settings, camera, clock
        self._gate = gate or make_gate(settings.output, camera)
        self._keeper: GateKeeper | None = None
        self._trusted = self._said_stuck = False
        self._raise_alarm: RaiseAlarm = lambda alarm: None
        self._ending = threading.Event()
        self._end_ns: int | None = None
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="gate", daemon=True)

    def open(self, raise_alarm: RaiseAlarm) -> None:
        settings, self._raise_alarm = self._settings, raise_alarm
        encoder = open_encoder(settings.encoder, self._clock) if settings.encoder else None
        if not settings.dry_run or settings.output.kind in ("log", "file"):
            self._gate.open()
        self._keeper = GateKeeper(
            settings, self._camera, self._gate, self._clock, encoder, raise_alarm
        )
        self._keeper.turn()
        self._thread.start()

    # ---- any thread ------------------------------------------------------------------------

    def on_admitted(self, part: Announced) -> None:
        if part.camera == self._camera and self._keeper is not None:
            self._keeper.announce(part)

    def on_refused(self, refused: Refused) -> None:
        if refused.camera == self._camera and self._keeper is not None:
            self._keeper.refuse(refused)

    # ---- the publish thread ----------------------------------------------------------------

    def on_result(self, result: Result, seq: int) -> None:
        if result.camera == self._camera and self._keeper is not None:
            self._keeper.tell(result.camera_seq, result.part, result.verdict, self._trusted)

    def on_state(self, state: wire.State, text: str) -> None:
        # docs/wire.md, section 5: a verdict may be acted on in this state only.
        self._trusted = state == "RUNNING"
        if state == "DRAINING":
            self._end_ns = self._clock.mono_ns() + round(DRAIN_LIMIT_S * 1e9)

    def on_alarm(self, alarm: Alarm) -> None: ...

    def on_heartbeat(self, health: wire.HealthFields) -> None:
        """An output that does not return holds the gate's thread, which cannot say so itself."""
        if self._failure is not None:
            raise self._failure  # the line takes the tap off, with its alarm
        if self._keeper is None:
            return
        stuck = self._clock.mono_ns() - self._keeper.turned_ns > STUCK_NS
        if stuck != self._said_stuck:
            self._said_stuck = stuck
            text = "its output or encoder does not return" if stuck else ""
            self._raise_alarm(Alarm("gate_failed", stuck, text, self._camera))

    def add_health(self, health: wire.HealthFields) -> wire.HealthFields:
        """The heartbeat with this gate's counters."""
        if self._keeper is None:
            return health
        others = {} if health.gates is msgspec.UNSET else health.gates
        gates = {**others, self._camera: self._keeper.counters()}
        return msgspec.structs.replace(health, gates=gates)

    def close(self) -> None:
        """Let the parts under way reach the gate while there is time; switch off."""
        if self._thread.ident is None:
            return
        now_ns = self._clock.mono_ns()
        if self._end_ns is None:
            self._end_ns = now_ns  # the line failed
        self._ending.set()
        assert self._keeper is not None
        self._keeper.wake.set()
        self._thread.join(max(self._end_ns - now_ns, 0) / 1e9 + 0.3)
        if self._thread.is_alive():
            log.error("%s does not end: its output is left as it is", self.name)

    # ---- the gate's thread -----------------------------------------------------------------

    def _run(self) -> None:
        keeper = self._keeper
        assert keeper is not None
        _take_precedence()
        try:
            while True:
                wait_ns = keeper.turn()
                if self._ending.is_set():
                    assert self._end_ns is not None
                    late = self._clock.mono_ns() >= self._end_ns
                    if late or (keeper.empty and keeper.at_rest):
                        return
                    wait_ns = min(wait_ns, 10_000_000)
                keeper.wake.wait(wait_ns / 1e9)
                keeper.wake.clear()
        except Exception as error:
            # Told to the line with the next heartbeat.
            log.exception("%s failed", self.name)
            self._failure = error
        finally:
            keeper.close()


def _take_precedence() -> None:
    """Let this thread run before the others of the computer, where the user may do that."""
    if sys.platform != "linux":
        return
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)  # on Linux: the thread
    except PermissionError:
        log.info("the gate's thread has no precedence (LimitNICE=-10 in the service allows it)")
