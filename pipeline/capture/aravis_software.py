"""`aravis:?trigger=software` - a GigE Vision or USB3 Vision camera that takes pictures on order.

Orders come in another thread than pictures do. Each leaves exactly one shot, across reopens too:
its picture, or the reason why there is none.
"""

from __future__ import annotations

import threading

from ...errors import CameraError
from ..clock import SYSTEM_CLOCK, Clock
from ..records import Part
from .aravis import AravisSource, without_picture
from .base import Shot, Source
from .genicam import explained
from .genicam_settings import GenicamSettings, spacing_s
from .triggers import ANSWER_LIMIT_S, Trigger, TriggerLedger

_WAIT_S = 0.02
"""A trigger may become overdue, or fail in its sender's thread, while a picture is waited for."""
_UNANSWERED_LIMIT = 5
"""So many triggers in a row without a picture: the camera is there, but not with us."""


class TriggeredAravis(AravisSource):
    """A `Triggered` source. `answer_ms`: a picture that has not come by then will not come."""

    def __init__(
        self,
        target: str,
        clock: Clock = SYSTEM_CLOCK,
        settings: GenicamSettings | None = None,
        buffers: int = 8,
        packet_size: int | None = None,
        packet_socket: bool = True,
        answer_ms: float = 1e3 * ANSWER_LIMIT_S,
    ) -> None:
        software = settings or GenicamSettings(trigger="software")
        super().__init__(target, clock, software, buffers, packet_size, packet_socket)
        self.ledger = TriggerLedger(clock, answer_ms / 1e3)
        self._send_lock = threading.Lock()

    def configure(self) -> None:
        super().configure()
        try:
            self.ledger.spacing_s = spacing_s(self._camera)
        except Exception as error:
            raise explained(error, self._target) from error

    def trigger(self, part_id: str | None) -> int:
        with self._send_lock:
            trigger = self.ledger.note(part_id)
            camera, lost = self._camera, self._lost
            if trigger.failure is None and (self._stream is None or lost.is_set()):
                self.ledger.fail(trigger, "no_frame", "the camera was lost and is being reopened")
            elif trigger.failure is None:
                try:
                    camera.software_trigger()
                except Exception as error:
                    lost.set()  # the next ones need not wait for the same time-out
                    text = explained(error, self._target).sentence
                    self.ledger.fail(trigger, "no_frame", text)
            return trigger.number

    def unanswered(self) -> list[Shot]:
        self.ledger.fail_all("no_frame", "the camera was given up before the picture came")
        self._ready.extend(_failed(one) for one in self.ledger.overdue())
        shots = list(self._ready)
        self._ready.clear()
        return shots

    def inherit(self, old: Source) -> None:
        super().inherit(old)
        if isinstance(old, TriggeredAravis):
            # The old one's thread may still come back from its driver; it then has a ledger of
            # its own in which to find nothing.
            self.ledger, old.ledger = old.ledger, self.ledger
            self.ledger.fail_all("no_frame", "the driver hung and was replaced")

    def grab(self, timeout_s: float) -> Shot | None:
        self._ready.extend(_failed(one) for one in self.ledger.overdue())
        if not self._ready and (silent := self.ledger.timed_out) >= _UNANSWERED_LIMIT:
            raise CameraError(
                f"camera aravis:{self._target} gave no picture for {silent} triggers in a row",
                "check its trigger settings, exposure time and the network",
            )
        return super().grab(min(timeout_s, _WAIT_S))

    def close(self) -> None:
        self.ledger.fail_all("no_frame", "the camera was lost before its picture came")
        super().close()

    def _part_of(self, frame_id: int, wall_ns: int, mono_ns: int, error_ns: int) -> Part | None:
        before, own = self.ledger.match(frame_id, mono_ns, error_ns)
        self._ready.extend(_failed(one) for one in before)
        return None if own is None else _part(own)


def _part(trigger: Trigger) -> Part:
    source = "camera" if trigger.part_id is None else "plc"
    return Part(trigger.part_id, trigger.number, source, "exact")


def _failed(trigger: Trigger) -> Shot:
    return without_picture(
        trigger.fired_wall_ns,
        trigger.fired_mono_ns,
        _part(trigger),
        trigger.failure or "no_frame",
        trigger.detail,
    )
