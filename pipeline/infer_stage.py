"""The infer thread: take what waits, give up what cannot matter, judge the rest, hand it over."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..engine.backends.base import Engine
from ..engine.spec import Threshold
from .admission import Admission, Ticket
from .clock import Clock
from .judge import Judged, judge, not_judged, warm_up
from .line_control import RunningLine
from .line_records import LineSettings
from .outlet import Item, Revision

_IDLE_S = 0.1


class InferStage:
    """Owns the engine. `post` hands items to the publish thread, `changed` wakes the caller."""

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        control: RunningLine,
        admission: Admission,
        post: Callable[[Item], None],
        settings: LineSettings,
        clock: Clock,
        changed: threading.Event,
    ) -> None:
        self._open_engine, self._control, self._admission = open_engine, control, admission
        self._post, self._settings, self._clock, self._changed = post, settings, clock, changed
        self._threshold = control.threshold
        self._drain_until_ns: int | None = None
        self.engine: Engine | None = None
        """None until it is open and warm."""
        self.busy_since_ns: int | None = None
        """When the inference that is under way began (monotonic)."""
        self.turned_ns: int | None = None
        """When the thread last came round (monotonic); None until the engine is open."""

    @property
    def threshold(self) -> Threshold:
        """What the parts are judged by now."""
        return self._threshold

    def give_up_after(self, instant_ns: int) -> None:
        """What still waits at this instant gets its `err` instead of an inference."""
        self._drain_until_ns = instant_ns

    def run(self) -> None:
        with self._open_engine() as engine:
            warm_up(engine)
            self.engine = engine
            self._changed.set()
            while (tickets := self._admission.take(engine.manifest.batch, _IDLE_S)) is not None:
                self.turned_ns = self._clock.mono_ns()
                fresh = [ticket for ticket in tickets if not self._given_up(ticket)]
                if fresh:
                    self._follow_control()
                    self.busy_since_ns = self._clock.mono_ns()
                    for judged in judge(engine, self._threshold, fresh, self._clock):
                        self._post(judged)
                    self.busy_since_ns = None

    def _follow_control(self) -> None:
        """Judge by the operators' threshold; its revision goes ahead of the parts."""
        current = self._control.threshold
        if current is not self._threshold:
            self._threshold = current
            self._post(Revision(current.revision))

    def _given_up(self, ticket: Ticket) -> bool:
        """Whether a part cannot matter any more; found out before it costs an inference."""
        now_ns = self._clock.mono_ns()
        deadline_ms, drain_until_ns = self._settings.deadline_ms, self._drain_until_ns
        if drain_until_ns is not None and now_ns > drain_until_ns:
            judged = stopped(ticket, self._threshold.value, now_ns)
        elif deadline_ms and now_ns - ticket.frame.captured_mono_ns > deadline_ms * 1e6:
            if self._settings.mode == "latest":
                self._admission.drop_taken(ticket, "infer:stale")
                return True
            text = f"older than {deadline_ms:g} ms before it could be inspected"
            judged = not_judged(ticket, "late", text, self._threshold.value, now_ns)
        else:
            return False
        self._post(judged)
        return True


def stopped(ticket: Ticket, threshold: float, now_ns: int) -> Judged:
    """The `err` of a part that the end of the line overtook."""
    text = "the line was stopped before this part was inspected"
    return not_judged(ticket, "stopped", text, threshold, now_ns)
