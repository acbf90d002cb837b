"""`gates:` of the station file: which output acts, how far behind the camera, and for how long."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ...errors import ConfigError

POSITIVE = Meta(gt=0)
NON_NEGATIVE = Meta(ge=0)
TOLERANCE_MS = 20.0
_NEEDED = {
    "log": (),
    "file": ("path",),
    "gpiod": ("chip", "line"),
    "jetson": ("pin",),
    "modbus": ("host", "coil"),
}
_EXTRA = {"gpiod": ("active_low",), "jetson": ("active_low",), "modbus": ("port", "unit")}


class OutputSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is switched."""

    kind: Literal["log", "file", "gpiod", "jetson", "modbus"]
    path: str | None = None
    """file: one JSON line per decision and per switching."""
    chip: str | None = None
    """gpiod: for example /dev/gpiochip0."""
    line: Annotated[int, NON_NEGATIVE] | None = None
    """gpiod: the line's offset on the chip."""
    pin: Annotated[int, NON_NEGATIVE] | None = None
    """jetson: the pin's number on the board's header."""
    active_low: bool = False
    host: str | None = None
    """modbus: name or address of a Modbus TCP device."""
    port: Annotated[int, Meta(ge=1, le=65535)] = 502
    unit: Annotated[int, Meta(ge=0, le=255)] = 1
    coil: Annotated[int, Meta(ge=0, le=65535)] | None = None


class EncoderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the belt's counts come from."""

    kind: Literal["file", "simulated"]
    path: str | None = None
    """file: holds the count as text, as Linux' counter devices do."""
    counts_per_s: Annotated[float, POSITIVE] | None = None
    """simulated: a belt that runs evenly."""
    bits: Annotated[int, Meta(ge=8, le=64)] = 32
    """After how many bits the counter begins at 0 again."""
    poll_ms: Annotated[float, Meta(ge=0.2, le=100)] = 1.0


class GateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gate behind one camera."""

    output: OutputSettings
    camera: str = ""
    """May be left out where there is only one."""
    delay_ms: Annotated[float, NON_NEGATIVE] | None = None
    """From the part's trigger (without triggers: its capture) to the gate, on a belt that runs
    evenly."""
    delay_counts: Annotated[float, NON_NEGATIVE] | None = None
    """The same in counts of `encoder`; then counts decide and time does not."""
    encoder: EncoderSettings | None = None
    tolerance_ms: Annotated[float, POSITIVE] | None = None
    """Up to so much late the output still meets its part; later it would hit another one."""
    tolerance_counts: Annotated[float, POSITIVE] | None = None
    pulse_ms: Annotated[float, POSITIVE] = 50.0
    max_on_ms: Annotated[float, POSITIVE] = 1000.0
    """The output is switched off after so long, whatever is asked of it."""
    fires_on: Literal["reject", "pass"] = "reject"
    """`pass`: it opens for good parts only, so that without power or program nothing passes."""
    on_review: Literal["reject", "pass"] = "reject"
    dry_run: bool = False
    """Decide and report, but never switch."""

    @property
    def delay(self) -> float:
        """In nanoseconds, or in counts when the encoder decides."""
        if self.delay_counts is not None:
            return self.delay_counts
        assert self.delay_ms is not None
        return self.delay_ms * 1e6

    @property
    def tolerance(self) -> float:
        """In the unit of `delay`."""
        if self.delay_counts is not None:
            assert self.tolerance_counts is not None
            return self.tolerance_counts
        return (self.tolerance_ms or TOLERANCE_MS) * 1e6


def check_gate(gate: GateSettings, cameras: tuple[str, ...]) -> str:
    """The camera the gate stands behind. Raises ConfigError where settings contradict."""
    name = gate.camera or (cameras[0] if len(cameras) == 1 else "")
    if name not in cameras:
        what = f"there is no camera '{name}'" if name else "it names no camera"
        raise ConfigError(f"gates: {what}", f"camera: one of {', '.join(cameras)}")
    where = f"the gate behind {name}"
    if (gate.delay_ms is None) == (gate.delay_counts is None):
        raise ConfigError(f"{where} needs either delay_ms or delay_counts")
    if gate.delay_counts is not None:
        if gate.encoder is None or gate.tolerance_counts is None:
            raise ConfigError(f"{where}: delay_counts needs encoder and tolerance_counts")
        if gate.tolerance_ms is not None:
            raise ConfigError(f"{where}: with delay_counts the tolerance is in counts too")
    elif gate.encoder is not None or gate.tolerance_counts is not None:
        raise ConfigError(f"{where}: encoder and tolerance_counts go with delay_counts")
    if gate.max_on_ms < gate.pulse_ms:
        raise ConfigError(f"{where}: max_on_ms is shorter than one pulse")
    _check_output(where, gate.output)
    if gate.encoder is not None:
        needed = "path" if gate.encoder.kind == "file" else "counts_per_s"
        if getattr(gate.encoder, needed) is None:
            raise ConfigError(f"{where}: an encoder of kind {gate.encoder.kind} needs {needed}")
    return name


def _check_output(where: str, output: OutputSettings) -> None:
    needed = _NEEDED[output.kind]
    for key in needed:
        if getattr(output, key) is None:
            raise ConfigError(f"{where}: an output of kind {output.kind} needs {key}")
    allowed = {"kind", *needed, *_EXTRA.get(output.kind, ())}
    plain = OutputSettings(kind=output.kind)
    for key in OutputSettings.__struct_fields__:
        if key not in allowed and getattr(output, key) != getattr(plain, key):
            raise ConfigError(f"{where}: an output of kind {output.kind} has no {key}")
