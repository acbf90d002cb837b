"""The infer thread: take what waits, give up what cannot matter, judge the rest, hand it over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from ..errors import ConfigError
from .admission import Admission, Ticket
from .clock import Clock
from .judge import Judged, judge, not_judged
from .line_plan import Judging, PlanSlot
from .line_records import LineSettings
from .outlet import Item
from .plan_change import PlanChanges
from .rulebook import Rulebook
from .view import View
from .waiting import Seat

_IDLE_S = 0.1
_MOST_AT_ONCE = 64


class InferStage:
    """Drives the engines of all plans. `post` hands items to the publish thread, `changed` wakes
    the caller. The admission asks `seat_of` which parts may be judged together."""

    def __init__(
        self,
        slots: Sequence[PlanSlot],
        changes: PlanChanges,
        admission: Admission,
        post: Callable[[Item], None],
        settings: LineSettings,
        clock: Clock,
        changed: threading.Event,
    ) -> None:
        self._slots, self._changes, self._admission = slots, changes, admission
        self._post, self._settings, self._clock, self._changed = post, settings, clock, changed
        self._slot_of: Mapping[str, PlanSlot] = {
            camera: slot for slot in slots for camera in slot.cameras
        }
        self._drain_until_ns: int | None = None
        self.busy_since_ns: int | None = None
        """When the inference that is under way began (monotonic)."""
        self.turned_ns: int | None = None
        """When the thread last came round (monotonic); None until the engine is open."""

    @property
    def ready(self) -> bool:
        """Every engine is open and warm."""
        return all(slot.now is not None for slot in self._slots)

    @property
    def description(self) -> str:
        """What runs the plans, for the heartbeat."""
        engines = [slot.now.engine.description for slot in self._slots if slot.now is not None]
        return "; ".join(dict.fromkeys(engines))

    def seat_of(self, camera: str) -> Seat:
        """Safe from any thread."""
        return self._slot_of[camera].seat

    def view_of(self, camera: str) -> View | None:
        """How a camera is seen now; None before the engine is open. Safe from any thread."""
        now = self._slot_of[camera].now
        return None if now is None else now.views[camera]

    def rulebook_of(self, camera: str) -> Rulebook:
        """Safe from any thread."""
        return self._slot_of[camera].rulebook

    def give_up_after(self, instant_ns: int) -> None:
        """What still waits at this instant gets its `err` instead of an inference."""
        self._drain_until_ns = instant_ns

    def run(self) -> None:
        try:
            for slot in self._slots:
                slot.open()
            self._changed.set()
            while (tickets := self._admission.take(_MOST_AT_ONCE, _IDLE_S)) is not None:
                self.turned_ns = self._clock.mono_ns()
                self._changes.swap_if_asked()
                fresh = [ticket for ticket in tickets if not self._given_up(ticket)]
                if fresh:
                    self._judge(fresh)
        finally:
            self._changes.end()
            for slot in self._slots:
                slot.close()

    def _judge(self, tickets: Sequence[Ticket]) -> None:
        now = self._slot_of[tickets[0].frame.camera].now
        assert now is not None, "nothing is taken before the engines are open"
        batch = now.engine.manifest.batch
        self.busy_since_ns = self._clock.mono_ns()
        # A plan with a smaller batch may have come since these parts were taken.
        for at in range(0, len(tickets), batch):
            some = tickets[at : at + batch]
            for judged in judge(now.engine, now.rulebook, now.views.__getitem__, some, self._clock):
                self._post(judged)
                self._check_size(judged, now)
        self.busy_since_ns = None

    def _check_size(self, judged: Judged, now: Judging) -> None:
        """The first picture shows whether regions and calibration are of this camera's size."""
        camera, pixels = judged.ticket.frame.camera, judged.pixels
        sizes = self._slot_of[camera].sizes
        if camera in sizes or pixels is None:
            return
        if "wrong_image" in judged.decision.reasons and now.views[camera].image_size is not None:
            raise ConfigError(f"camera {camera}: {judged.decision.detail}")
        sizes[camera] = pixels.shape[0], pixels.shape[1]

    def _given_up(self, ticket: Ticket) -> bool:
        """Whether a part cannot matter any more; found out before it costs an inference."""
        now_ns, rulebook = self._clock.mono_ns(), self.rulebook_of(ticket.frame.camera)
        deadline_ms, drain_until_ns = self._settings.deadline_ms, self._drain_until_ns
        if drain_until_ns is not None and now_ns > drain_until_ns:
            judged = stopped(ticket, rulebook, now_ns)
        elif deadline_ms and now_ns - ticket.frame.captured_mono_ns > deadline_ms * 1e6:
            if self._settings.mode == "latest":
                self._admission.drop_taken(ticket, "infer:stale")
                return True
            text = f"older than {deadline_ms:g} ms before it could be inspected"
            judged = not_judged(ticket, "late", text, rulebook, now_ns)
        else:
            return False
        self._post(judged)
        return True


def stopped(ticket: Ticket, rulebook: Rulebook, now_ns: int) -> Judged:
    """The `err` of a part that the end of the line overtook."""
    text = "the line was stopped before this part was inspected"
    return not_judged(ticket, "stopped", text, rulebook, now_ns)
