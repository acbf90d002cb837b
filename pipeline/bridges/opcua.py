"""The bridge for MES and SCADA: an OPC UA server named as in Machinery Result (OPC 40001-101).

    Objects/Machines/<box>                     State, Online, Act, counters, alarms
    Objects/Machines/<box>/Results/<camera>    ResultMetaData and ResultContent of the newest result

Each result is also an event of the type ResultReadyEventType, so that none is missed between two
samples. The names follow the companion specification; its types are not instantiated. Clients may
read, subscribe and call AcknowledgeLosses, nothing else. A publishing interval lies between: not
for a reject gate.
"""

from __future__ import annotations

import datetime
import logging
import socket
from collections.abc import Callable
from typing import Any

from asyncua import Node, Server, ua
from asyncua.crypto.permission_rules import SimpleRoleRuleset, User, UserRole
from asyncua.server.event_generator import EventGenerator

from ..clock import SYSTEM_CLOCK, Clock
from ..subscriber import Replayed
from ..wire import ResultMessage
from .feed import Entry, View
from .loop import LoopThread
from .opcua_values import EVENT_FIELDS, MACHINE, RESULT, Typed, machine_values, result_values
from .uplink import UplinkLost

log = logging.getLogger(__name__)
NAMESPACE = "urn:skrd4ad:results:1"
_START_LIMIT_S = 30.0
_LIMIT_S = 5.0
_TICK_NS = 500_000_000


class OpcUaUplink:
    """See uplink.Uplink."""

    needs_box = True

    def __init__(
        self,
        host: str,
        port: int,
        acknowledge: Callable[[], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._address = (host, port)
        self.endpoint = f"opc.tcp://{host}:{port}/skrd4ad"
        self.name = f"opcua at {self.endpoint}"
        self._acknowledge = acknowledge
        self._clock = clock
        self._box = ""
        self._loop: LoopThread | None = None
        self._server: Server | None = None
        self._machine: Node | None = None
        self._results: Node | None = None
        self._events: EventGenerator | None = None
        self._cameras: set[str] = set()
        self._namespace = 0
        self._stale = False
        self._next_tick_ns = 0
        self._alive = 0

    def open(self, view: View) -> None:
        self._box = view.box
        self._cameras.clear()
        self._stale, self._next_tick_ns = False, 0
        self._loop = LoopThread("opcua")
        try:
            # The server needs seconds to build its address space: first see whether it may listen.
            socket.create_server(self._address).close()
            self._loop.run(self._start(), _START_LIMIT_S)
        except (OSError, ua.UaError) as error:
            raise UplinkLost(f"{self.endpoint}: {error}") from None

    def send(self, entry: Entry) -> None:
        self._run(self._write(entry))

    def tick(self, view: View, dropped: int) -> None:
        now_ns = self._clock.mono_ns()
        heard = view.heard(now_ns)
        if now_ns < self._next_tick_ns and heard != self._stale:
            return
        self._next_tick_ns = now_ns + _TICK_NS
        self._alive += 1
        self._run(self._write_machine(view, now_ns, dropped))
        if not heard and not self._stale:
            self._run(self._mark_stale())
        self._stale = not heard

    def undelivered(self) -> list[Entry]:
        return []

    def close(self) -> None:
        loop, server = self._loop, self._server
        self._loop = self._server = None
        if loop is not None:
            loop.close(None if server is None else server.stop(), _LIMIT_S)

    def _run(self, job: Any) -> None:
        assert self._loop is not None, "open() comes first"
        try:
            self._loop.run(job, _LIMIT_S)
        except (OSError, ua.UaError) as error:
            raise UplinkLost(f"{self.endpoint}: {error}") from None

    # ---- on the loop's thread ---------------------------------------------------------------

    async def _start(self) -> None:
        server = Server(user_manager=_Readers())
        await server.init()
        server.set_endpoint(self.endpoint)
        server.set_server_name(f"skrd4ad {self._box}")
        server.set_security_policy(
            [ua.SecurityPolicyType.NoSecurity], permission_ruleset=SimpleRoleRuleset()
        )
        index = self._namespace = await server.register_namespace(NAMESPACE)
        machines = await server.nodes.objects.add_folder(
            ua.NodeId("Machines", index), ua.QualifiedName("Machines", index)
        )
        self._machine = await self._object(machines, self._box)
        for name, typed in MACHINE.items():
            await self._variable(self._machine, self._box, name, typed)
        await self._machine.add_method(
            ua.NodeId(f"{self._box}.AcknowledgeLosses", index),
            ua.QualifiedName("AcknowledgeLosses", index),
            self._on_acknowledge,
        )
        self._results = await self._object(self._machine, f"{self._box}.Results")
        event_type = await server.create_custom_event_type(
            index,
            "ResultReadyEventType",
            ua.ObjectIds.BaseEventType,
            [(name, RESULT[name].kind) for name in EVENT_FIELDS]
            + [("Camera", ua.VariantType.String), ("Replayed", ua.VariantType.Boolean)],
        )
        self._events = await server.get_event_generator(event_type, self._machine)
        await server.start()
        self._server = server

    def _on_acknowledge(self, parent: ua.NodeId) -> list[ua.Variant]:
        log.info("an OPC UA client acknowledged the lost events")
        self._acknowledge()
        return []

    async def _object(self, parent: Node, path: str) -> Node:
        name = path.rpartition(".")[2]
        return await parent.add_object(
            ua.NodeId(path, self._namespace), ua.QualifiedName(name, self._namespace)
        )

    async def _variable(self, parent: Node, path: str, name: str, typed: Typed) -> None:
        await parent.add_variable(
            ua.NodeId(f"{path}.{name}", self._namespace),
            ua.QualifiedName(name, self._namespace),
            typed.first,
            typed.kind,
        )

    async def _add_camera(self, camera: str) -> None:
        assert self._results is not None, "_start comes first"
        top = f"{self._box}.Results.{camera}"
        node = await self._object(self._results, top)
        groups: dict[str, Node] = {}
        for name, typed in RESULT.items():
            if typed.group not in groups:
                groups[typed.group] = await self._object(node, f"{top}.{typed.group}")
            await self._variable(groups[typed.group], f"{top}.{typed.group}", name, typed)
        self._cameras.add(camera)

    async def _write(self, entry: Entry) -> None:
        message = entry.message if isinstance(entry, Replayed) else entry
        if not isinstance(message, ResultMessage):
            # Alarms show in ActiveAlarms of the machine.
            return
        camera = message.header.cam
        values = result_values(message)
        if camera not in self._cameras:
            await self._add_camera(camera)
        replayed = isinstance(entry, Replayed)
        if not replayed:
            # A result that was fetched later is history: the newest one stays in the nodes.
            top = f"{self._box}.Results.{camera}"
            for name, value in values.items():
                await self._set(f"{top}.{RESULT[name].group}.{name}", value, RESULT[name].kind)
        assert self._events is not None, "_start comes first"
        for name in EVENT_FIELDS:
            setattr(self._events.event, name, values[name])
        self._events.event.Camera = camera
        self._events.event.Replayed = replayed
        await self._events.trigger(message=f"{camera} {values['Verdict']}")

    async def _write_machine(self, view: View, now_ns: int, dropped: int) -> None:
        for name, value in machine_values(view, now_ns, dropped, self._alive).items():
            await self._set(f"{self._box}.{name}", value, MACHINE[name].kind)

    async def _mark_stale(self) -> None:
        """Results of a silent box keep their values and lose their quality."""
        assert self._server is not None, "_start comes first"
        for camera in self._cameras:
            for name, typed in RESULT.items():
                path = f"{self._box}.Results.{camera}.{typed.group}.{name}"
                node = self._server.get_node(ua.NodeId(path, self._namespace))
                value = await node.read_value()
                await self._set(path, value, typed.kind, ua.StatusCodes.UncertainLastUsableValue)

    async def _set(
        self, path: str, value: Any, kind: ua.VariantType, status: int = ua.StatusCodes.Good
    ) -> None:
        assert self._server is not None, "_start comes first"
        await self._server.write_attribute_value(
            ua.NodeId(path, self._namespace),
            ua.DataValue(
                Value=ua.Variant(value, kind),
                StatusCode=ua.StatusCode(status),
                SourceTimestamp=datetime.datetime.now(datetime.timezone.utc),
            ),
        )


class _Readers:
    """Whoever comes may read. The package's own default makes everybody called "admin" one."""

    def get_user(
        self,
        iserver: Any,
        username: str | None = None,
        password: str | None = None,
        certificate: Any = None,
    ) -> User:
        return User(role=UserRole.User, name=username)
