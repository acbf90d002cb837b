"""Where the belt is: encoder counts, and the count at an instant that has passed.

A picture is announced some milliseconds after it was taken, so the gate keeps the counts of the
last seconds and looks up where the belt was then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from pathlib import Path
from typing import Protocol

from ...errors import ConfigError
from ..clock import Clock
from .settings import EncoderSettings

HISTORY_NS = 10_000_000_000


class Encoder(Protocol):
    """All calls come from the gate's thread."""

    def open(self) -> None:
        """Raises ConfigError when there is none."""

    def count(self) -> int:
        """The counter as it is; it may begin at 0 again. Raises OSError or ValueError."""

    def close(self) -> None: ...


class SimulatedEncoder:
    """A belt that runs evenly, for trials without one."""

    def __init__(self, counts_per_s: float, clock: Clock) -> None:
        self._rate, self._clock = counts_per_s, clock
        self._began_ns = clock.mono_ns()

    def open(self) -> None:
        self._began_ns = self._clock.mono_ns()

    def count(self) -> int:
        return int((self._clock.mono_ns() - self._began_ns) * self._rate / 1e9)

    def close(self) -> None: ...


class FileEncoder:
    """The count as text in a file: /sys/bus/counter/devices/counter0/count0/count, for example."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> None:
        try:
            self.count()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"the encoder {self._path} cannot be read: {error}",
                "it must hold the count as a decimal number",
            ) from None

    def count(self) -> int:
        return int(self._path.read_text(encoding="ascii"))

    def close(self) -> None: ...


def open_encoder(settings: EncoderSettings, clock: Clock) -> Encoder:
    """The encoder of these (checked) settings, opened. Raises ConfigError."""
    encoder: Encoder
    if settings.kind == "file":
        assert settings.path is not None
        encoder = FileEncoder(Path(settings.path))
    else:
        assert settings.counts_per_s is not None
        encoder = SimulatedEncoder(settings.counts_per_s, clock)
    encoder.open()
    return encoder


class EncoderTrack:
    """The belt's way: counts without the jumps of a counter that begins at 0 again."""

    def __init__(self, bits: int = 32) -> None:
        self._modulus = 1 << bits
        self._last_raw: int | None = None
        self._position = 0
        self._times: deque[int] = deque()
        self._counts: deque[int] = deque()

    def see(self, now_ns: int, raw: int) -> int:
        """The counter reads `raw` now; counts since the first one seen, smaller again when the
        belt runs backwards."""
        if self._last_raw is not None:
            step = (raw - self._last_raw) % self._modulus
            self._position += step if step < self._modulus // 2 else step - self._modulus
        self._last_raw = raw
        self._times.append(now_ns)
        self._counts.append(self._position)
        while self._times[0] < now_ns - HISTORY_NS:
            self._times.popleft()
            self._counts.popleft()
        return self._position

    def at(self, instant_ns: int) -> float | None:
        """Where the belt was, between two readings on a straight line; None: not remembered."""
        if not self._times or instant_ns < self._times[0]:
            return None
        index = bisect_right(self._times, instant_ns)
        if index == len(self._times):
            return float(self._counts[-1])
        before_ns, after_ns = self._times[index - 1], self._times[index]
        share = (instant_ns - before_ns) / (after_ns - before_ns)
        return self._counts[index - 1] + share * (self._counts[index] - self._counts[index - 1])
