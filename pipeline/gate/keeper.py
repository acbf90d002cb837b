"""One gate at work: follows the belt, decides on each part when it is there, switches the output.

Nothing here waits for the line and the line never waits for it: what the line says is put into an
inbox, and `turn` is called by the gate's own thread (tap.py), which is told how long it may sleep.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..clock import Clock
from ..outlet import Alarm
from ..records import Announced, Part, Verdict
from ..trigger_door import Refused
from ..wire_messages import GateFields
from .encoder import Encoder, EncoderTrack
from .fifo import Decision, GateFifo, Told
from .outputs import Gate, GateError
from .pulse import Pulse
from .settings import GateSettings

log = logging.getLogger(__name__)
ALARM_HOLD_NS = 5_000_000_000
"""An alarm ends when its cause has not come again for so long."""
STANDING_PARTS = 2
"""Parts at the place of the one before that mean that the encoder is dead."""
_RETRY_NS = 100_000_000
_IDLE_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A verdict on its way to the gate."""

    camera_seq: int
    part: Part
    verdict: Verdict
    trusted: bool


class GateKeeper:
    """`announce`, `refuse` and `tell` from any thread; `turn` and `close` from the gate's own."""

    def __init__(
        self,
        settings: GateSettings,
        camera: str,
        gate: Gate,
        clock: Clock,
        encoder: Encoder | None = None,
        say: Callable[[Alarm], None] = lambda alarm: None,
    ) -> None:
        self.wake = threading.Event()
        self.turned_ns = clock.mono_ns()
        """When the last turn began."""
        self._settings, self._camera, self._gate, self._clock = settings, camera, gate, clock
        self._encoder, self._say = encoder, say
        bits = settings.encoder.bits if settings.encoder else 32
        self._track = EncoderTrack(bits)
        self._fifo = GateFifo(
            settings.delay, settings.tolerance, pass_review=settings.on_review == "pass"
        )
        self._pulse = Pulse(round(settings.pulse_ms * 1e6), round(settings.max_on_ms * 1e6))
        self._inbox: deque[Announced | Refused | _Verdict] = deque()
        self._is_on: bool | None = False
        self._retry_ns = 0
        self._alarms: dict[str, int] = {}
        self._last_position: float | None = None
        self._standing = 0
        self._passed = self._rejected = self._missing = self._missed = self._unplaced = 0
        self._told: dict[Told, int] = dict.fromkeys(("late", "repeated", "unknown", "mismatch"), 0)

    # ---- from the line ---------------------------------------------------------------------

    def announce(self, part: Announced) -> None:
        """A part is at the camera."""
        self._put(part)

    def refuse(self, refused: Refused) -> None:
        """A part is at the camera and the line does not take it."""
        self._put(refused)

    def tell(self, camera_seq: int, part: Part, verdict: Verdict, trusted: bool) -> None:
        """A part's verdict; `trusted` only while the line is running."""
        self._put(_Verdict(camera_seq, part, verdict, trusted))

    def counters(self) -> GateFields:
        """For the heartbeat."""
        return GateFields(
            passed=self._passed,
            rejected=self._rejected,
            missing=self._missing,
            late=self._told["late"],
            mismatched=self._told["mismatch"] + self._told["unknown"],
            missed=self._missed,
            unplaced=self._unplaced,
            waiting=len(self._fifo),
            dry_run=self._settings.dry_run,
        )

    @property
    def empty(self) -> bool:
        """Whether no part is between camera and gate."""
        return not self._inbox and not len(self._fifo)

    @property
    def at_rest(self) -> bool:
        """Whether the output is off and stays so."""
        return self._pulse.next_change_ns is None and not self._is_on

    # ---- the gate's thread -----------------------------------------------------------------

    def turn(self) -> int:
        """Do what is due; how many nanoseconds may pass until the next turn."""
        self.turned_ns = now_ns = self._clock.mono_ns()
        position = self._position(now_ns)
        while self._inbox:
            self._take(self._inbox.popleft())
        if position is not None:
            for decision in self._fifo.due(position):
                self._act(decision, now_ns)
        cuts = self._pulse.cut
        self._switch(self._pulse.is_on(now_ns), now_ns)
        if self._pulse.cut > cuts:
            self._alarm("gate_held", f"on for {self._settings.max_on_ms:g} ms: switched off")
        self._end_alarms(now_ns)
        return self._sleep_ns(now_ns)

    def close(self) -> None:
        """Switch off and let go. Parts that are still under way are named in the log."""
        left = len(self._fifo)
        if left:
            log.warning(
                "gate behind %s: %d parts were between camera and gate at the end",
                self._camera,
                left,
            )
        try:
            self._gate.close()
        except GateError as error:
            log.error("gate behind %s: %s", self._camera, error.sentence)
        if self._encoder is not None:
            self._encoder.close()

    # ---- inside ----------------------------------------------------------------------------

    def _put(self, item: Announced | Refused | _Verdict) -> None:
        self._inbox.append(item)
        self.wake.set()

    def _position(self, now_ns: int) -> float | None:
        if self._encoder is None:
            return float(now_ns)
        try:
            return float(self._track.see(now_ns, self._encoder.count()))
        except (OSError, ValueError) as error:
            self._alarm("gate_failed", f"the encoder cannot be read: {error}")
            return None

    def _at(self, instant_ns: int) -> float | None:
        return float(instant_ns) if self._encoder is None else self._track.at(instant_ns)

    def _take(self, item: Announced | Refused | _Verdict) -> None:
        if isinstance(item, _Verdict):
            told = self._fifo.tell(item.camera_seq, item.part, item.verdict, item.trusted)
            if told != "taken":
                self._told[told] += 1
                self._report(told, item)
            return
        position = self._at(item.mono_ns)
        self._check_movement(position)
        skipped = self._fifo.skipped
        if position is None:
            placed = False
        elif isinstance(item, Refused):
            placed = self._fifo.refuse(Part(item.part_id, None, "plc"), position)
        else:
            placed = self._fifo.announce(item, position)
        if self._fifo.skipped > skipped:
            self._told["mismatch"] += self._fifo.skipped - skipped
            self._alarm("gate_mismatch", "part numbers were left out before the newest part")
        if not placed:
            self._unplaced += 1
            self._alarm("gate_failed", "a part has no place on the belt: it is not followed")

    def _check_movement(self, position: float | None) -> None:
        """Parts come one behind the other: a belt that brings them without counting is not one."""
        if self._encoder is None or position is None:
            return
        moved = self._last_position is None or abs(position - self._last_position) >= 1
        self._last_position = position
        self._standing = 0 if moved else self._standing + 1
        if self._standing >= STANDING_PARTS:
            self._alarm("gate_failed", "parts come and the encoder does not count")

    def _report(self, told: Told, item: _Verdict) -> None:
        name = item.part.part_id or f"number {item.camera_seq}"
        if told == "late":
            self._alarm("gate_missing", f"the verdict of part {name} came after the gate")
        elif told != "repeated":
            self._alarm("gate_mismatch", f"a verdict of part {name} is {told}")

    def _act(self, decision: Decision, now_ns: int) -> None:
        settings = self._settings
        if decision.reject:
            self._rejected += 1
        else:
            self._passed += 1
        if decision.cause == "missing":
            self._missing += 1
            name = decision.part.part_id or f"number {decision.camera_seq}"
            self._alarm("gate_missing", f"part {name} had no verdict at the gate: rejected")
        if decision.reject == (settings.fires_on == "reject"):
            if decision.in_time:
                self._pulse.fire(now_ns)
            else:
                # The part has passed by; a pulse now would hit the one behind it.
                self._missed += 1
                what = "reject" if decision.reject else "pass"
                self._alarm("gate_missed", f"too late to {what} part number {decision.camera_seq}")
        self._gate.note(decision, self._clock.wall_ns())

    def _switch(self, on: bool, now_ns: int) -> None:
        if on == self._is_on or now_ns < self._retry_ns:
            return
        if self._settings.dry_run:
            log.info("gate behind %s (dry run): would be %s", self._camera, "on" if on else "off")
            self._is_on = on
            return
        try:
            self._gate.switch(on)
        except GateError as error:
            self._is_on = None  # who knows; asked again soon
            self._retry_ns = now_ns + _RETRY_NS
            self._alarm("gate_failed", error.sentence)
        else:
            self._is_on = on

    def _alarm(self, name: str, text: str) -> None:
        if name not in self._alarms:
            log.warning("gate behind %s: %s", self._camera, text)
            self._say(Alarm(name, True, text, self._camera))
        self._alarms[name] = self._clock.mono_ns()

    def _end_alarms(self, now_ns: int) -> None:
        for name, last_ns in list(self._alarms.items()):
            if now_ns - last_ns >= ALARM_HOLD_NS:
                del self._alarms[name]
                self._say(Alarm(name, False, "", self._camera))

    def _sleep_ns(self, now_ns: int) -> int:
        waits = [_IDLE_NS]
        if self._pulse.next_change_ns is not None:
            waits.append(self._pulse.next_change_ns - now_ns)
        if self._encoder is not None:
            assert self._settings.encoder is not None
            waits.append(round(self._settings.encoder.poll_ms * 1e6))
        elif self._fifo.next_due is not None:
            waits.append(round(self._fifo.next_due) - now_ns)
        return max(0, min(waits))
