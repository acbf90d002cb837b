"""One camera's thread: open, configure, grab, stamp, admit; and open again when a read failed.

A live camera is reopened in full (new handle, settings applied and read back) for as long as the
line runs. A folder or video that fails cannot be resumed without repeating parts, so it ends the
line instead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import CameraError
from ..admission import Admission
from ..clock import Clock
from ..wire_messages import CameraFields
from .backoff import Backoff
from .base import EndOfStream, Shot, Source, frame_of

log = logging.getLogger(__name__)
GRAB_TIMEOUT_S = 0.1
"""How long a grab or an admission may wait before the thread looks whether it shall stop."""


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


class Camera:
    """A named source and its thread. `changed` is called after every change of state."""

    def __init__(
        self,
        name: str,
        source: Source,
        admission: Admission,
        clock: Clock,
        changed: Callable[[Camera], None],
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self.status = CameraStatus()
        self.failure: Exception | None = None
        self._source = source
        self._admission = admission
        self._clock = clock
        self._changed = changed
        self._backoff = backoff or Backoff()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)

    def open(self) -> None:
        """First opening, in the caller's thread, so that a missing camera ends the command."""
        try:
            self._open()
        except BaseException:
            self._source.close()
            raise

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """True when the thread has ended (or never began)."""
        if self._thread.ident is None:
            self._source.close()
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def finished(self) -> bool:
        return self.status.state in ("ended", "failed", "stopped")

    def fields(self, now_mono_ns: int) -> CameraFields:
        """This camera in the heartbeat."""
        status = self.status
        last = status.last_frame_mono_ns
        return CameraFields(
            state=status.state,
            admitted=status.admitted,
            reconnects=status.reconnects,
            last_age_ms=None if last is None else max(0, now_mono_ns - last) // 1_000_000,
            detail=status.detail,
        )

    def _run(self) -> None:
        state = "stopped"
        try:
            while not self._stop.is_set() and not self._admission.closed:
                try:
                    shot = self._source.grab(GRAB_TIMEOUT_S)
                except CameraError as error:
                    if not self._source.live:
                        raise
                    self._reopen(error)
                    continue
                if shot is not None:
                    self._admit(shot)
        except EndOfStream:
            state = "ended"
        except Exception as error:
            state, self.failure = "failed", error
        finally:
            self._source.close()
            self._enter(state)

    def _admit(self, shot: Shot) -> None:
        status = self.status
        status.last_frame_mono_ns = shot.captured_mono_ns
        frame = frame_of(shot, self.name, status.admitted + 1)
        while not self._admission.admit(frame, GRAB_TIMEOUT_S):
            if self._stop.is_set() or self._admission.closed:
                return
        status.admitted += 1

    def _open(self) -> None:
        self._source.open()
        self._source.configure()
        self.status.opened_mono_ns = self._clock.mono_ns()
        self._enter("running")

    def _reopen(self, error: CameraError) -> None:
        """Close, wait, open, configure until it works or the line stops."""
        while not self._stop.is_set():
            self._source.close()
            ran_s = (self._clock.mono_ns() - self.status.opened_mono_ns) / 1e9
            wait_s = self._backoff.wait_s(ran_s if self.status.state == "running" else 0.0)
            log.warning("camera %s: %s; opening again in %.2f s", self.name, error, wait_s)
            self._enter("reopening", error.sentence)
            if self._stop.wait(wait_s):
                return
            try:
                self._open()
            except CameraError as again:
                error = again
            else:
                self.status.reconnects += 1
                log.info("camera %s is back", self.name)
                return

    def _enter(self, state: str, detail: str = "") -> None:
        self.status.state, self.status.detail = state, detail
        self._changed(self)
