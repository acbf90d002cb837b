"""One camera's thread: open, configure, grab, stamp, admit; and open again when a read failed.

A live camera is reopened in full (new handle, settings applied and read back) for as long as the
line runs. A folder or video that fails cannot be resumed without repeating parts, so it ends the
line instead. A thread that hangs in its driver cannot be killed: it is abandoned, with the source
it hangs in, and a fresh one takes over.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ...errors import CameraError
from ..admission import Entrance
from ..clock import Clock
from ..pairing import TriggerSettings
from ..records import Frame
from ..wire_messages import CameraFields, QuantileFields
from .backoff import Backoff
from .base import Alarming, EndOfStream, FreeRunning, Heir, Shot, Source, Triggered, frame_of
from .image_checks import ImageChecks

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)
GRAB_TIMEOUT_S = 0.1
"""How long a grab or an admission may wait before the thread looks whether it shall stop."""
FROZEN_AFTER = 10
"""Equal images in a row from a live camera that make it count as frozen."""
HANG_LIMIT_S = 15.0
"""A driver call that takes longer hangs. V4L2 and FFmpeg give up by themselves before that."""
MAX_ABANDONED = 3
"""Each abandoned thread keeps a handle and memory; after so many the process must be restarted."""


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """A camera as the operator chose it."""

    name: str
    make_source: Callable[[], Source]
    frozen_after: int = FROZEN_AFTER
    hang_limit_s: float = HANG_LIMIT_S
    trigger: TriggerSettings | None = None
    """None for a camera that takes pictures by itself."""


@dataclass(slots=True)
class CameraStatus:
    """Written by the camera's thread only, read by all."""

    state: str = "starting"
    """"starting", "running", "reopening", "ended", "failed" or "stopped"."""
    admitted: int = 0
    reconnects: int = 0
    opened_mono_ns: int = 0
    last_frame_mono_ns: int | None = None
    detail: str = ""


@dataclass(slots=True, eq=False)
class _Session:
    """One thread with its own source. `abandoned` is set when another has taken over."""

    source: Source
    thread: threading.Thread | None = None
    runs: bool = False
    """Whether its thread grabs, and closes the source at its end."""
    abandoned: threading.Event = field(default_factory=threading.Event)
    driver_since_ns: int | None = None
    """When the driver call that is under way began."""
    heard_ns: int = 0
    """When it last sent something, or was opened."""
    alarming: bool = False
    """Whether the source has alarms of its own; asked once, because asking takes microseconds."""

    def __post_init__(self) -> None:
        self.alarming = isinstance(self.source, Alarming)


class Camera:
    """A named camera and its thread. `changed` is called after every change of state."""

    def __init__(
        self,
        name: str,
        make_source: Callable[[], Source],
        admission: Entrance,
        clock: Clock,
        changed: Callable[[Camera], None],
        backoff: Backoff | None = None,
        frozen_after: int = FROZEN_AFTER,
        hang_limit_s: float = HANG_LIMIT_S,
        prepared: Callable[[Frame], Frame] = lambda frame: frame,
    ) -> None:
        self.name = name
        self.status = CameraStatus()
        self.failure: Exception | None = None
        self.abandoned = 0
        self._make_source = make_source
        self._admission = admission
        self._clock = clock
        self._changed = changed
        self._prepared = prepared
        self._backoff = backoff or Backoff()
        self._checks = ImageChecks(frozen_after, clock)
        self._said: dict[str, str] = {}
        self._hang_limit_ns = round(hang_limit_s * 1e9)
        self._stop = threading.Event()
        self._handover = threading.Lock()
        self._session = _Session(make_source())

    def open(self) -> None:
        """First opening, in the caller's thread. Raises what the source raises."""
        try:
            self._open(self._session)
        except BaseException:
            self._session.source.close()
            raise

    def open_beside(self) -> None:
        """First opening in a thread of its own: `failure` says that it failed, `is_open` that it
        worked. A driver that hangs in it holds nobody up."""
        session = self._session

        def opening() -> None:
            try:
                self.open()
            except Exception as error:
                self.failure = error
                self._enter("failed", str(error))

        name = f"open-{self.name}"
        session.thread = threading.Thread(target=opening, name=name, daemon=True)
        session.thread.start()

    @property
    def is_open(self) -> bool:
        """Whether the first opening has worked."""
        return self.status.opened_mono_ns > 0

    def start(self) -> None:
        self._start(self._session, is_open=True)

    def stop(self) -> None:
        self._stop.set()

    def trigger(self, part_id: str | None) -> int:
        """Fire it, from any thread; the camera's own number of the trigger. Raises CameraError."""
        source = self._session.source
        if not isinstance(source, Triggered):
            raise CameraError(
                f"camera {self.name} takes no trigger from the line",
                "a camera that a sensor fires has `fire: external` in the station file",
            )
        return source.trigger(part_id)

    def join(self, timeout_s: float) -> bool:
        """True when the thread has ended (or never began)."""
        session = self._session
        if session.thread is not None:
            session.thread.join(timeout_s)
            if session.thread.is_alive():
                return False
        if not session.runs:
            session.source.close()
        return True

    @property
    def alarms(self) -> dict[str, str]:
        """What is wrong with its pictures: name of the alarm to text."""
        session, own = self._session, self._checks.alarms
        if not session.alarming:
            return dict(own)
        assert isinstance(session.source, Alarming)
        return {**own, **session.source.alarms}

    @property
    def finished(self) -> bool:
        return self.status.state in ("ended", "failed", "stopped")

    def fields(
        self, now_mono_ns: int, latency: Mapping[str, QuantileFields] | None = None
    ) -> CameraFields:
        """This camera in the heartbeat, with the latencies of its parts."""
        status = self.status
        last = status.last_frame_mono_ns
        return CameraFields(
            state=status.state,
            admitted=status.admitted,
            reconnects=status.reconnects,
            last_age_ms=None if last is None else max(0, now_mono_ns - last) // 1_000_000,
            detail=status.detail,
            delivers=self._delivers(),
            lat_us=dict(latency or {}),
        )

    def _delivers(self) -> bool:
        """Whether it has sent a frame since it was opened, or will as soon as it is asked to."""
        status, source = self.status, self._session.source
        if status.state != "running":
            return False
        last_ns = status.last_frame_mono_ns
        waits_for_us = not source.live or isinstance(source, Triggered)
        return waits_for_us or (last_ns is not None and last_ns >= status.opened_mono_ns)

    def replace_if_hung(self) -> None:
        """Called by the supervisor now and then: abandon a thread that its driver keeps."""
        session = self._session
        since_ns = session.driver_since_ns
        if since_ns is None or self._clock.mono_ns() - since_ns < self._hang_limit_ns:
            return
        with self._handover:
            if session.abandoned.is_set() or session.driver_since_ns != since_ns:
                return
            session.abandoned.set()
            self.abandoned += 1
            text = f"its driver has not returned for {self._hang_limit_ns / 1e9:g} s"
            log.error("camera %s: %s", self.name, text)
            # One that hangs when it is first opened ends the command, as a missing one does.
            lost = not session.source.live or not session.runs
            if lost or self.abandoned > MAX_ABANDONED:
                self.failure = CameraError(
                    f"camera {self.name}: {text}", "restart the program; check cable and driver"
                )
                self._enter("failed", text)
                return
            self._session = _Session(self._make_source())
            if isinstance(self._session.source, Heir):
                self._session.source.inherit(session.source)
            self._enter("reopening", text)
            self._start(self._session, is_open=False)

    def _start(self, session: _Session, is_open: bool) -> None:
        session.runs = True
        name = f"camera-{self.name}-{self.abandoned}"
        session.thread = threading.Thread(
            target=self._run, args=(session, is_open), name=name, daemon=True
        )
        session.thread.start()

    def _run(self, session: _Session, is_open: bool) -> None:
        state = "stopped"
        try:
            if not is_open:
                self._reopen(session, CameraError(f"camera {self.name}: the driver hung"))
            while not self._done(session):
                try:
                    shot = self._grab(session)
                except CameraError as error:
                    if not session.source.live:
                        raise
                    self._reopen(session, error)
                    continue
                if shot is not None:
                    self._admit(session, shot)
        except EndOfStream:
            state = "ended"
        except Exception as error:
            state = "failed"
            if not session.abandoned.is_set():
                self.failure = error
        finally:
            session.source.close()
            with self._handover:
                if not session.abandoned.is_set():
                    self._enter(state)

    def _done(self, session: _Session) -> bool:
        return self._stop.is_set() or self._admission.closed or session.abandoned.is_set()

    def _grab(self, session: _Session) -> Shot | None:
        source = session.source
        shot = self._in_driver(session, lambda: source.grab(GRAB_TIMEOUT_S))
        now_ns = self._clock.mono_ns()
        if shot is None:
            if source.live and isinstance(source, FreeRunning):
                self._check_silence(source.silent_limit_s, now_ns - session.heard_ns)
            self._say_alarms()
            return None
        session.heard_ns = now_ns
        # Files may show anything, again and again.
        if shot.pixels is None or shot.captured_source == "file" or not source.live:
            return shot
        fault = self._checks.fault(shot.pixels)
        self._say_alarms()
        if fault is None:
            return shot
        reason, text = fault
        if shot.part.trigger_seq is not None:
            # Somebody waits for this part's result.
            self._admit(session, replace(shot, pixels=None, failure=reason, detail=text))
        raise CameraError(
            f"camera {self.name} {text}", "check exposure, trigger and cable; restart the camera"
        )

    def _say_alarms(self) -> None:
        alarms = self.alarms
        if alarms != self._said:
            self._said = alarms
            text = "; ".join(alarms.values()) or "its pictures are well again"
            log.warning("camera %s: %s", self.name, text)
            self._changed(self)

    def _check_silence(self, limit_s: float, silent_ns: int) -> None:
        if limit_s and silent_ns > limit_s * 1e9:
            raise CameraError(
                f"camera {self.name} has sent nothing for {silent_ns / 1e9:.1f} s",
                "is it still connected and running?",
            )

    def _admit(self, session: _Session, shot: Shot) -> None:
        frame = self._prepared(frame_of(shot, self.name, self.status.admitted + 1))
        while not self._done(session):
            # Under the lock, so that a thread that was just abandoned cannot admit beside its heir.
            with self._handover:
                if session.abandoned.is_set():
                    return
                self.status.last_frame_mono_ns = shot.captured_mono_ns
                if self._admission.admit(frame, GRAB_TIMEOUT_S):
                    self.status.admitted += 1
                    return

    def _open(self, session: _Session) -> None:
        self._in_driver(session, session.source.open)
        self._in_driver(session, session.source.configure)
        if session.abandoned.is_set():
            return
        self.status.opened_mono_ns = session.heard_ns = self._clock.mono_ns()
        self._checks.reopened()
        self._enter("running")

    def _reopen(self, session: _Session, error: CameraError) -> None:
        """Close, wait, open, configure until it works or the line stops."""
        ran_s = (self._clock.mono_ns() - self.status.opened_mono_ns) / 1e9
        while not self._done(session):
            self._in_driver(session, session.source.close)
            if session.abandoned.is_set():
                return
            wait_s = self._backoff.wait_s(ran_s)
            ran_s = 0.0
            log.warning("camera %s: %s; opening again in %.2f s", self.name, error, wait_s)
            self._enter("reopening", error.sentence)
            if self._stop.wait(wait_s) or self._done(session):
                return
            try:
                self._open(session)
            except CameraError as again:
                error = again
            else:
                self.status.reconnects += 1
                log.info("camera %s is back", self.name)
                return

    def _in_driver(self, session: _Session, call: Callable[[], Answer]) -> Answer:
        session.driver_since_ns = self._clock.mono_ns()
        try:
            return call()
        finally:
            session.driver_since_ns = None

    def _enter(self, state: str, detail: str = "") -> None:
        self.status.state, self.status.detail = state, detail
        self._changed(self)
