"""The bridge for plain PLCs: a Modbus TCP server whose registers are computed when they are read.

Nothing is cached: a bridge that hangs answers nothing, and one that hears nothing answers "not
valid, reject". The only thing a PLC may write is coil 8: it acknowledges lost events.
"""

from __future__ import annotations

import logging

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from ..clock import SYSTEM_CLOCK, Clock
from ..subscriber import Replayed
from ..wire import AlarmMessage
from .feed import Entry, Feed, View
from .loop import LoopThread
from .modbus_block import BLOCK_BITS, BLOCK_REGISTERS, Arrived, bits, registers, words_of
from .uplink import UplinkLost

log = logging.getLogger(__name__)
ACKNOWLEDGE_COIL = 8
_READ_REGISTERS = (3, 4)
_WRITE_COILS = (5, 15)
_LIMIT_S = 5.0


class ModbusUplink:
    """See uplink.Uplink. `cameras` fixes the order of the blocks; without it one block has the
    newest result of whatever camera."""

    needs_box = False

    def __init__(
        self,
        host: str,
        port: int,
        feed: Feed,
        cameras: tuple[str, ...] = (),
        max_result_age_s: float = 10.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = f"modbus at {host}:{port}"
        self._address = (host, port)
        self._feed = feed
        self._clock = clock
        self._max_age_ns = int(max_result_age_s * 1e9)
        self._cameras = cameras
        self._newest: dict[str, Arrived] = {}
        self._loop: LoopThread | None = None
        self._server: ModbusTcpServer | None = None

    def open(self, view: View) -> None:
        self._loop = LoopThread("modbus")
        try:
            self._loop.run(self._serve(), _LIMIT_S)
        except (OSError, RuntimeError) as error:
            raise UplinkLost(f"{self._address[0]}:{self._address[1]}: {error}") from None

    def send(self, entry: Entry) -> None:
        # A part whose result was fetched later has passed: a PLC must not see it.
        if not isinstance(entry, Replayed | AlarmMessage):
            camera = entry.header.cam if self._cameras else ""
            self._newest[camera] = Arrived(entry, self._clock.mono_ns())

    def tick(self, view: View, dropped: int) -> None:
        if self._server is None or self._server.transport is None:
            raise UplinkLost("the server's socket is closed")

    def undelivered(self) -> list[Entry]:
        return []

    def close(self) -> None:
        loop, server = self._loop, self._server
        self._loop = self._server = None
        if loop is not None:
            loop.close(None if server is None else _shut_down(server), _LIMIT_S)

    async def _serve(self) -> None:
        blocks = 1 + max(len(self._cameras), 1)
        words, lines = blocks * BLOCK_REGISTERS, blocks * BLOCK_BITS
        on_or_off = [SimData(0, values=[False] * lines, datatype=DataType.BITS)]
        numbers = [SimData(0, values=[0] * words, datatype=DataType.REGISTERS)]
        device = SimDevice(
            id=0, simdata=(on_or_off, on_or_off, numbers, numbers), action=self._answer
        )
        server = ModbusTcpServer(device, address=self._address)
        await server.serve_forever(background=True)
        self._server = server

    async def _answer(
        self,
        function: int,
        start: int,
        address: int,
        count: int,
        current: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Fill `current` with the truth of this instant; refuse every write but the one coil."""
        if values is not None:
            if function in _WRITE_COILS and address == ACKNOWLEDGE_COIL and list(values) == [True]:
                log.info("a PLC acknowledged the lost events")
                self._feed.acknowledge_losses()
                return None
            return ExcCodes.ILLEGAL_ADDRESS
        view, now_ns = self._feed.view(), self._clock.mono_ns()
        results = [self._newest.get(name) for name in self._cameras or ("",)]
        if function in _READ_REGISTERS:
            words = registers(view, results, now_ns, self._max_age_ns)
        else:
            lines = bits(view, results, now_ns, self._max_age_ns)
            if function in _WRITE_COILS:
                # The answer to a write repeats what was written.
                lines[ACKNOWLEDGE_COIL] = True
            words = words_of(lines)
        current[: len(words)] = words
        return None


async def _shut_down(server: ModbusTcpServer) -> None:
    await server.shutdown()  # type: ignore[no-untyped-call]  # the package leaves it untyped
