"""Regions that were drawn in the browser, kept in the files that calibration and line read.

`FOLDER/<box>/<camera>.yaml`. Nothing is stored that calibration.regions would refuse later.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ...built_types import built
from ...calibration.regions import (
    Regions,
    check_drawn_size,
    check_regions,
    load_regions,
    region_masks,
    store_regions,
)
from ...errors import ConfigError
from ..topics import is_name
from ..wire_map import MapMessage
from ..wire_picture import PictureMessage
from .part_images import picture_place


class Outdated(ConfigError):
    """Somebody else stored the regions since they were read."""


@dataclass(frozen=True, slots=True)
class StoredRegions:
    """A regions file; `digest` is "" and `regions` None where there is none yet."""

    path: Path
    digest: str
    regions: Regions | None


class RegionDesk:
    """Reads and writes below `folder`; raises ConfigError with a sentence for the page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def read(self, box: str, camera: str) -> StoredRegions:
        path = self._path(box, camera)
        if not path.exists():
            return StoredRegions(path, "", None)
        return StoredRegions(path, _digest(path), load_regions(path))

    def store(
        self,
        box: str,
        camera: str,
        drawn: dict[str, Any],
        digest: str,
        picture: PictureMessage | None,
        map_message: MapMessage | None,
    ) -> StoredRegions:
        """Check against what the camera sees now, and write. Raises Outdated when the file is not
        the one with `digest` any more."""
        path = self._path(box, camera)
        try:
            regions = msgspec.convert(drawn, built(Regions))
        except msgspec.ValidationError as error:
            raise ConfigError(f"these are no regions: {error}") from None
        check_regions(regions)
        if picture is not None:
            place = picture_place(picture)
            check_drawn_size(regions, (place["height"], place["width"]))
        if map_message is not None and map_message.header.blobs[0].xform is not None:
            blob = map_message.header.blobs[0]
            assert blob.xform is not None
            size = (regions.image_height, regions.image_width)
            region_masks(regions, blob.xform, (blob.h, blob.w), size)
        with self._lock:
            if (_digest(path) if path.exists() else "") != digest:
                raise Outdated(
                    "somebody else changed these regions meanwhile",
                    "read them again; what you drew stays on the screen until then",
                )
            store_regions(path, regions)
            return StoredRegions(path, _digest(path), regions)

    def _path(self, box: str, camera: str) -> Path:
        # Names of the wire's alphabet cannot lead out of the folder: they begin with a letter or
        # digit and hold no slash.
        if not (is_name(box) and is_name(camera)):
            raise ConfigError(f"there is no camera {camera!r} of a box {box!r}")
        return self._folder / box / f"{camera}.yaml"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
