"""How late a frame of a network stream is, from its time stamp and its arrival. Pure.

The stamp tells when the camera took the frame, by its own clock; the arrival by ours. The smallest
difference of the last seconds is the way through encoder, network and decoder when nothing is in
the way; whatever a frame takes longer, it was held back.
"""

from __future__ import annotations

from collections import deque

_WINDOW_NS = 10_000_000_000
"""A route that stays longer is the new way; also far above the drift of two clocks."""
_JUMP_NS = 5_000_000_000
"""A stamp that moves by so much against our clock has begun anew."""


class StreamLag:
    """One stream since it was opened; frames in the order of their arrival."""

    def __init__(self) -> None:
        self._least: deque[tuple[int, int]] = deque()
        """(arrival, difference), differences ascending: the window's minimum comes first."""
        self._last_stamp_ns: int | None = None

    def of(self, stamp_ns: int, arrived_ns: int) -> int | None:
        """Nanoseconds this frame was held back; negative when it came sooner than any before.

        None when its stamp says nothing (it does not advance, or the stream began anew).
        """
        last_ns, self._last_stamp_ns = self._last_stamp_ns, stamp_ns
        difference_ns = arrived_ns - stamp_ns
        while self._least and self._least[0][0] < arrived_ns - _WINDOW_NS:
            self._least.popleft()
        base_ns = self._least[0][1] if self._least else difference_ns
        if last_ns is not None and (stamp_ns <= last_ns or abs(stamp_ns - last_ns) > _JUMP_NS):
            self._least.clear()
            self._least.append((arrived_ns, difference_ns))
            return None
        while self._least and self._least[-1][1] >= difference_ns:
            self._least.pop()
        self._least.append((arrived_ns, difference_ns))
        return difference_ns - base_ns
