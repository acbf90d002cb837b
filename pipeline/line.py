"""The line: camera -> admit -> judge -> publish, from the first open to BYE.

    camera thread(s)   grab, stamp, admit           (capture/camera.py)
    infer thread       take, judge, hand over       owns the engine
    publish thread     conclude, send, settle       owns the publisher and all of its sockets
    the caller         opens, watches, stops

Every part that is admitted leaves with exactly one result, whatever fails: the engine, the
deadline, or the stop itself. A stop ends within STOP_LIMIT_S, from any state.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence

from ..engine.backends.base import Engine
from ..engine.spec import Threshold
from ..errors import EngineError, NetworkError
from . import wire_messages as wire
from .admission import Admission, Ticket
from .capture.camera import Camera, CameraSettings
from .clock import SYSTEM_CLOCK, Clock
from .control_port import LineControl
from .decide import apply_deadline
from .engine_watch import EngineWatch
from .health import StageLatencies, health_fields
from .judge import Judged, judge, not_judged, result_of, warm_up
from .line_control import RunningLine
from .line_records import LineSettings, LineSummary
from .outlet import Alarm, Finish, Outlet, Revision, State

log = logging.getLogger(__name__)
STOP_LIMIT_S = 3.0
_DRAIN_LIMIT_S = 2.0
"""How long the infer thread may judge what was waiting when the stop came."""
_HANG_LIMIT_NS = 200_000_000
_IDLE_S = 0.1


def run_line(
    cameras: Sequence[CameraSettings],
    open_engine: Callable[[], Engine],
    threshold: Threshold,
    outlet: Outlet,
    settings: LineSettings,
    stop: threading.Event,
    on_ready: Callable[[Engine], None] = lambda engine: None,
    on_alive: Callable[[], object] = lambda: None,
    clock: Clock = SYSTEM_CLOCK,
    on_admitted: Callable[[Ticket], None] = lambda ticket: None,
    on_control: Callable[[LineControl], None] = lambda control: None,
) -> LineSummary:
    """Run until every source has ended, the part limit is reached, or `stop` is set.

    `on_alive` is called about once a second while all stages make progress (for a watchdog).
    `on_admitted` is called in the camera's thread for every admitted part, before its result can
    exist; `on_control` once, when the line is ready, with what changes it while it runs.
    Raises CameraError, EngineError or NetworkError when the line cannot start, or when a thread
    fails later on; parts admitted until then have their results.
    """
    line = _Line(
        cameras, open_engine, threshold, outlet, settings, on_alive, clock, on_admitted, stop
    )
    try:
        line.start(stop)
        if line.ready(stop):
            on_control(line.control)  # first: who reads READY may give an order at once
            on_ready(line.engine())
            line.wait_for_subscribers(stop)
            line.run(stop)
    finally:
        line.finish(stop)
    line.raise_failure()
    return line.summary(stop)


class _Line:
    """The state that the threads share."""

    def __init__(
        self,
        cameras: Sequence[CameraSettings],
        open_engine: Callable[[], Engine],
        threshold: Threshold,
        outlet: Outlet,
        settings: LineSettings,
        on_alive: Callable[[], object],
        clock: Clock,
        on_admitted: Callable[[Ticket], None],
        stop: threading.Event,
    ) -> None:
        self._settings, self._on_alive, self._clock = settings, on_alive, clock
        self._open_engine, self._threshold, self._outlet = open_engine, threshold, outlet
        self._admission = Admission(
            settings.mode,
            settings.depth,
            part_limit=settings.part_limit,
            clock=clock,
            on_admitted=on_admitted,
        )
        self._outbox: queue.SimpleQueue[Judged | State | Alarm | Revision | Finish] = (
            queue.SimpleQueue()
        )
        self._changed = threading.Event()
        self._cameras = [
            Camera(
                one.name,
                one.make_source,
                self._admission,
                clock,
                self._camera_changed,
                frozen_after=one.frozen_after,
                hang_limit_s=one.hang_limit_s,
            )
            for one in cameras
        ]
        # Daemons: a hung driver or device must not keep the process alive after the stop limit.
        self._infer = threading.Thread(target=self._guarded, args=(self._infer_loop,), daemon=True)
        self._publish = threading.Thread(
            target=self._guarded, args=(self._publish_loop,), daemon=True
        )
        self._infer.name, self._publish.name = "infer", "publish"
        self.control = RunningLine([one.name for one in cameras], threshold, stop.set)
        self._engine: Engine | None = None
        self._outlet_open, self._subscribed = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._state: wire.State = "STARTING"
        self._engine_watch = EngineWatch(outlet.send_alarm)
        self._latencies = StageLatencies()
        self._verdicts = {"ok": 0, "ng": 0, "review": 0, "err": 0}
        self._drain_until_ns: int | None = None
        self._inferring_since_ns: int | None = None
        self._published_turn_ns = self._alive_ns = clock.mono_ns()
        self._started_ns = self._capture_began_ns = self._last_result_ns = clock.mono_ns()

    # ---- the caller's thread ---------------------------------------------------------------

    def start(self, stop: threading.Event) -> None:
        """Sockets first (a port in use shows at once), then engine and cameras side by side."""
        self._publish.start()
        if not self._await(stop, self._outlet_open.is_set):
            return
        self._infer.start()
        for camera in self._cameras:
            camera.open()
        if not self._await(stop, lambda: self._engine is not None):
            return

    def wait_for_subscribers(self, stop: threading.Event) -> None:
        wanted, timeout_s = self._settings.wait_subscribers, self._settings.wait_timeout_s
        if self._await(stop, self._subscribed.is_set, timeout_s) or self._ending(stop):
            return
        raise NetworkError(
            f"fewer than {wanted} subscribers came in {timeout_s:g} s",
            "start the listeners, or leave out --wait-subscribers",
        )

    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def run(self, stop: threading.Event) -> None:
        """Let the cameras go, until there is nothing more to admit."""
        self._capture_began_ns = self._last_result_ns = self._clock.mono_ns()
        self._enter("RUNNING")
        for camera in self._cameras:
            camera.start()
        self._await(
            stop,
            lambda: self._admission.closed or all(camera.finished for camera in self._cameras),
        )

    def finish(self, stop: threading.Event) -> None:
        """Stop capture, drain, flush, BYE. After a stop or a failure within STOP_LIMIT_S."""
        self._enter("DRAINING")
        for camera in self._cameras:
            camera.stop()
        self._admission.close()
        capture_limit_s = 0.5 / max(1, len(self._cameras))
        for camera in self._cameras:
            if not camera.join(capture_limit_s):
                log.warning("camera %s does not return from its driver; left behind", camera.name)
        self._drain(stop)
        self._outbox.put(Finish())
        if self._publish.ident is not None:
            self._publish.join(STOP_LIMIT_S)

    def ready(self, stop: threading.Event) -> bool:
        return self._engine is not None and not self._ending(stop)

    def raise_failure(self) -> None:
        failures = [self._failure, *(camera.failure for camera in self._cameras)]
        for failure in failures:
            if failure is not None:
                raise failure

    def summary(self, stop: threading.Event) -> LineSummary:
        balance = self._admission.balance()
        reached = balance.admitted == self._settings.part_limit
        return LineSummary(
            verdicts=dict(self._verdicts),
            balance=balance,
            latency=self._latencies.quantiles(),
            seconds=(self._last_result_ns - self._capture_began_ns) / 1e9,
            ended_by="part limit" if reached else "stop" if stop.is_set() else "end of stream",
        )

    def _drain(self, stop: threading.Event) -> None:
        """Let the infer thread finish what waits; a stop or failure limits how long."""
        if self._infer.ident is None:
            return
        limit_ns: int | None = None
        while self._infer.is_alive():
            self._infer.join(0.02)
            now_ns = self._clock.mono_ns()
            if limit_ns is None and self._ending(stop):
                limit_ns = now_ns + int(_DRAIN_LIMIT_S * 1e9)
                self._drain_until_ns = limit_ns
            if limit_ns is not None and now_ns > limit_ns + _HANG_LIMIT_NS:
                log.error("the engine does not return; its parts are reported as err")
                return

    def _ending(self, stop: threading.Event) -> bool:
        return (
            stop.is_set()
            or self._failure is not None
            or any(camera.failure is not None for camera in self._cameras)
        )

    def _await(
        self,
        stop: threading.Event,
        condition: Callable[[], bool],
        timeout_s: float = float("inf"),
    ) -> bool:
        """Wait for `condition`; give up on a stop, a failure or after `timeout_s`."""
        deadline_ns = self._clock.mono_ns() + timeout_s * 1e9
        while not condition():
            if self._ending(stop) or self._clock.mono_ns() > deadline_ns:
                return condition()
            self._supervise()
            # A signal handler can only set `stop`, so it is looked at now and then.
            self._changed.wait(0.05)
            self._changed.clear()
        return True

    def _supervise(self) -> None:
        """Hung cameras are replaced; a hung device cannot be, so it ends the line."""
        for camera in self._cameras:
            camera.replace_if_hung()
        now_ns, since_ns = self._clock.mono_ns(), self._inferring_since_ns
        if since_ns is not None and now_ns - since_ns > self._settings.engine_limit_s * 1e9:
            self._failure = self._failure or EngineError(
                f"the engine has not returned for {self._settings.engine_limit_s:g} s",
                "start the program again; if it happens again, check the device's driver and log",
            )
        elif now_ns - self._alive_ns > 1e9 and now_ns - self._published_turn_ns < 3e9:
            self._alive_ns = now_ns
            self._on_alive()

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            log.debug("thread %s ended", threading.current_thread().name, exc_info=True)
            self._failure = self._failure or error
            self._changed.set()

    # ---- the infer thread ------------------------------------------------------------------

    def _infer_loop(self) -> None:
        with self._open_engine() as engine:
            warm_up(engine)
            self._engine = engine
            self._changed.set()
            while (tickets := self._admission.take(engine.manifest.batch, _IDLE_S)) is not None:
                fresh = [ticket for ticket in tickets if not self._given_up(ticket)]
                if fresh:
                    self._follow_control()
                    self._inferring_since_ns = self._clock.mono_ns()
                    for judged in judge(engine, self._threshold, fresh, self._clock):
                        self._outbox.put(judged)
                    self._inferring_since_ns = None

    def _follow_control(self) -> None:
        """Judge by the operators' threshold; its revision goes ahead of the parts in the outbox."""
        current = self.control.threshold
        if current is not self._threshold:
            self._threshold = current
            self._outbox.put(Revision(current.revision))

    def _given_up(self, ticket: Ticket) -> bool:
        """Whether a part cannot matter any more; found out before it costs an inference."""
        now_ns = self._clock.mono_ns()
        deadline_ms, drain_until_ns = self._settings.deadline_ms, self._drain_until_ns
        if drain_until_ns is not None and now_ns > drain_until_ns:
            judged = self._stopped(ticket)
        elif deadline_ms and now_ns - ticket.frame.captured_mono_ns > deadline_ms * 1e6:
            if self._settings.mode == "latest":
                self._admission.drop_taken(ticket, "infer:stale")
                return True
            text = f"older than {deadline_ms:g} ms before it could be inspected"
            judged = not_judged(ticket, "late", text, self._threshold.value, now_ns)
        else:
            return False
        self._outbox.put(judged)
        return True

    # ---- the publish thread ----------------------------------------------------------------

    def _publish_loop(self) -> None:
        outlet = self._outlet
        outlet.open()
        try:
            outlet.send_state("STARTING")
            self._outlet_open.set()
            self._changed.set()
            while not isinstance(item := self._next_item(), Finish):
                if isinstance(item, Judged):
                    self._publish_part(item)
                elif isinstance(item, State):
                    outlet.send_state(item.state, item.text)
                elif isinstance(item, Revision):
                    outlet.set_threshold_revision(item.revision)
                elif isinstance(item, Alarm):
                    outlet.send_alarm(item.name, item.active, item.text, item.camera)
                outlet.heartbeat_if_due(self._health)
                self._published_turn_ns = self._clock.mono_ns()
                if not self._subscribed.is_set():
                    self._look_for_subscribers()
            for ticket in self._admission.unsettled():
                self._publish_part(self._stopped(ticket))
        finally:
            outlet.close()

    def _next_item(self) -> Judged | State | Alarm | Revision | Finish | None:
        try:
            return self._outbox.get(timeout=_IDLE_S)
        except queue.Empty:
            return None

    def _publish_part(self, judged: Judged) -> None:
        now_ns, decision = self._clock.mono_ns(), judged.decision
        if self._settings.deadline_ms:
            age_ns = now_ns - judged.ticket.frame.captured_mono_ns
            deadline_ns = int(self._settings.deadline_ms * 1e6)
            decision = apply_deadline(decision, age_ns, deadline_ns, self._settings.on_late)
        result = result_of(judged, decision, now_ns)
        self._outlet.send_result(result, self._admission.dropped_total)
        self._admission.settle(judged.ticket)
        self._verdicts[result.verdict.value] += 1
        self._latencies.add(result.latency)
        self._last_result_ns = now_ns
        self._engine_watch.see(result)

    def _look_for_subscribers(self) -> None:
        wanted = self._settings.wait_subscribers
        if self._outlet.subscribers >= wanted:
            # Their map connections arrive a moment later.
            self._outlet.wait_for_subscribers(wanted, 2.0)
            self._subscribed.set()
            self._changed.set()

    def _stopped(self, ticket: Ticket) -> Judged:
        text = "the line was stopped before this part was inspected"
        now_ns = self._clock.mono_ns()
        return not_judged(ticket, "stopped", text, self._threshold.value, now_ns)

    # ---- what others see of it -------------------------------------------------------------

    def _enter(self, state: wire.State, text: str = "") -> None:
        if state != self._state:
            self._state = state
            self._outbox.put(State(state, text))

    def _camera_changed(self, camera: Camera) -> None:
        """Called in the camera's thread."""
        lost = camera.status.state in ("reopening", "failed")
        frozen = lost and " is frozen" in camera.status.detail
        self._outbox.put(Alarm("camera_lost", lost, camera.status.detail, camera.name))
        self._outbox.put(Alarm("camera_frozen", frozen, camera.status.detail, camera.name))
        if self._state in ("RUNNING", "DEGRADED"):
            some_lost = any(other.status.state == "reopening" for other in self._cameras)
            self._enter("DEGRADED" if some_lost else "RUNNING", camera.status.detail)
        self._changed.set()

    def _health(self) -> wire.HealthFields:
        now_ns = self._clock.mono_ns()
        return health_fields(
            ready=self._state == "RUNNING",
            uptime_s=(now_ns - self._started_ns) / 1e9,
            cameras={camera.name: camera.fields(now_ns) for camera in self._cameras},
            latency=self._latencies.quantiles(),
            balance=self._admission.balance(),
            backend=self._engine.description if self._engine else "",
        )
