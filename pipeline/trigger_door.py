"""The door of a triggered camera: parts enter at their trigger, frames are paired with them.

    order    -> announce (accounted for from here on) -> fire the camera, in a thread of its own
    frame    -> pair (pairing.py) -> deliver
    too late, lost, mismatched, stopped -> deliver without an image: `err` with the reason

An order is answered at once: with its number, or refused because too many parts are under way.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from ..errors import CameraError
from .admission import Admission
from .clock import Clock
from .control_port import ControlRefused
from .outlet import Alarm
from .pairing import Outcome, Pairing, TriggerSettings
from .records import Announced, Frame, Part, frame_without_image
from .wire_messages import CameraFields

log = logging.getLogger(__name__)
CAMERA_LOST, STOPPED = "camera_lost", "stopped"
MAX_ID_BYTES = 128
"""So much of an id fits into an event."""
STUCK_NS = 10_000_000_000
"""A trigger that the camera's driver has not taken for so long hangs."""
_MAX_STUCK = 3
_UNANNOUNCED_LIMIT = 1_000_000
"""A part that has passed cannot be refused. It has no image, so it costs next to nothing."""
Fire = Callable[[str | None], int]
"""Fires the camera for a part; its own trigger counter comes back. Raises CameraError."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A part that was at the camera and did not enter the line."""

    camera: str
    part_id: str | None
    mono_ns: int
    why: str


class TriggerDoor:
    """Stands between one camera and the admission; safe from any thread.

    The camera sees `admit` and `closed`, as it sees them of an admission. `on_refused` is called
    for an order that was refused, so that a gate knows of the part; it returns in microseconds.
    """

    def __init__(
        self,
        camera: str,
        settings: TriggerSettings,
        admission: Admission,
        clock: Clock,
        fire: Fire,
        say: Callable[[Alarm], None],
        on_refused: Callable[[Refused], None] = lambda refused: None,
    ) -> None:
        self.camera, self.settings = camera, settings
        self.refused = 0
        """Orders that were refused because too many parts were under way."""
        self.admitted = 0
        self._admission, self._clock, self._say = admission, clock, say
        self._fire, self._on_refused = fire, on_refused
        self._lock = threading.Lock()
        self._pairing = Pairing(settings)
        self._parts: dict[int, Announced] = {}
        """The parts without a frame, by the number of their trigger."""
        self._number = 0
        self._said_mismatch = False
        self._lost = "the camera is not open yet"
        self._orders: queue.SimpleQueue[tuple[int, str | None] | None] = queue.SimpleQueue()
        self.firing: tuple[int, int] | None = None
        """(number, since when) of the trigger that the driver has now."""
        self._session = 0
        """Counts the threads that fire: each but the newest was left behind."""

    # ---- orders ----------------------------------------------------------------------------

    def trigger(self, part_id: str | None) -> int:
        """A part is at the camera: its number, by which its event is found (`part.trigger_seq`).

        Raises ControlRefused when the part does not enter the line.
        """
        if self.settings.match == "none":
            return self._fire_only(part_id)
        _check_id(part_id)
        with self._lock:
            now_ns = self._clock.mono_ns()
            stuck = self._orders.qsize() >= self.settings.under_way
            number = self._number + 1
            source = "line" if part_id is None else "plc"
            part = Announced(
                camera=self.camera,
                camera_seq=self.admitted + 1,
                part=Part(part_id, number, source),
                mono_ns=now_ns,
                wall_ns=self._clock.wall_ns(),
            )
            if stuck or not self._admission.announce(part, self.settings.under_way):
                raise self._refusal(part_id, now_ns, stuck)
            self._number, self.admitted = number, self.admitted + 1
            self._parts[number] = part
            self._conclude(self._pairing.announce(number, now_ns))
            if number in self._parts and self._lost:
                self._conclude(self._pairing.fail(number, CAMERA_LOST, self._lost))
            elif number in self._parts and self.settings.fire == "software":
                self._orders.put((number, part_id))
            return number

    def resync(self) -> None:
        """Pair the next trigger with the next frame; parts without a frame become `err`."""
        if self.settings.match == "none":
            raise ControlRefused(f"camera {self.camera} pairs nothing (match: none)")
        with self._lock:
            self._conclude(self._pairing.resync(self._clock.mono_ns()))
        log.info("camera %s: triggers and frames are paired anew", self.camera)

    # ---- the camera's thread ---------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """True when the camera need not grab any more: nothing can enter, nobody waits."""
        return self._admission.closed and not self._parts

    def admit(self, frame: Frame, timeout_s: float | None = 0.0) -> bool:
        """A frame came. Only with `match: none` can it have to wait, as with any camera."""
        if self.settings.match == "none":
            frame = replace(frame, part=Part(source="camera"))
            if not self._admission.admit(frame, timeout_s):
                return False
            self.admitted += 1
            return True
        with self._lock:
            self._conclude(self._pairing.frame(frame, self._clock.mono_ns()))
        return True

    def camera_is(self, running: bool, text: str) -> None:
        """The camera runs or does not; what it had not delivered by then is not awaited."""
        with self._lock:
            self._lost = "" if running else text or "the camera is out"
            if not running:
                outcomes = self._pairing.give_up(CAMERA_LOST, self._lost, self._clock.mono_ns())
                self._conclude(outcomes)

    # ---- the line's thread -----------------------------------------------------------------

    def start(self) -> None:
        if self.settings.fire == "software":
            name = f"trigger-{self.camera}-{self._session}"
            threading.Thread(
                target=self._fire_all, args=(self._session,), name=name, daemon=True
            ).start()

    def expire(self) -> None:
        """Called every few milliseconds: parts whose frame is overdue leave without it."""
        with self._lock:
            now_ns, firing = self._clock.mono_ns(), self.firing
            self._conclude(self._pairing.expire(now_ns))
            if firing is None or now_ns - firing[1] < STUCK_NS or self._session == _MAX_STUCK:
                return
            # It cannot be killed: it is left behind, as a camera's thread is.
            self.firing, self._session = None, self._session + 1
        log.error("camera %s: its driver holds trigger %d; left behind", self.camera, firing[0])
        self.start()

    def stop(self) -> None:
        """After the admission was closed: every part without a frame becomes `err`, "stopped"."""
        self._orders.put(None)
        with self._lock:
            text = "the line was stopped before its frame came"
            self._lost = "the line has ended"
            self._conclude(self._pairing.give_up(STOPPED, text, self._clock.mono_ns()))

    @property
    def mismatch(self) -> str:
        """Why nothing is paired; empty while all is well."""
        return self._pairing.mismatch

    def fields(self, camera: CameraFields) -> CameraFields:
        """The camera in the heartbeat: its parts enter here, and not when a frame comes."""
        return msgspec.structs.replace(
            camera,
            admitted=self.admitted,
            refused=self.refused,
            unclaimed=self._pairing.unclaimed,
            delivers=camera.delivers and not self.mismatch,
        )

    # ---- inside ----------------------------------------------------------------------------

    def _fire_only(self, part_id: str | None) -> int:
        if part_id is not None:
            raise ControlRefused(
                f"camera {self.camera} pairs no frames with parts (match: none)",
                "leave the part out, or choose another match in the station file",
            )
        return self._fire(None)

    def _refusal(self, part_id: str | None, now_ns: int, stuck: bool) -> ControlRefused:
        if self._admission.closed:
            text = "the line is ending; this part is not inspected"
            self._on_refused(Refused(self.camera, part_id, now_ns, text))
            return ControlRefused(text)
        self.refused += 1
        why = "the camera does not take its triggers" if stuck else "they have no result yet"
        text = f"{self.settings.under_way} parts of camera {self.camera} are under way: {why}"
        self._on_refused(Refused(self.camera, part_id, now_ns, text))
        return ControlRefused(text, "this part is not inspected: reject it, and slow the feeder")

    def _fire_all(self, session: int) -> None:
        while session == self._session and self.fire_next():
            pass

    def fire_next(self, wait: bool = True) -> bool:
        """Fire the camera for the oldest order; False when there is none, or the door was stopped.

        For the thread that `start` begins, or for whoever has one of its own.
        """
        try:
            order = self._orders.get(block=wait)
        except queue.Empty:
            return False
        if order is None:
            return False
        number, part_id = order
        with self._lock:
            if number not in self._parts:
                # Given up while it waited: its picture would be nobody's.
                self._conclude(self._pairing.fail(number, CAMERA_LOST, "not fired"))
                return True
            self.firing = firing = (number, self._clock.mono_ns())
        count, text = 0, ""
        try:
            count = self._fire(part_id)
        except CameraError as error:
            text = error.sentence
        except Exception as error:
            # Drivers raise classes of their own; the part is lost, the line goes on.
            log.exception("camera %s: the trigger failed", self.camera)
            text = f"the trigger failed: {type(error).__name__}: {error}"
        with self._lock:
            if self.firing is firing:
                self.firing = None
            if text:
                self._conclude(self._pairing.fail(number, CAMERA_LOST, text))
            else:
                self._conclude(self._pairing.fired(number, count, self._clock.mono_ns()))
        return True

    def _conclude(self, outcomes: list[Outcome]) -> None:
        """Deliver what was settled; the alarm follows the pairing's state. Under the lock."""
        for outcome in outcomes:
            if outcome.number is None:
                self._unannounced(outcome)
                continue
            announced = self._parts.pop(outcome.number)
            if outcome.frame is None:
                frame = frame_without_image(announced, outcome.reason, outcome.detail)
            else:
                part = replace(announced.part, match=self.settings.match)
                frame = replace(outcome.frame, camera_seq=announced.camera_seq, part=part)
            self._admission.deliver(frame)
        mismatch = self._pairing.mismatch
        if bool(mismatch) != self._said_mismatch:
            self._said_mismatch = bool(mismatch)
            text = f"{mismatch}: every part is err until a resync" if mismatch else "resync"
            log.warning("camera %s: %s", self.camera, text)
            self._say(Alarm("trigger_mismatch", bool(mismatch), text, self.camera))

    def _unannounced(self, outcome: Outcome) -> None:
        """A part passed the camera that nobody had announced: it has a result too, an `err`."""
        assert outcome.frame is not None
        seen = replace(outcome.frame, camera_seq=self.admitted + 1, part=Part(source="camera"))
        if self._admission.announce(seen.announced(), _UNANNOUNCED_LIMIT):
            self.admitted += 1
            self._admission.deliver(
                replace(
                    seen,
                    pixels=None,
                    prepared=None,
                    failure=outcome.reason,
                    detail=outcome.detail,
                )
            )


def _check_id(part_id: str | None) -> None:
    """An id comes back in the event as it was given, or it is refused here."""
    if part_id is not None and not (part_id and part_id.isprintable()):
        raise ControlRefused("the part's id has characters that cannot be printed")
    if part_id is not None and len(part_id.encode("utf-8", "replace")) > MAX_ID_BYTES:
        raise ControlRefused(f"the part's id is longer than {MAX_ID_BYTES} bytes")
