"""The newest things of a kind, by the part they belong to, bounded in number and in bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = tuple[str, int]
"""(boot, seq) of a result: no two parts share it."""
Value = TypeVar("Value")


class Shelf(Generic[Value]):
    """Puts the oldest away first. Not thread-safe."""

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def put(self, key: Key, value: Value, size_bytes: int) -> None:
        """Keep `value`; the newest is kept even where it is larger than the shelf."""
        self.pop(key)
        self._items[key] = (value, size_bytes)
        self._bytes += size_bytes
        while len(self._items) > 1 and (
            len(self._items) > self._max_items or self._bytes > self._max_bytes
        ):
            self.pop(next(iter(self._items)))

    def get(self, key: Key) -> Value | None:
        found = self._items.get(key)
        return None if found is None else found[0]

    def pop(self, key: Key) -> tuple[Value, int] | None:
        """Take it off the shelf, with its size; None when it is not there."""
        found = self._items.pop(key, None)
        if found is not None:
            self._bytes -= found[1]
        return found

    def __contains__(self, key: Key) -> bool:
        return key in self._items

    def __len__(self) -> int:
        return len(self._items)
