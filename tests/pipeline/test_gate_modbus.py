"""A gate on a coil of a real Modbus TCP server, cut off and back."""

from __future__ import annotations

import asyncio
import threading
from types import ModuleType

import pytest
from pymodbus.client import ModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from skrd4ad.pipeline.gate.modbus import ModbusGate
from skrd4ad.pipeline.gate.outputs import GateError, make_gate
from skrd4ad.pipeline.gate.settings import OutputSettings

COIL = 3
PATIENCE_S = 60.0


class Relays:
    """Sixteen coils on the network, in a thread."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()

        async def serve() -> None:
            coils = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
            words = [SimData(0, values=[0] * 16, datatype=DataType.REGISTERS)]
            self._server = ModbusTcpServer(
                SimDevice(1, simdata=(coils, coils, words, words)), address=("127.0.0.1", port)
            )
            await self._server.serve_forever(background=True)
            ready.set()

        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(serve(), self._loop)
        assert ready.wait(PATIENCE_S)

    def coil(self) -> bool:
        with ModbusTcpClient("127.0.0.1", port=self.port) as client:
            answer = client.read_coils(COIL, count=1)
            assert not answer.isError(), answer
            return bool(answer.bits[0])

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()


def test_a_coil_is_switched_and_a_lost_device_is_found_again(box_parts: ModuleType) -> None:
    port = box_parts.free_port()
    settings = OutputSettings(kind="modbus", host="127.0.0.1", port=port, coil=COIL)
    gate = make_gate(settings, "cam")
    assert isinstance(gate, ModbusGate)
    with pytest.raises(GateError, match="does not answer"):
        gate.open()
    relays = Relays(port)
    gate.open()
    for on in (True, False, True):
        gate.switch(on)
        assert relays.coil() is on
    relays.close()
    with pytest.raises(GateError):
        gate.switch(False)
    relays = Relays(port)
    gate.switch(True)
    assert relays.coil()
    gate.close()
    assert not relays.coil()
    missing = make_gate(
        OutputSettings(kind="modbus", host="127.0.0.1", port=port, coil=5000), "cam"
    )
    with pytest.raises(GateError, match="refuses coil 5000"):
        missing.open()
    relays.close()
