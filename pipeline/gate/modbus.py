"""A coil of a Modbus TCP device: relays and remote outputs on the plant's network.

A write takes milliseconds and the network may add some, so give it a tolerance that allows for
it. A coil keeps its state when this program dies: use a device that drops its outputs when nobody
writes for a while.
"""

from __future__ import annotations

from typing import Any

from ...errors import MissingExtra
from .fifo import Decision
from .outputs import GateError

TIMEOUT_S = 0.2


class ModbusGate:
    """One coil; a broken connection is opened again at the next switching."""

    def __init__(self, host: str, port: int, unit: int, coil: int) -> None:
        self._host, self._port, self._unit, self._coil = host, port, unit, coil
        self._client: Any = None

    def open(self) -> None:
        try:
            from pymodbus.client import ModbusTcpClient
        except ImportError:
            raise MissingExtra("pymodbus", "bridges", "a gate output of kind modbus") from None
        self._client = ModbusTcpClient(self._host, port=self._port, timeout=TIMEOUT_S, retries=0)
        self.switch(False)

    def switch(self, on: bool) -> None:
        from pymodbus.exceptions import ModbusException

        try:
            if not self._client.connected and not self._client.connect():
                raise GateError(
                    f"the Modbus device {self._host}:{self._port} does not answer",
                    "check address, port and cable",
                )
            answer = self._client.write_coil(self._coil, on, device_id=self._unit)
        except (ModbusException, OSError) as error:
            self._client.close()
            raise GateError(
                f"coil {self._coil} of {self._host}:{self._port} cannot be switched: {error}"
            ) from None
        if answer.isError():
            raise GateError(f"{self._host}:{self._port} refuses coil {self._coil}: {answer}")

    def note(self, decision: Decision, now_ns: int) -> None: ...

    def close(self) -> None:
        if self._client is not None:
            try:
                self.switch(False)
            finally:
                self._client.close()
                self._client = None
