"""The publish thread: conclude each part, send it, settle it. Owns the outlet and its sockets."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from . import wire_messages as wire
from .admission import Admission
from .clock import Clock
from .decide import apply_deadline
from .engine_watch import EngineWatch
from .health import CameraLatencies
from .infer_stage import stopped
from .judge import Judged, result_of
from .line_records import LineSettings
from .outlet import Alarm, Finish, Item, Outlet, State
from .rulebook import Rulebook

_IDLE_S = 0.1


class PublishStage:
    """Other threads `post`; nothing else reaches the outlet. `changed` wakes the caller.

    `health` is called in this thread for every heartbeat, `rulebook_of` a camera for parts that
    nobody judged.
    """

    def __init__(
        self,
        outlet: Outlet,
        admission: Admission,
        settings: LineSettings,
        clock: Clock,
        health: Callable[[], wire.HealthFields],
        rulebook_of: Callable[[str], Rulebook],
        changed: threading.Event,
    ) -> None:
        self._outlet, self._admission, self._settings = outlet, admission, settings
        self._clock, self._health, self._rulebook_of = clock, health, rulebook_of
        self._changed = changed
        self._outbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._engine_watch = EngineWatch(outlet.send_alarm)
        self.post: Callable[[Item], None] = self._outbox.put
        self.opened, self.subscribed = threading.Event(), threading.Event()
        self.latencies = CameraLatencies()
        self.verdicts = {"ok": 0, "ng": 0, "review": 0, "err": 0}
        self.last_result_ns = self.turned_ns = clock.mono_ns()

    def run(self) -> None:
        outlet = self._outlet
        outlet.open()
        try:
            outlet.send_state("STARTING")
            self.opened.set()
            self._changed.set()
            while not isinstance(item := self._next_item(), Finish):
                self._handle(item)
                outlet.heartbeat_if_due(self._health)
                self.turned_ns = self._clock.mono_ns()
                if not self.subscribed.is_set():
                    self._look_for_subscribers()
            for ticket in self._admission.unsettled():
                rulebook = self._rulebook_of(ticket.frame.camera)
                self._publish_part(stopped(ticket, rulebook, self._clock.mono_ns()))
        finally:
            outlet.close()

    def _next_item(self) -> Item | None:
        try:
            return self._outbox.get(timeout=_IDLE_S)
        except queue.Empty:
            return None

    def _handle(self, item: Item | None) -> None:
        if isinstance(item, Judged):
            self._publish_part(item)
        elif isinstance(item, State):
            self._outlet.send_state(item.state, item.text)
        elif isinstance(item, Alarm):
            self._outlet.send_alarm(item.name, item.active, item.text, item.camera)

    def _publish_part(self, judged: Judged) -> None:
        now_ns, decision = self._clock.mono_ns(), judged.decision
        if self._settings.deadline_ms:
            age_ns = now_ns - judged.ticket.frame.captured_mono_ns
            deadline_ns = int(self._settings.deadline_ms * 1e6)
            decision = apply_deadline(decision, age_ns, deadline_ns, self._settings.on_late)
        result = result_of(judged, decision, now_ns)
        self._outlet.send_result(result, self._admission.dropped_total)
        self._admission.settle(judged.ticket)
        self.verdicts[result.verdict.value] += 1
        self.latencies.add(result.camera, result.latency)
        self.last_result_ns = now_ns
        self._engine_watch.see(result)

    def _look_for_subscribers(self) -> None:
        wanted = self._settings.wait_subscribers
        if self._outlet.subscribers >= wanted:
            # Their map connections arrive a moment later.
            self._outlet.wait_for_subscribers(wanted, 2.0)
            self.subscribed.set()
            self._changed.set()
