"""Pictures and defect maps of the newest parts, and for longer those of parts that were not ok."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from ..wire_map import MapMessage
from ..wire_picture import PictureMessage
from .shelf import Key, Shelf

NEWEST = 64
KEPT = 256
_MAX_BYTES = 64 * 1024 * 1024
Value = TypeVar("Value")


class _Pair(Generic[Value]):
    """A shelf for what is kept, and one for what soon is old."""

    def __init__(self) -> None:
        self.kept: Shelf[Value] = Shelf(KEPT, _MAX_BYTES)
        self.newest: Shelf[Value] = Shelf(NEWEST, _MAX_BYTES // 4)

    def get(self, key: Key) -> Value | None:
        found = self.kept.get(key)
        return self.newest.get(key) if found is None else found

    def put(self, key: Key, value: Value, size_bytes: int, keep: bool) -> None:
        (self.kept if keep else self.newest).put(key, value, size_bytes)

    def keep(self, key: Key) -> None:
        found = self.newest.pop(key)
        if found is not None:
            self.kept.put(key, *found)


class PartImages:
    """Of one box. Not thread-safe."""

    def __init__(self) -> None:
        self._pictures: _Pair[PictureMessage] = _Pair()
        self._maps: _Pair[MapMessage] = _Pair()

    def put(self, message: PictureMessage | MapMessage, *, keep: bool) -> None:
        """Note a picture or map; `keep` it longer when its part was not ok."""
        key = (message.header.boot, message.header.seq)
        if isinstance(message, MapMessage):
            self._maps.put(key, message, sum(map(len, message.blobs)), keep)
        else:
            self._pictures.put(key, message, len(message.jpeg), keep)

    def keep(self, key: Key) -> None:
        """This part was not ok: its images may have overtaken its result, which travels apart."""
        self._pictures.keep(key)
        self._maps.keep(key)

    def picture(self, key: Key | None) -> PictureMessage | None:
        return None if key is None else self._pictures.get(key)

    def map(self, key: Key | None) -> MapMessage | None:
        return None if key is None else self._maps.get(key)

    def places(self, key: Key) -> dict[str, Any]:
        """What the page must know to lay a part's map over its picture; None for what is not
        kept."""
        picture, map_message = self.picture(key), self.map(key)
        return {
            "picture": None if picture is None else picture_place(picture),
            "overlay": None if map_message is None else map_place(map_message),
        }


def picture_place(message: PictureMessage) -> dict[str, Any]:
    """Whose picture it is, and the size in pixels of the captured image, all of which it shows."""
    header, blob = message.header, message.header.blobs[0]
    sx, sy = blob.scale_to_image
    return {
        "boot": header.boot,
        "seq": header.seq,
        "width": round(blob.w * sx),
        "height": round(blob.h * sy),
    }


def map_place(message: MapMessage) -> dict[str, float]:
    """Where the map lies on the captured image: x, y, width, height in its pixels, whole numbers
    being pixel centres. A line that does not say is taken to show the map's own pixels."""
    blob = message.header.blobs[0]
    sx, _, tx, _, sy, ty = blob.xform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    return {"x": tx - sx / 2, "y": ty - sy / 2, "width": sx * blob.w, "height": sy * blob.h}
