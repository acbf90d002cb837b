"""The line: camera -> admit -> judge -> publish, from the first open to BYE.

    camera thread(s)   grab, stamp, admit           owns its driver    (capture/camera.py)
    infer thread       take, judge, hand over       owns the engines   (infer_stage.py)
    publish thread     conclude, send, settle       owns the sockets   (publish_stage.py)
    the caller         opens, watches, stops

Every part that is admitted leaves with exactly one result, whatever fails: the engine, the
deadline, or the stop itself. A stop ends within STOP_LIMIT_S, from any state.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from ..engine.backends.base import Engine
from ..errors import EngineError, NetworkError
from . import wire_messages as wire
from .admission import Admission
from .capture.camera import Camera, CameraSettings
from .capture.image_checks import BLIND, CHANGED, STALE
from .clock import SYSTEM_CLOCK, Clock
from .control_port import LineControl
from .health import health_fields
from .infer_stage import InferStage
from .line_control import RunningLine
from .line_plan import LinePlan, seats
from .line_records import LineSettings, LineSummary
from .outlet import Alarm, Finish, Outlet, State
from .plan_change import LoadPlan, PlanChanges
from .prepare import prepared_early
from .publish_stage import PublishStage
from .records import Announced, Frame
from .trigger_door import Refused, TriggerDoor

log = logging.getLogger(__name__)
STOP_LIMIT_S = 3.0
_DRAIN_LIMIT_S = 2.0
"""How long the infer thread may judge what was waiting when the stop came."""
_HANG_LIMIT_NS = 200_000_000
STALLED_AFTER_NS = 5_000_000_000
"""An infer thread that has not come round for so long makes the line unhealthy."""


def run_line(
    cameras: Sequence[CameraSettings],
    plans: Sequence[LinePlan],
    outlet: Outlet,
    settings: LineSettings,
    stop: threading.Event,
    on_ready: Callable[[Sequence[Engine]], None] = lambda engines: None,
    on_alive: Callable[[], object] = lambda: None,
    clock: Clock = SYSTEM_CLOCK,
    on_admitted: Callable[[Announced], None] = lambda part: None,
    on_refused: Callable[[Refused], None] = lambda refused: None,
    on_control: Callable[[LineControl], None] = lambda control: None,
    load_plan: LoadPlan | None = None,
) -> LineSummary:
    """Run until every source has ended, the part limit is reached, or `stop` is set.

    `on_alive` is called about once a second while all stages make progress (for a watchdog).
    `on_admitted` is called for every admitted part, at its trigger or when its frame came, before
    its result can exist; `on_refused` for a trigger that was refused (both return in microseconds).
    `on_control` is called once, when the line is ready, with what changes it while it runs;
    `load_plan` gives the plan that an order names (None: such orders are refused).
    Raises CameraError, EngineError or NetworkError when the line cannot start, or when a thread
    fails later on; parts admitted until then have their results.
    """
    line = _Line(
        cameras,
        plans,
        outlet,
        settings,
        on_alive,
        clock,
        on_admitted,
        on_refused,
        load_plan,
        stop,
    )
    try:
        line.start()
        if line.ready():
            on_control(line.control)  # first: who reads READY may give an order at once
            on_ready(line.engines())
            if line.wait_for_subscribers():
                line.run()
    finally:
        line.finish()
    line.raise_failure()
    return line.summary()


class _Line:
    """The caller's thread: it opens, watches and stops what the stages and cameras do."""

    def __init__(
        self,
        cameras: Sequence[CameraSettings],
        plans: Sequence[LinePlan],
        outlet: Outlet,
        settings: LineSettings,
        on_alive: Callable[[], object],
        clock: Clock,
        on_admitted: Callable[[Announced], None],
        on_refused: Callable[[Refused], None],
        load_plan: LoadPlan | None,
        stop: threading.Event,
    ) -> None:
        self._settings, self._on_alive, self._clock = settings, on_alive, clock
        self._stop = stop
        self._changed = threading.Event()
        names = [one.name for one in cameras]
        self._slots = seats(plans, names, settings.depth if settings.mode == "every" else 1)
        self._plan_changes = PlanChanges(load_plan, lambda alarm: self._publish.post(alarm))
        self._admission = Admission(
            settings.mode,
            settings.depth,
            part_limit=settings.part_limit,
            clock=clock,
            on_admitted=on_admitted,
            seat_of=lambda camera: self._infer.seat_of(camera),
            batch_wait_ns=round(settings.batch_wait_ms * 1e6),
        )
        self._doors = {
            one.name: TriggerDoor(
                one.name,
                one.trigger,
                self._admission,
                clock,
                partial(self._fire, one.name),
                lambda alarm: self._publish.post(alarm),
                on_refused,
            )
            for one in cameras
            if one.trigger is not None
        }
        self.control = RunningLine(self._slots, self._plan_changes, stop.set, self._doors)
        self._publish = PublishStage(
            outlet,
            self._admission,
            settings,
            clock,
            self._health,
            lambda camera: self._infer.rulebook_of(camera),
            self._changed,
        )
        self._infer = InferStage(
            self._slots,
            self._plan_changes,
            self._admission,
            self._publish.post,
            settings,
            clock,
            self._changed,
        )
        self._cameras = [
            Camera(
                one.name,
                one.make_source,
                self._doors.get(one.name, self._admission),
                clock,
                self._camera_changed,
                frozen_after=one.frozen_after,
                hang_limit_s=one.hang_limit_s,
                prepared=self._prepared_early,
            )
            for one in cameras
        ]
        self._infer_thread = self._thread("infer", self._infer.run)
        self._publish_thread = self._thread("publish", self._publish.run)
        self._failure: BaseException | None = None
        self._state: wire.State = "STARTING"
        self._started_ns = self._capture_began_ns = self._alive_ns = clock.mono_ns()

    def start(self) -> None:
        """Sockets first (a port in use shows at once), then engine and cameras side by side."""
        self._publish_thread.start()
        if not self._await(self._publish.opened.is_set):
            return
        self._infer_thread.start()
        for camera in self._cameras:
            camera.open_beside()
        if not self._await(lambda: all(camera.is_open for camera in self._cameras)):
            return
        for door in self._doors.values():
            door.start()
        self._await(lambda: self._infer.ready)

    def wait_for_subscribers(self) -> bool:
        """False when the line ends first. Raises NetworkError when they do not come."""
        wanted, timeout_s = self._settings.wait_subscribers, self._settings.wait_timeout_s
        there = self._await(self._publish.subscribed.is_set, timeout_s)
        if there or self._ending():
            return not self._ending()
        raise NetworkError(
            f"fewer than {wanted} subscribers came in {timeout_s:g} s",
            "start the listeners, or leave out --wait-subscribers",
        )

    def engines(self) -> list[Engine]:
        return [slot.now.engine for slot in self._slots if slot.now is not None]

    def run(self) -> None:
        """Let the cameras go, until there is nothing more to admit."""
        self._capture_began_ns = self._publish.last_result_ns = self._clock.mono_ns()
        self._enter("RUNNING")
        for camera in self._cameras:
            camera.start()
        self._await(
            lambda: self._admission.ended or all(camera.finished for camera in self._cameras),
        )

    def finish(self) -> None:
        """Stop capture, drain, flush, BYE. After a stop or a failure within STOP_LIMIT_S."""
        began_ns = self._clock.mono_ns()
        self._enter("DRAINING")
        for camera in self._cameras:
            camera.stop()
        self._admission.close()
        capture_limit_s = 0.5 / max(1, len(self._cameras))
        for camera in self._cameras:
            if not camera.join(capture_limit_s):
                log.warning("camera %s does not return from its driver; left behind", camera.name)
        for door in self._doors.values():
            door.stop()
        self._drain(began_ns)
        self._publish.post(Finish())
        if self._publish_thread.ident is not None:
            self._publish_thread.join(STOP_LIMIT_S)

    def ready(self) -> bool:
        is_open = all(camera.is_open for camera in self._cameras)
        return is_open and self._infer.ready and not self._ending()

    def raise_failure(self) -> None:
        failures = [self._failure, *(camera.failure for camera in self._cameras)]
        for failure in failures:
            if failure is not None:
                raise failure

    def summary(self) -> LineSummary:
        balance = self._admission.balance()
        reached = balance.admitted == self._settings.part_limit
        return LineSummary(
            verdicts=dict(self._publish.verdicts),
            balance=balance,
            latency=self._publish.latencies.quantiles(),
            seconds=(self._publish.last_result_ns - self._capture_began_ns) / 1e9,
            ended_by="part limit"
            if reached
            else "stop"
            if self._stop.is_set()
            else "end of stream",
        )

    def _drain(self, began_ns: int) -> None:
        """Let the infer thread finish what waits; a stop or failure limits how long.

        At the end of the files the limit begins when the stop comes, after a stop with `began_ns`.
        """
        if self._infer_thread.ident is None:
            return
        limit_ns: int | None = None
        since_ns = began_ns if self._ending() else None
        while self._infer_thread.is_alive():
            self._infer_thread.join(0.02)
            now_ns = self._clock.mono_ns()
            if limit_ns is None and self._ending():
                limit_ns = (since_ns or now_ns) + int(_DRAIN_LIMIT_S * 1e9)
                self._infer.give_up_after(limit_ns)
            if limit_ns is not None and now_ns > limit_ns + _HANG_LIMIT_NS:
                log.error("the engine does not return; its parts are reported as err")
                return

    def _ending(self) -> bool:
        return (
            self._stop.is_set()
            or self._failure is not None
            or any(camera.failure is not None for camera in self._cameras)
        )

    def _await(
        self,
        condition: Callable[[], bool],
        timeout_s: float = float("inf"),
    ) -> bool:
        """Wait for `condition`; give up on a stop, a failure or after `timeout_s`."""
        deadline_ns = self._clock.mono_ns() + timeout_s * 1e9
        while not condition():
            if self._ending() or self._clock.mono_ns() > deadline_ns:
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
        for door in self._doors.values():
            door.expire()
        now_ns, since_ns = self._clock.mono_ns(), self._infer.busy_since_ns
        if since_ns is not None and now_ns - since_ns > self._settings.engine_limit_s * 1e9:
            self._failure = self._failure or EngineError(
                f"the engine has not returned for {self._settings.engine_limit_s:g} s",
                "start the program again; if it happens again, check the device's driver and log",
            )
        elif now_ns - self._alive_ns > 1e9 and now_ns - self._publish.turned_ns < 3e9:
            self._alive_ns = now_ns
            self._on_alive()

    def _thread(self, name: str, loop: Callable[[], None]) -> threading.Thread:
        # A daemon: a hung driver or device must not keep the process alive after the stop limit.
        return threading.Thread(target=self._guarded, args=(loop,), name=name, daemon=True)

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            log.debug("thread %s ended", threading.current_thread().name, exc_info=True)
            self._failure = self._failure or error
            self._changed.set()

    # ---- what others see of it -------------------------------------------------------------

    def _fire(self, name: str, part_id: str | None) -> int:
        """Called in the thread of the camera's door."""
        return next(one for one in self._cameras if one.name == name).trigger(part_id)

    def _prepared_early(self, frame: Frame) -> Frame:
        """Called in the camera's thread."""
        return prepared_early(
            frame, self._admission, self._infer.view_of(frame.camera), self._clock
        )

    def _enter(self, state: wire.State, text: str = "") -> None:
        if state != self._state:
            self._state = state
            self._publish.post(State(state, text))

    def _camera_changed(self, camera: Camera) -> None:
        """Called in the camera's thread."""
        lost = camera.status.state in ("reopening", "failed")
        if camera.name in self._doors and camera.status.state != "stopped":
            running, text = camera.status.state == "running", camera.status.detail
            self._doors[camera.name].camera_is(running, text)
        frozen = lost and " is frozen" in camera.status.detail
        self._publish.post(Alarm("camera_lost", lost, camera.status.detail, camera.name))
        self._publish.post(Alarm("camera_frozen", frozen, camera.status.detail, camera.name))
        for name in (CHANGED, BLIND, STALE):
            text = camera.alarms.get(name, "")
            self._publish.post(Alarm(name, bool(text), text, camera.name))
        if self._state in ("RUNNING", "DEGRADED"):
            some_lost = any(other.status.state == "reopening" for other in self._cameras)
            self._enter("DEGRADED" if some_lost else "RUNNING", camera.status.detail)
        self._changed.set()

    def _health(self) -> wire.HealthFields:
        now_ns, latencies = self._clock.mono_ns(), self._publish.latencies.fields()
        cameras = {
            camera.name: camera.fields(now_ns, latencies.get(camera.name))
            for camera in self._cameras
        }
        cameras |= {name: door.fields(cameras[name]) for name, door in self._doors.items()}
        infer_turned_ns = self._infer.turned_ns
        infer_stalls = infer_turned_ns is not None and now_ns - infer_turned_ns > STALLED_AFTER_NS
        return health_fields(
            ready=self._state == "RUNNING" and all(one.delivers for one in cameras.values()),
            uptime_s=(now_ns - self._started_ns) / 1e9,
            cameras=cameras,
            latency=self._publish.latencies.quantiles(),
            balance=self._admission.balance(),
            backend=self._infer.description,
            stalled=("infer",) if infer_stalls and self._infer_thread.is_alive() else (),
        )
