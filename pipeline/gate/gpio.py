"""Digital outputs of the box: `gpiod` (Linux' character device) and `jetson` (Jetson.GPIO).

Written after the packages' documentation; run on no board so far (docs/gate.md). gpiod has been
opened against its real package up to the missing chip.
"""

from __future__ import annotations

from typing import Any

from ...errors import ConfigError, MissingExtra
from .fifo import Decision
from .outputs import GateError


class GpiodGate:
    """One line of a GPIO chip. The kernel takes it back when the process ends, however it ends."""

    def __init__(self, chip: str, line: int, active_low: bool) -> None:
        self._chip, self._line, self._active_low = chip, line, active_low
        self._gpiod: Any = None
        self._request: Any = None

    def open(self) -> None:
        try:
            import gpiod
        except ImportError:
            raise MissingExtra("gpiod", "gate", "a gate output of kind gpiod") from None
        self._gpiod = gpiod
        try:
            self._request = gpiod.request_lines(
                self._chip,
                consumer="skrd4ad gate",
                config={
                    self._line: gpiod.LineSettings(
                        direction=gpiod.line.Direction.OUTPUT,
                        output_value=gpiod.line.Value.INACTIVE,
                        active_low=self._active_low,
                    )
                },
            )
        except (OSError, ValueError) as error:
            raise GateError(
                f"line {self._line} of {self._chip} cannot be used: {error}",
                "gpioinfo lists chips and lines; the user must be in the group gpio",
            ) from None

    def switch(self, on: bool) -> None:
        value = self._gpiod.line.Value
        try:
            self._request.set_value(self._line, value.ACTIVE if on else value.INACTIVE)
        except (OSError, ValueError) as error:
            raise GateError(
                f"line {self._line} of {self._chip} cannot be switched: {error}"
            ) from None

    def note(self, decision: Decision, now_ns: int) -> None: ...

    def close(self) -> None:
        if self._request is not None:
            self.switch(False)
            self._request.release()
            self._request = None


class JetsonGate:
    """One pin of a Jetson's header, by its number on the board."""

    def __init__(self, pin: int, active_low: bool) -> None:
        self._pin, self._active_low = pin, active_low
        self._gpio: Any = None

    def open(self) -> None:
        try:
            import Jetson.GPIO as GPIO
        except ImportError:
            raise ConfigError(
                "a gate output of kind jetson needs the package 'Jetson.GPIO'",
                "on the Jetson: pip install Jetson.GPIO",
            ) from None
        except Exception as error:
            # The package refuses computers that are no Jetson with classes of its own.
            raise GateError(f"Jetson.GPIO does not work on this computer: {error}") from None
        try:
            GPIO.setmode(GPIO.BOARD)
            GPIO.setup(self._pin, GPIO.OUT, initial=self._level(GPIO, on=False))
        except Exception as error:
            raise GateError(f"pin {self._pin} cannot be used: {error}") from None
        self._gpio = GPIO

    def switch(self, on: bool) -> None:
        try:
            self._gpio.output(self._pin, self._level(self._gpio, on))
        except Exception as error:
            raise GateError(f"pin {self._pin} cannot be switched: {error}") from None

    def note(self, decision: Decision, now_ns: int) -> None: ...

    def close(self) -> None:
        if self._gpio is not None:
            self.switch(False)
            self._gpio.cleanup(self._pin)
            self._gpio = None

    def _level(self, gpio: Any, on: bool) -> Any:
        return gpio.HIGH if on != self._active_low else gpio.LOW
