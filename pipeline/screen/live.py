"""What the page shows of one box: the newest of everything its stream said, ready to be read.

One thread feeds it, any number of readers ask. Bounded: an hour or a year of parts takes the same
memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...calibration.feedback import MARKED_NG, MARKED_OK
from ...engine.images import png_bytes
from ..alarms import ALARM_BY_CODE
from ..clock import SYSTEM_CLOCK, Clock
from ..stream_check import Gap, Restart, StreamStatus
from ..subscriber import Gone, Item, Replayed
from ..wire import AlarmMessage, HeartbeatMessage, ResultMessage, StateMessage
from ..wire_map import MapMessage
from ..wire_messages import ResultHeader
from ..wire_picture import PictureMessage
from .changes import Changes
from .map_colours import paint_map, paint_overlay
from .part_images import NEWEST, PartImages
from .part_log import JudgedParts, PartLog
from .shelf import Key

HISTORY = 400
"""Parts in the live charts."""
GALLERY = 600
"""Parts that were not ok, newest first."""
NOTICES = 60
_PACE_PARTS = 32
Part = dict[str, Any]


class LiveView:
    """The state of one box. `take` and `tick` from one thread; the rest from any."""

    def __init__(
        self, connect: str = "", changes: Changes | None = None, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.connect = connect
        self._clock = clock
        self._arrived_ns: int | None = None
        self._followed_ns = clock.mono_ns()
        self._published_ns: deque[int] = deque(maxlen=_PACE_PARTS)
        self.changes = changes or Changes()
        self._lock = threading.Lock()
        self._number = 0
        self._first_t_pub: int | None = None
        self._log = PartLog()
        self._recent: OrderedDict[Key, Part] = OrderedDict()
        self._rejects: OrderedDict[Key, Part] = OrderedDict()
        self._n_rejects = 0
        self._history: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._cameras: dict[str, dict[str, Any]] = {}
        self._images = PartImages()
        self._marks: OrderedDict[Key, dict[str, str]] = OrderedDict()
        self._notices: deque[dict[str, Any]] = deque(maxlen=NOTICES)
        self._alarms: OrderedDict[tuple[int, str], dict[str, Any]] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._health: dict[str, Any] = {}
        self._status: dict[str, Any] = {}
        self._box = ""

    @property
    def box(self) -> str:
        """The box's name; "" before the first message."""
        return self._box

    def take(self, item: Item, status: StreamStatus) -> None:
        """One message or notice of the stream, and what the stream is worth after it."""
        with self._lock:
            match item:
                case ResultMessage():
                    self._result(item.header)
                case MapMessage() | PictureMessage():
                    self._image(item)
                case HeartbeatMessage():
                    self._heartbeat(item)
                case AlarmMessage():
                    self._alarm(item)
                case StateMessage():
                    self._box = item.header.box
                    text = f"{item.header.previous} → {item.header.state}. {item.header.text}"
                    self._notice(item.header.t, "state", text.strip())
                case Replayed(message=ResultMessage() as late):
                    self._note_past(late.header)
                case Gap():
                    self._notice(None, "lost", f"{item.count} events were lost on the way here")
                case Gone():
                    text = f"{item.gap.count} lost events are not in the box's journal any more"
                    self._notice(None, "lost", text)
                case Restart():
                    self._alarms.clear()
                    self._notice(None, "restart", "the line's program started anew")
            self._note_status(status)
        self.changes.bump()

    def tick(self, status: StreamStatus) -> None:
        """Nothing came for a moment; readers hear of it only when the answers changed."""
        with self._lock:
            changed = self._note_status(status)
        if changed:
            self.changes.bump()

    def remember(self, past: Sequence[ResultHeader]) -> int:
        """Results from the box's journal, oldest first; those before the first live one are
        added in front. How many were."""
        with self._lock:
            first = self._first_t_pub
            older = [one for one in past if first is None or one.t_pub < first]
            live, self._log = self._log, PartLog()
            live_rejects, self._rejects = self._rejects, OrderedDict()
            for header in older:
                self._note_past(header)
            self._log.extend(live)
            self._rejects.update(live_rejects)
            self._shorten_rejects()
        self.changes.bump()
        return len(older)

    def mark(self, key: Key, truth: str, who: str) -> None:
        """An operator said what the part of this event really was ("ok" or "ng")."""
        with self._lock:
            self._marks.pop(key, None)
            self._marks[key] = {"truth": truth, "who": who}
            while len(self._marks) > GALLERY:
                self._marks.popitem(last=False)
            self._n_rejects += 1  # the gallery is not what it was
        self.changes.bump()

    def snapshot(self, after: int = 0) -> dict[str, Any]:
        """What the live view shows; of the history only parts numbered above `after`."""
        with self._lock:
            last_reject = next(reversed(self._rejects.values()), None)
            balance = self._health.get("balance", {})
            return {
                "connect": self.connect,
                "box": self._box,
                "status": dict(self._status),
                "number": self._number,
                "cameras": [self._camera(name) for name in sorted(self._cameras)],
                "history": [entry for entry in self._history if entry["number"] > after],
                "alarms": list(self._alarms.values()),
                "notices": list(reversed(self._notices)),
                "counts": dict(self._counts),
                "dropped": balance.get("dropped", 0),
                "drops": self._health.get("drops", {}),
                "latency_us": self._health.get("lat_us", {}).get("total"),
                "followed_s": (self._clock.mono_ns() - self._followed_ns) / 1e9,
                "quiet_s": self._quiet_s(),
                "pace_s": self._pace_s(),
                "uptime_s": self._health.get("uptime_s"),
                "backend": self._health.get("backend", ""),
                "gallery_version": self._n_rejects,
                "last_reject": None if last_reject is None else self._shown(last_reject),
            }

    def gallery(self) -> list[Part]:
        """The parts that were not ok, newest first, with what is known of each."""
        with self._lock:
            return [self._shown(part) for part in reversed(self._rejects.values())]

    def known_parts(self) -> list[Part]:
        """Every part of which more is known than its score, newest first, each once."""
        with self._lock:
            known = {**self._rejects, **self._recent}
            newest = sorted(known.values(), key=lambda part: part["t_pub"], reverse=True)
            return [self._shown(part) for part in newest]

    def saw_run(self, boot: str) -> bool:
        """Whether a part came from this run of the line's program."""
        with self._lock:
            return self._log.saw_run(boot)

    def part(self, key: Key) -> Part | None:
        """One part that is still known."""
        with self._lock:
            found = self._rejects.get(key) or self._recent.get(key)
            return None if found is None else self._shown(found)

    def parts(self, camera: str, newest: int | None) -> tuple[JudgedParts, NDArray[np.uint8]]:
        """The judged parts, and for each what an operator marked it as."""
        with self._lock:
            parts = self._log.parts(camera, newest)
            truths = {key: mark["truth"] for key, mark in self._marks.items()}
        marks = np.zeros(len(parts), np.uint8)
        for index in np.flatnonzero(np.isin(parts.seq, [seq for _, seq in truths])):
            truth = truths.get((parts.boot[parts.boot_of[index]], int(parts.seq[index])))
            if truth is not None:
                marks[index] = MARKED_OK if truth == "ok" else MARKED_NG
        return parts, marks

    def picture(self, key: Key) -> PictureMessage | None:
        """The small picture of one part, while it is kept."""
        with self._lock:
            return self._images.picture(key)

    def map_png(self, key: Key, *, overlay: bool) -> bytes | None:
        """A part's map as PNG on the fixed scale, opaque or to lay over its picture."""
        with self._lock:
            message = self._images.map(key)
        if message is None:
            return None
        return png_bytes((paint_overlay if overlay else paint_map)(message.raw()))

    def newest_images(self, camera: str) -> tuple[PictureMessage | None, MapMessage | None]:
        """Of one camera: what it sees, and what the network sees of that."""
        with self._lock:
            keys = self._cameras.get(camera, {})
            return self._images.picture(keys.get("picture")), self._images.map(keys.get("map"))

    # ---- called with the lock held -----------------------------------------------------------

    def _quiet_s(self) -> float | None:
        """How long ago the last part came; None before the first."""
        if self._arrived_ns is None:
            return None
        return (self._clock.mono_ns() - self._arrived_ns) / 1e9

    def _pace_s(self) -> float | None:
        """The usual time from one part to the next; one pause among them does not count."""
        gaps = np.sort(np.diff(np.array(self._published_ns, np.int64)))[:-1]
        return float(gaps.mean()) / 1e9 if gaps.size else None

    def _result(self, header: ResultHeader) -> None:
        self._number += 1
        self._arrived_ns = self._clock.mono_ns()
        self._published_ns.append(header.t_pub)
        self._first_t_pub = self._first_t_pub or header.t_pub
        self._box = header.box
        self._counts = msgspec.to_builtins(header.counts)
        self._log.append(header)
        part: Part = msgspec.to_builtins(header)
        part["number"] = self._number
        key = (header.boot, header.seq)
        self._recent[key] = part
        while len(self._recent) > NEWEST:
            self._recent.popitem(last=False)
        self._cameras.setdefault(header.cam, {})["last"] = part
        self._history.append(
            {
                "number": self._number,
                "cam": header.cam,
                "cam_seq": header.cam_seq,
                "part": {"id": header.part.id},
                "name": part.get("name"),
                "verdict": header.verdict,
                "score": header.score,
                "thr": header.thr,
                "ms": header.lat_us.total / 1000,
                "seq": header.seq,
                "boot": header.boot,
            }
        )
        if header.verdict != "ok":
            self._keep_reject(key, part)

    def _note_past(self, header: ResultHeader) -> None:
        self._log.append(header)
        if header.verdict != "ok":
            self._keep_reject((header.boot, header.seq), msgspec.to_builtins(header))

    def _keep_reject(self, key: Key, part: Part) -> None:
        self._rejects[key] = part
        self._n_rejects += 1
        self._shorten_rejects()
        self._images.keep(key)

    def _shorten_rejects(self) -> None:
        while len(self._rejects) > GALLERY:
            self._rejects.popitem(last=False)

    def _image(self, message: MapMessage | PictureMessage) -> None:
        header = message.header
        key = (header.boot, header.seq)
        self._images.put(message, keep=key in self._rejects)
        self._cameras.setdefault(header.cam, {})[
            "map" if isinstance(message, MapMessage) else "picture"
        ] = key

    def _heartbeat(self, message: HeartbeatMessage) -> None:
        header = message.header
        self._box = header.box
        self._counts = msgspec.to_builtins(header.counts)
        self._health = msgspec.to_builtins(header.health)
        for name, camera in self._health["cams"].items():
            self._cameras.setdefault(name, {})["health"] = camera
        self._alarms = OrderedDict(
            (key, alarm) for key, alarm in self._alarms.items() if key[0] in header.alarms
        )

    def _alarm(self, message: AlarmMessage) -> None:
        header = message.header
        key = (header.code, message.topic.camera)
        self._alarms.pop(key, None)
        known = ALARM_BY_CODE.get(header.code)
        meaning = known.meaning if known is not None else header.name
        if header.active:
            self._alarms[key] = {**msgspec.to_builtins(header), "meaning": meaning}
        sentence = f"{meaning}. {header.text}".strip() if header.active else f"over: {meaning}"
        kind = header.severity if header.active else "calm"
        self._notice(header.t, kind, sentence, camera=message.topic.camera, name=header.name)

    def _notice(
        self, t_ns: int | None, kind: str, text: str, camera: str = "", name: str = ""
    ) -> None:
        self._notices.append({"t": t_ns, "kind": kind, "text": text, "cam": camera, "name": name})

    def _note_status(self, status: StreamStatus) -> bool:
        self._followed_ns = self._clock.mono_ns()
        shown = {
            "ok": status.ok,
            "alive": status.alive,
            "fresh": status.fresh,
            "contiguous": status.contiguous,
            "valid": status.valid,
            "state": status.state,
            "missing": status.missing,
            "restarts": status.restarts,
            "silent_s": None if status.silent_ms is None else int(status.silent_ms / 1000),
        }
        changed = shown != self._status
        self._status = shown
        return changed

    def _camera(self, name: str) -> dict[str, Any]:
        """The newest part, and the newest one that has a picture: they may differ."""
        camera = self._cameras[name]
        last, key = camera.get("last"), camera.get("picture")
        pictured = None if key is None else self._rejects.get(key) or self._recent.get(key)
        newest_map = camera.get("map")
        return {
            "name": name,
            "health": camera.get("health"),
            "last": None if last is None else self._shown(last),
            "pictured": None if pictured is None else self._shown(pictured),
            "map": None if newest_map is None else {"boot": newest_map[0], "seq": newest_map[1]},
        }

    def _shown(self, part: Part) -> Part:
        key = (part["boot"], part["seq"])
        return {**part, **self._images.places(key), "mark": self._marks.get(key)}
