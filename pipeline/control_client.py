"""Ask a running line for something: trigger, feedback, threshold, reload, resync, drain, audit.

A request that gets no answer is sent again with the same id, which the box carries out only once.
"""

from __future__ import annotations

import logging
import secrets
from types import TracebackType

import zmq

from ..errors import ConfigError, NetworkError
from .clock import SYSTEM_CLOCK, Clock
from .control_port import ControlRefused
from .control_wire import (
    Answer,
    Audit,
    AuditEntry,
    Drain,
    Feedback,
    Reload,
    Request,
    Resync,
    Rollback,
    SetThreshold,
    Trigger,
    Truth,
    decode_answer,
    encode_request,
)
from .fan_out import HEARTBEAT_OPTIONS
from .link import LinkWatch, unanswered
from .security import ClientKeys
from .wire_record import DecodeError

log = logging.getLogger(__name__)

_MAX_ANSWER = 1024 * 1024
_REPEAT_S = 2.0
RELOAD_PATIENCE_S = 120.0
"""A plan of hundreds of megabytes is read, opened and tried before it is taken."""


class ControlClient:
    """One DEALER; not thread-safe. Raises ConfigError for what is not an endpoint.

    Every method raises ControlRefused with the box's reason, and NetworkError when no answer came
    in `patience_s`.
    """

    def __init__(
        self,
        connect: str,
        keys: ClientKeys | None = None,
        *,
        patience_s: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.connect, self.patience_s = connect, patience_s
        self._clock = clock
        self._session = secrets.token_hex(8)
        self._number = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._with_keys = keys is not None
        self._link = LinkWatch(self._socket)
        for option, value in {
            **HEARTBEAT_OPTIONS,
            zmq.LINGER: 0,
            zmq.CONNECT_TIMEOUT: 1000,
            zmq.RECONNECT_IVL: 100,
            zmq.RECONNECT_IVL_MAX: 1000,
            zmq.MAXMSGSIZE: _MAX_ANSWER,
        }.items():
            self._socket.setsockopt(option, value)
        if keys is not None:
            keys.protect(self._socket)
        try:
            self._socket.connect(connect)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"{connect!r} cannot be connected to: {error.strerror}",
                "write it as tcp://HOST:PORT, for example tcp://127.0.0.1:5558",
            ) from None

    def trigger(self, part_id: str | None = None, camera: str = "") -> int:
        """Take a picture of this part now; the trigger's number."""
        answer = self.call(Trigger(id=self._next_id(), cam=camera, part=part_id))
        assert answer.trigger_seq is not None
        return answer.trigger_seq

    def feedback(self, seq: int, truth: Truth, who: str = "", note: str = "") -> None:
        """Say what the part of event `seq` really was."""
        self.call(Feedback(id=self._next_id(), seq=seq, truth=truth, who=who, note=note))

    def set_threshold(self, value: float, camera: str = "", region: str = "", who: str = "") -> int:
        """Judge by `value` from the next part on; the new revision."""
        answer = self.call(
            SetThreshold(id=self._next_id(), cam=camera, region=region, value=value, who=who)
        )
        assert answer.revision is not None
        return answer.revision

    def reload_plan(self, plan: str, camera: str = "") -> str:
        """Change to the plan in this file of the box; its digest."""
        answer = self.call(
            Reload(id=self._next_id(), cam=camera, plan=plan),
            max(self.patience_s, RELOAD_PATIENCE_S),
        )
        assert answer.plan is not None
        return answer.plan

    def rollback_plan(self, camera: str = "") -> str:
        """Back to the plan before the last change; its digest."""
        answer = self.call(
            Rollback(id=self._next_id(), cam=camera), max(self.patience_s, RELOAD_PATIENCE_S)
        )
        assert answer.plan is not None
        return answer.plan

    def resync(self, camera: str = "") -> None:
        """Pair triggers and frames anew."""
        self.call(Resync(id=self._next_id(), cam=camera))

    def drain(self) -> None:
        """Let the line finish and end."""
        self.call(Drain(id=self._next_id()))

    def audit(self, limit: int = 50) -> tuple[AuditEntry, ...]:
        """The newest entries of the audit list, newest first."""
        return self.call(Audit(id=self._next_id(), limit=limit)).audit

    def call(self, request: Request, patience_s: float | None = None) -> Answer:
        """Send until there is an answer to this request."""
        patience = self.patience_s if patience_s is None else patience_s
        deadline_ns = self._clock.mono_ns() + int(patience * 1e9)
        self._link.state()
        raw = encode_request(request)
        while (left_s := (deadline_ns - self._clock.mono_ns()) / 1e9) > 0:
            try:
                self._socket.send(raw, flags=zmq.NOBLOCK)
            except zmq.Again:
                log.info("%s does not take requests now", self.connect)
            answer = self._answer_to(request.id, min(left_s, _REPEAT_S))
            if answer is not None:
                if not answer.ok:
                    raise ControlRefused(f"{self.connect}: {answer.error}")
                return answer
        raise unanswered(self.connect, self._link.state(), patience, self._with_keys)

    def _answer_to(self, request_id: str, wait_s: float) -> Answer | None:
        deadline_ns = self._clock.mono_ns() + int(wait_s * 1e9)
        while self._socket.poll(max((deadline_ns - self._clock.mono_ns()) // 1_000_000, 0)):
            try:
                answer = decode_answer(self._socket.recv_multipart())
            except DecodeError as error:
                raise NetworkError(
                    f"{self.connect} does not speak our protocol: {error}", "check the port"
                ) from None
            # An answer without an id is to a request that was not understood: ours.
            if answer.id in (request_id, ""):
                return answer
        return None

    def _next_id(self) -> str:
        self._number += 1
        return f"{self._session}-{self._number}"

    def close(self) -> None:
        self._link.close()
        self._context.destroy(linger=0)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
