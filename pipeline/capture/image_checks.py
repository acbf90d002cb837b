"""What a live camera's pictures must not do: repeat, change size or colours, or go blind.

A repeated picture or another size is no picture of the part: it is not judged, and the camera is
opened anew. Swapped colours (a driver that came back with blue first) and pictures without content
(cap on, light off, overexposed) are alarms; the network judges them, and does not pass them either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..clock import SYSTEM_CLOCK, Clock
from .frozen import FrozenCheck

FROZEN, WRONG_SIZE = "frozen", "wrong_size"
CHANGED, BLIND, STALE = "camera_changed", "camera_blind", "camera_stale"
_LEARN_FRAMES = 20
_LOOK_EVERY_NS = 500_000_000
_LOOKS = 3
"""So many looks in a row raise or end "camera_blind": one picture may be odd."""
_BLACK, _WHITE, _FLAT = 16.0, 245.0, 2.0
_COLOUR_STEP = 10.0
"""Grey levels that red and blue must differ by to tell which is which."""


class ImageChecks:
    """One camera's pictures, in order; `frozen_after` equal ones in a row are frozen (0: off)."""

    def __init__(self, frozen_after: int, clock: Clock = SYSTEM_CLOCK) -> None:
        self.alarms: dict[str, str] = {}
        """Active alarms: name to text."""
        self._clock = clock
        self._frozen = FrozenCheck(frozen_after)
        self._size: tuple[int, int] | None = None
        self._colours = np.zeros(3)
        self._learnt = 0
        self._compare_colours = False
        self._last_look_ns: int | None = None
        self._odd = 0

    def reopened(self) -> None:
        """The camera was opened again: its next picture is compared with those of before."""
        self._compare_colours = self._learnt > 0

    def fault(self, pixels: NDArray[np.uint8]) -> tuple[str, str] | None:
        """(reason, sentence) when this picture must not be judged, else None.

        `pixels` (height, width, 3) RGB. `alarms` follows what is seen.
        """
        size = (pixels.shape[1], pixels.shape[0])
        if self._size is None:
            self._size = size
        if size != self._size:
            was = f"{self._size[0]} x {self._size[1]}"
            return WRONG_SIZE, f"delivers {size[0]} x {size[1]} pixels now, it was {was}"
        if self._frozen.is_frozen(pixels):
            return FROZEN, f"is frozen: {self._frozen.repeats} equal images in a row"
        now_ns = self._clock.mono_ns()
        if self._learnt < _LEARN_FRAMES or self._compare_colours:
            self._see_colours(pixels)
        if self._last_look_ns is None or now_ns - self._last_look_ns >= _LOOK_EVERY_NS:
            self._last_look_ns = now_ns
            self._look(pixels)
        return None

    def _see_colours(self, pixels: NDArray[np.uint8]) -> None:
        colours = pixels[::8, ::8].reshape(-1, 3).mean(axis=0)
        if self._compare_colours:
            self._compare_colours = False
            usual, swapped = self._colours, self._colours[::-1]
            told_apart = abs(usual[0] - usual[2]) > _COLOUR_STEP
            nearer = np.abs(colours - swapped).sum() < np.abs(colours - usual).sum()
            text = "red and blue have changed places since it was opened again"
            self._set(CHANGED, text if told_apart and nearer else "")
        if self._learnt < _LEARN_FRAMES:
            self._learnt += 1
            self._colours += (colours - self._colours) / self._learnt

    def _look(self, pixels: NDArray[np.uint8]) -> None:
        grey = pixels[::4, ::4, 1]
        low, high = np.percentile(grey, (1, 99))
        if high < _BLACK:
            text = "its pictures are black (light, cap, exposure?)"
        elif low > _WHITE:
            text = "its pictures are white (overexposed?)"
        elif float(grey.std()) < _FLAT:
            text = "its pictures show nothing (focus, cap, fog?)"
        else:
            text = ""
        is_odd = bool(text)
        if is_odd == (BLIND in self.alarms):
            self._odd = 0
            return
        self._odd += 1
        if self._odd >= _LOOKS:
            self._odd = 0
            self._set(BLIND, text)

    def _set(self, name: str, text: str) -> None:
        if text:
            self.alarms[name] = text
        else:
            self.alarms.pop(name, None)
