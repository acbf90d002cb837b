"""How late a frame of a network stream is, from its time stamp and its arrival. Pure.

The stamp tells when the camera took the frame, by its own clock; the arrival by ours. The smallest
difference of the last seconds is the way through encoder, network and decoder when nothing is in
the way; whatever a frame takes longer, it was held back.
"""

from __future__ import annotations

from collections import deque

_WINDOW_NS = 10_000_000_000
"""A route that stays longer is the new way; also far above the drift of two clocks."""
_STEADY_FRAMES = 4
_JUMP_NS = 5_000_000_000
"""A stamp that moves by so much against our clock has begun anew."""


class StreamLag:
    """One stream since it was opened; frames in the order of their arrival.

    A stream begins with frames of the past, read faster than they were made: each comes sooner
    after its stamp than the one before. `settled` is True once that has ended; `period_ns` is the
    time between two frames.
    """

    def __init__(self, period_ns: int) -> None:
        self._step_ns = period_ns // 10
        self._steady = 0
        self._least: deque[tuple[int, int]] = deque()
        """(arrival, difference), differences ascending: the window's minimum comes first."""
        self._last_stamp_ns: int | None = None

    def of(self, stamp_ns: int, arrived_ns: int) -> int | None:
        """Nanoseconds this frame was held back; negative when it came sooner than any before.

        None when its stamp says nothing (it does not advance, or the stream began anew).
        """
        last_ns, self._last_stamp_ns = self._last_stamp_ns, stamp_ns
        self._steady += 1
        difference_ns = arrived_ns - stamp_ns
        while self._least and self._least[0][0] < arrived_ns - _WINDOW_NS:
            self._least.popleft()
        base_ns = self._least[0][1] if self._least else difference_ns
        if last_ns is not None and (stamp_ns <= last_ns or abs(stamp_ns - last_ns) > _JUMP_NS):
            self._steady = 0
            self._least.clear()
            self._least.append((arrived_ns, difference_ns))
            return None
        if not self._least or difference_ns < base_ns - self._step_ns:
            self._steady = 0
        while self._least and self._least[-1][1] >= difference_ns:
            self._least.pop()
        self._least.append((arrived_ns, difference_ns))
        return difference_ns - base_ns

    @property
    def settled(self) -> bool:
        """Whether the last frames came as steadily as they were made."""
        return self._steady >= _STEADY_FRAMES
