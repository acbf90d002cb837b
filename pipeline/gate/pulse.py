"""When the output is on: pulses that join, and a limit that no request can lift. Pure."""

from __future__ import annotations


class Pulse:
    """All times are monotonic nanoseconds."""

    def __init__(self, pulse_ns: int, max_on_ns: int) -> None:
        self.cut = 0
        """How often the output was switched off by the limit while more was asked."""
        self._pulse_ns, self._max_on_ns = pulse_ns, max_on_ns
        self._since_ns: int | None = None
        self._until_ns = 0

    def fire(self, now_ns: int) -> None:
        """On from now for one pulse; an output that is on stays on for that much longer."""
        if self._since_ns is None:
            self._since_ns = now_ns
        self._until_ns = now_ns + self._pulse_ns

    def is_on(self, now_ns: int) -> bool:
        """Whether the output has to be on; to be asked again at `next_change_ns`."""
        if self._since_ns is None:
            return False
        limit_ns = self._since_ns + self._max_on_ns
        if now_ns < min(self._until_ns, limit_ns):
            return True
        if limit_ns < self._until_ns:
            self.cut += 1
        self._since_ns = None
        return False

    @property
    def next_change_ns(self) -> int | None:
        if self._since_ns is None:
            return None
        return min(self._until_ns, self._since_ns + self._max_on_ns)
