"""What the operator's page shows: the newest of everything a stream said, ready to be read.

One thread feeds it, any number of readers wait for changes. Bounded: an hour or a year of parts
takes the same memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from ..engine.images import png_bytes
from .stream_check import Gap, Restart, StreamStatus
from .subscriber import Item
from .wire import AlarmMessage, HeartbeatMessage, ResultMessage, StateMessage
from .wire_map import MapMessage

HISTORY = 400
"""Parts in the charts."""
GALLERY = 48
"""Parts that were not ok, newest first."""
MAPS = 64
NOTICES = 30

_ANCHORS = (0, 64, 128, 191, 255)
"""Bytes of a map: 0, half, one, one and a half and two times the threshold ..."""
_RED, _GREEN, _BLUE = (14, 30, 250, 245, 190), (18, 120, 210, 100, 10), (34, 150, 50, 30, 30)
"""... and their colours: dark, teal, yellow at the threshold, orange, red."""


class LiveView:
    """The page's state. `take` and `tick` from one thread; the rest from any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._version = 0
        self._closed = False
        self._number = 0
        self._last: dict[str, Any] | None = None
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._gallery: deque[dict[str, Any]] = deque(maxlen=GALLERY)
        self._notices: deque[dict[str, Any]] = deque(maxlen=NOTICES)
        self._alarms: OrderedDict[tuple[int, str], dict[str, Any]] = OrderedDict()
        self._maps: OrderedDict[tuple[str, int], MapMessage] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._health: dict[str, Any] = {}
        self._status: dict[str, Any] = {}
        self._box = ""

    def take(self, item: Item, status: StreamStatus) -> None:
        """One message or notice of the stream, and what the stream is worth after it."""
        with self._changed:
            match item:
                case ResultMessage():
                    self._result(item)
                case MapMessage():
                    self._map(item)
                case HeartbeatMessage():
                    self._box = item.header.box
                    self._counts = msgspec.to_builtins(item.header.counts)
                    self._health = msgspec.to_builtins(item.header.health)
                    self._alarms = OrderedDict(
                        (key, alarm)
                        for key, alarm in self._alarms.items()
                        if key[0] in item.header.alarms
                    )
                case AlarmMessage():
                    self._alarm(item)
                case StateMessage():
                    self._box = item.header.box
                    text = f"{item.header.previous} → {item.header.state}. {item.header.text}"
                    self._notice(item.header.t, "state", text.strip())
                case Gap():
                    self._notice(None, "lost", f"{item.count} events were lost on the way")
                case Restart():
                    self._alarms.clear()
                    self._notice(None, "restart", "the line's program started anew")
            self._note_status(status)
            self._bump()

    def tick(self, status: StreamStatus) -> None:
        """Nothing came for a moment; readers hear of it only when the answers changed."""
        with self._changed:
            if self._note_status(status):
                self._bump()

    def close(self) -> None:
        """Send every waiting reader home."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait(self, seen_version: int, timeout_s: float) -> int | None:
        """The version once it differs from `seen_version` or time is up; None after `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._version != seen_version, timeout_s)
            return None if self._closed else self._version

    def snapshot(self, after: int = 0) -> dict[str, Any]:
        """Everything the page shows; of the history only parts numbered above `after`."""
        with self._changed:
            return {
                "box": self._box,
                "status": dict(self._status),
                "last": self._last,
                "number": self._number,
                "history": [entry for entry in self._history if entry["number"] > after],
                "gallery": [self._with_map(entry) for entry in reversed(self._gallery)],
                "alarms": list(self._alarms.values()),
                "notices": list(reversed(self._notices)),
                "counts": dict(self._counts),
                "health": self._health,
                "map": self._newest_map(),
            }

    def map_png(self, boot: str, seq: int) -> bytes | None:
        """The map of one part as PNG on the fixed scale; None when it is not kept (any more)."""
        with self._changed:
            message = self._maps.get((boot, seq))
        return None if message is None else png_bytes(paint_map(message.raw()))

    def _result(self, message: ResultMessage) -> None:
        header = message.header
        self._number += 1
        self._box = header.box
        self._counts = msgspec.to_builtins(header.counts)
        self._last = msgspec.to_builtins(header)
        self._last["number"] = self._number
        self._history.append(
            {
                "number": self._number,
                "verdict": header.verdict,
                "score": header.score,
                "thr": header.thr,
                "ms": header.lat_us.total / 1000,
            }
        )
        if header.verdict != "ok":
            self._gallery.append(self._last)

    def _map(self, message: MapMessage) -> None:
        self._maps[message.header.boot, message.header.seq] = message
        while len(self._maps) > MAPS:
            self._maps.popitem(last=False)

    def _alarm(self, message: AlarmMessage) -> None:
        header = message.header
        key = (header.code, message.topic.camera)
        self._alarms.pop(key, None)
        if header.active:
            self._alarms[key] = msgspec.to_builtins(header)
        word = "alarm" if header.active else "alarm over"
        self._notice(header.t, header.severity, f"{word}: {header.name}. {header.text}")

    def _notice(self, t_ns: int | None, kind: str, text: str) -> None:
        self._notices.append({"t": t_ns, "kind": kind, "text": text})

    def _note_status(self, status: StreamStatus) -> bool:
        shown = {
            "ok": status.ok,
            "alive": status.alive,
            "fresh": status.fresh,
            "contiguous": status.contiguous,
            "valid": status.valid,
            "state": status.state,
            "missing": status.missing,
            "silent_s": None if status.silent_ms is None else int(status.silent_ms / 1000),
        }
        changed = shown != self._status
        self._status = shown
        return changed

    def _with_map(self, entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "has_map": (entry["boot"], entry["seq"]) in self._maps}

    def _newest_map(self) -> dict[str, Any] | None:
        if not self._maps:
            return None
        boot, seq = next(reversed(self._maps))
        return {"boot": boot, "seq": seq}

    def _bump(self) -> None:
        self._version += 1
        self._changed.notify_all()


def paint_map(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB (h, w, 3) of a map's bytes (h, w), outlined where it exceeds the threshold (127.5)."""
    steps = np.arange(256)
    channels = [np.interp(steps, _ANCHORS, channel) for channel in (_RED, _GREEN, _BLUE)]
    table = np.stack(channels, axis=1).round().astype(np.uint8)
    painted = np.ascontiguousarray(table[raw])
    above = (raw > 127).astype(np.uint8)
    contours, _ = cv2.findContours(above, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(painted, contours, -1, (255, 255, 255), 1)
    return painted
