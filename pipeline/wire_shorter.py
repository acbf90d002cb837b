"""Headers that grew too long, shorter: what decides must fit, whatever the extras are. No bytes."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import UNSET
from msgspec.structs import replace

from . import wire_messages as fields


def shorter_forms(header: fields.Header) -> Iterator[fields.Header]:
    """The same message again and again, each time with less in it."""
    if isinstance(header, fields.ResultHeader):
        for extra in ("contour", "area_mm2"):
            regions = tuple(replace(one, **{extra: UNSET}) for one in header.regions)
            header = replace(header, regions=regions)
            yield header
    elif isinstance(header, fields.HeartbeatHeader):
        for shorten in (_total_latency_only, _no_latency, _no_drift, _no_detail):
            cameras = {name: shorten(camera) for name, camera in header.health.cams.items()}
            header = replace(header, health=replace(header.health, cams=cameras))
            yield header
        yield replace(header, health=replace(header.health, gates=UNSET))
        yield replace(header, health=replace(header.health, gates=UNSET, cams={}))


def _total_latency_only(camera: fields.CameraFields) -> fields.CameraFields:
    if camera.lat_us is UNSET or "total" not in camera.lat_us:
        return camera
    return replace(camera, lat_us={"total": camera.lat_us["total"]})


def _no_latency(camera: fields.CameraFields) -> fields.CameraFields:
    return replace(camera, lat_us=UNSET)


def _no_drift(camera: fields.CameraFields) -> fields.CameraFields:
    return replace(camera, drift=UNSET)


def _no_detail(camera: fields.CameraFields) -> fields.CameraFields:
    return replace(camera, detail="")
