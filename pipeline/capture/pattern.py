"""`test:` - rendered parts with known truth, for demonstrations, tests and dry runs of a line.

A bank of parts is rendered at open; the sequence draws from it, so that a soak of a million parts
costs the memory of a few dozen. The same seed gives the same sequence.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ..clock import SYSTEM_CLOCK, Clock
from ..records import Part
from .barcode import WIDTH_PX, draw
from .base import EndOfStream, Shot
from .pace import Pace


@dataclass(frozen=True, slots=True, eq=False)
class _Rendered:
    pixels: NDArray[np.uint8]
    truth: str


class PatternSource:
    """`defect` is the share of defective parts, `bank` how many parts are rendered of each kind.

    `rate` in parts a second (None: as fast as they are taken), `count` parts in all (None: without
    end), `size` in pixels a side. `barcode` draws the clock
    of barcode.py into the upper left corner, by which anybody can tell how old a picture is.
    """

    live = False

    def __init__(
        self,
        clock: Clock = SYSTEM_CLOCK,
        seed: int = 1,
        defect: float = 0.1,
        rate: float | None = None,
        count: int | None = None,
        size: int = 256,
        bank: int = 32,
        barcode: bool = False,
    ) -> None:
        if barcode and size < WIDTH_PX:
            raise ConfigError(f"the barcode clock needs {WIDTH_PX} pixels", f"size={WIDTH_PX}")
        self._clock = clock
        self._seed = seed
        self._defect = defect
        self._count = count
        self._size = size
        self._bank = bank
        self._barcode = barcode
        self._pace = Pace(rate, clock)
        self._good: list[_Rendered] = []
        self._defective: list[_Rendered] = []
        self._random = np.random.default_rng(seed)
        self._number = 0

    def open(self) -> None:
        from ...trainer.synthetic import DEFECTS, render_part

        def rendered(offset: int, kind: str) -> _Rendered:
            part = render_part(self._seed * 100_003 + offset, kind, self._size)
            part.pixels.setflags(write=False)  # shared by every frame that shows it
            return _Rendered(part.pixels, kind)

        if not self._good and self._defect < 1:
            self._good = [rendered(n, "good") for n in range(self._bank)]
        if not self._defective and self._defect > 0:
            kinds = [DEFECTS[n % len(DEFECTS)] for n in range(self._bank)]
            self._defective = [rendered(50_000 + n, kind) for n, kind in enumerate(kinds)]

    def configure(self) -> None:
        self._pace.restart()

    def grab(self, timeout_s: float) -> Shot | None:
        wait_s = self._pace.wait_s()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
            if wait_s > timeout_s:
                return None
        if self._count is not None and self._number >= self._count:
            raise EndOfStream
        self._pace.advance()
        self._number += 1
        defective = self._random.random() < self._defect
        choice = int(self._random.integers(self._bank))
        part = (self._defective if defective else self._good)[choice]
        pixels, now_ns = part.pixels, self._clock.mono_ns()
        if self._barcode:
            pixels = pixels.copy()
            draw(pixels, now_ns // 1_000_000, self._number)
        return Shot(
            pixels=pixels,
            captured_ns=self._clock.wall_ns(),
            captured_mono_ns=now_ns,
            captured_source="device",
            frame_id=self._number,
            part=Part(
                part_id=f"{self._seed}-{self._number}",
                trigger_seq=self._number,
                source="test",
                match="exact",
            ),
            simulated=True,
            truth=part.truth,
        )

    def close(self) -> None:
        """Nothing is held but the bank, which a reopen uses again."""
