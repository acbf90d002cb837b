"""The control socket: a ROUTER with a thread of its own. Who asks is known by key and noted.

    decode -> who and which role -> seen before? -> carry out -> audit -> answer

Reloading a plan takes seconds and has a thread of its own, so that a trigger never waits for it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq

from ..errors import SkrdError
from .clock import SYSTEM_CLOCK, Clock
from .control_port import ControlRefused, LineControl
from .control_wire import (
    CUT_OFF_BYTES,
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
    arguments_of,
    decode_request,
    encode_answer,
    may,
    op_of,
)
from .endpoints import bind_problem
from .fan_out import HEARTBEAT_OPTIONS
from .journal import Journal
from .key_files import allowed_keys
from .refusals import Refusals
from .wire_record import DecodeError

log = logging.getLogger(__name__)

_POLL_MS = 50
_REMEMBERED = 2000
"""Answers kept for requests that are repeated because their answer was lost."""
LOCAL = "local"
"""Who asks where no keys are used: whoever may open a socket on this computer."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who sent a request."""

    name: str
    role: str


class ControlServer:
    """Answers on `endpoint` until `close`. `open` raises NetworkError when it cannot be bound.

    `line` gives what to control, None while the line starts. `keys` is the folder of keys, None
    where the socket has none; then every asker is a local engineer.
    """

    def __init__(
        self,
        endpoint: str,
        line: Callable[[], LineControl | None],
        journal: Journal | None,
        *,
        box: str,
        boot: str,
        keys: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.endpoint = endpoint
        self.refusals = Refusals(journal, "control", clock)
        """Messages that were no requests."""
        self._line, self._journal, self._keys, self._clock = line, journal, keys, clock
        self._box, self._boot = box, boot
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._answered: OrderedDict[tuple[str, str], bytes | None] = OrderedDict()
        """None while a request is carried out."""
        self._done: queue.SimpleQueue[tuple[bytes, tuple[str, str], Answer]] = queue.SimpleQueue()
        self._reloading: threading.Thread | None = None

    def open(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        protect: Callable[[zmq.Socket[bytes]], None] | None = None,
    ) -> None:
        """Bind in `context`; `protect` puts keys on the socket."""
        socket = context.socket(zmq.ROUTER)
        for option, value in {
            **HEARTBEAT_OPTIONS,
            zmq.LINGER: 0,
            zmq.SNDHWM: 64,
            zmq.RCVHWM: 64,
            zmq.ROUTER_MANDATORY: 1,
            zmq.MAXMSGSIZE: CUT_OFF_BYTES,
        }.items():
            socket.setsockopt(option, value)
        if protect is not None:
            protect(socket)
        try:
            socket.bind(self.endpoint.removesuffix(":0") + ":*" * self.endpoint.endswith(":0"))
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise bind_problem(self.endpoint, error.errno or 0, error.strerror) from None
        self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(
            target=self._serve, args=(socket,), name="control", daemon=True
        )
        self._thread.start()
        log.info("control on %s", self.endpoint)

    def close(self) -> None:
        """Stop answering. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)
            self._thread = None

    # ---- the control thread ----------------------------------------------------------------

    def _serve(self, socket: zmq.Socket[bytes]) -> None:
        while not self._stop.is_set():
            if socket.poll(_POLL_MS):
                client, *frames = socket.recv_multipart(copy=False)
                answer = self._received(client.bytes, frames)
                if answer is not None:
                    _send(socket, client.bytes, answer)
            while not self._done.empty():
                client_id, key, late = self._done.get()
                _send(socket, client_id, self._remember(key, late))
        socket.close(linger=0)

    def _received(self, client: bytes, frames: list[zmq.Frame]) -> bytes | None:
        """The answer, or None when it comes later or the request was refused as not one."""
        who = self._asker(frames)
        try:
            request = decode_request([frame.bytes for frame in frames])
        except DecodeError as error:
            self.refusals.note(who.name, who.role, str(error))
            return encode_answer(self._answer("", "", ok=False, error=str(error)))
        key = (who.name, request.id)
        if key in self._answered:
            return self._answered[key]
        if not may(who.role, request):
            text = f"the role {who.role} may not ask for {op_of(request)}"
            return self._remember(key, self._concluded(request, who, error=text))
        self._answered[key] = None
        if isinstance(request, Reload | Rollback):
            self._reload(client, key, request, who)
            return None
        return self._remember(key, self._carry_out(request, who))

    def _asker(self, frames: list[zmq.Frame]) -> Asker:
        if self._keys is None:
            return Asker(LOCAL, "engineer")
        # The door (security.py) has told libzmq whose key this connection proved.
        name = str(frames[0].get("User-Id")) if frames else ""
        for key in allowed_keys(self._keys).values():
            if key.name == name:
                return Asker(name, key.role)
        return Asker(name or "unknown", "none")

    def _carry_out(self, request: Request, who: Asker) -> Answer:
        try:
            return self._concluded(request, who, found=self._do(request, who))
        except SkrdError as error:
            text = error.sentence + (f" ({error.hint})" if error.hint else "")
            return self._concluded(request, who, error=text)
        except Exception as error:
            # An operator's request must not end the control of a running line.
            log.exception("control: %s failed", op_of(request))
            return self._concluded(request, who, error=f"{type(error).__name__}: {error}")

    def _do(self, request: Request, who: Asker) -> dict[str, object]:
        if isinstance(request, Feedback):
            journal = self._needed_journal()
            journal.note_feedback(request.seq, request.truth, request.who or who.name, request.note)
            return {}
        if isinstance(request, Audit):
            reader = self._needed_journal().reader()
            try:
                rows = reader.audit(request.limit)
            finally:
                reader.close()
            return {"audit": tuple(AuditEntry(row.t_ns, *row[1:]) for row in rows)}
        line = self._line()
        if line is None:
            raise ControlRefused("the line is not running yet", "ask again when it is READY")
        if isinstance(request, Trigger):
            return {"trigger_seq": line.trigger(request.cam, request.part)}
        if isinstance(request, SetThreshold):
            by = request.who or who.name
            return {"revision": line.set_threshold(request.cam, request.region, request.value, by)}
        if isinstance(request, Reload):
            return {"plan": line.reload_plan(request.cam, request.plan)}
        if isinstance(request, Rollback):
            return {"plan": line.rollback_plan(request.cam)}
        if isinstance(request, Resync):
            line.resync(request.cam)
            return {}
        assert isinstance(request, Drain)
        line.drain()
        return {}

    def _reload(
        self, client: bytes, key: tuple[str, str], request: Reload | Rollback, who: Asker
    ) -> None:
        if self._reloading is not None and self._reloading.is_alive():
            text = "another plan is being loaded (ask again when it has ended)"
            self._done.put((client, key, self._concluded(request, who, error=text)))
            return

        def work() -> None:
            self._done.put((client, key, self._carry_out(request, who)))

        self._reloading = threading.Thread(target=work, name="reload", daemon=True)
        self._reloading.start()

    def _needed_journal(self) -> Journal:
        if self._journal is None:
            raise ControlRefused(
                "this line keeps no journal", "start it with --journal, or journal: in its station"
            )
        return self._journal

    def _concluded(
        self,
        request: Request,
        who: Asker,
        error: str = "",
        found: dict[str, object] | None = None,
    ) -> Answer:
        op, outcome = op_of(request), error or "done"
        if not isinstance(request, Audit) or error:
            text = arguments_of(request)
            # A trigger is a part, and a line has many a second; the audit list has all of them.
            level = logging.DEBUG if isinstance(request, Trigger) else logging.INFO
            log.log(level, "audit: %s (%s) %s %s: %s", who.name, who.role, op, text, outcome)
            self._note(who, op, text, outcome)
        return self._answer(request.id, op, ok=not error, error=error[:500], **(found or {}))

    def _note(self, who: Asker, op: str, arguments: str, outcome: str) -> None:
        if self._journal is not None:
            self._journal.note_audit(who.name, who.role, op, arguments[:2000], outcome[:500])

    def _answer(self, request_id: str, op: str, **found: object) -> Answer:
        return Answer(id=request_id, op=op, box=self._box, boot=self._boot, **found)  # type: ignore[arg-type]

    def _remember(self, key: tuple[str, str], answer: Answer) -> bytes:
        raw = encode_answer(answer)
        self._answered[key] = raw
        while len(self._answered) > _REMEMBERED:
            self._answered.popitem(last=False)
        return raw


def _send(socket: zmq.Socket[bytes], client: bytes, answer: bytes) -> None:
    try:
        socket.send_multipart([client, answer], flags=zmq.NOBLOCK)
    except zmq.ZMQError as error:
        # The client has gone or does not read; it may ask again with the same id.
        log.info("a control client did not take its answer: %s", error)
