"""The station file: one strict YAML for everything a box is told (configs/station.yaml).

An unknown key is an error that names the key, its place and the nearest known one: a typo in
`deadline_ms` must not mean "no deadline". Options on the command line win over the file.
"""

from __future__ import annotations

import argparse
import re
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import msgspec.inspect
import yaml
from msgspec import Meta

from .. import logs
from ..built_types import built
from ..calibration.regions import Regions
from ..engine.backends.base import BackendChoice
from ..engine.spec import Roi
from ..errors import ConfigError, nearest
from ..redaction import redacted
from .admission import Mode
from .archive import ArchiveSettings
from .capture.camera import FROZEN_AFTER, HANG_LIMIT_S, CameraSettings
from .capture.uri import CameraUri, is_live, open_source, parse_uri, takes_orders
from .decide import OnLate
from .gate.settings import GateSettings, check_gate
from .journal import JournalSettings
from .line_records import LineSettings
from .monitor.drift_monitor import DriftSettings
from .monitor.health_tap import HealthSettings
from .pairing import TriggerSettings
from .pictures import PictureSettings
from .publish import PublishSettings

NON_NEGATIVE = Meta(ge=0)
POSITIVE = Meta(gt=0)


class StationCamera(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `cameras:`."""

    uri: str
    name: str | None = None
    frozen_after: Annotated[int, NON_NEGATIVE] = FROZEN_AFTER
    """Equal images in a row that make a live camera count as frozen; 0 turns the check off."""
    hang_limit_s: Annotated[float, POSITIVE] = HANG_LIMIT_S
    """A driver call that takes longer hangs; its thread is replaced."""
    trigger: TriggerSettings | None = None
    """A camera that takes a picture for every order (docs/line.md); else it runs by itself."""
    plan: str | None = None
    """Which of `plans` judges it; the station's `plan` where left out."""
    identity: str | None = None
    """Under which name it was calibrated, where that is neither its name nor its device."""
    flat_field: str | None = None
    """File of `calibrate flatfield`."""
    lens: str | None = None
    """File of `calibrate camera`: straight lines, and the scale where it has a plane."""
    part_template: str | None = None
    """File of `calibrate part`: every picture is moved so that the part lies in its place."""
    mm_per_px: Annotated[float, POSITIVE] | None = None
    """Scale of a camera that looks straight down, for areas in mm2."""
    roi: Roi | None = None
    """What the network sees of the corrected picture, in place of the plan's."""
    regions: Regions | str | None = None
    """Regions written here, or their file; `none`: none, also where the plan has some."""


class Station(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The station file."""

    version: Literal[1] = 1
    box: str | None = None
    plan: str | None = None
    backend: BackendChoice = "auto"
    require: Literal["onnxruntime", "tensorrt", "torch-cuda"] | None = None
    """Refuse a plan for any other backend, so that a line never silently runs far slower."""
    plans: dict[str, str] = {}
    """Further plans by name, for cameras that say `plan: NAME`."""
    plan_folder: str | None = None
    """Where orders to change the plan may take it from; beside it, only the plans named here."""
    regions_folder: str | None = None
    """Where `serve --regions` keeps what was drawn: FOLDER/<box>/<camera>.yaml."""
    cameras: tuple[StationCamera, ...] = ()
    mode: Mode | None = None
    depth: Annotated[int, Meta(ge=1, le=64)] = 2
    """How many parts of each camera may wait in mode `every`."""
    batch_wait_ms: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    """How long a part may wait for parts of other cameras that are judged with it at once."""
    deadline_ms: Annotated[float, POSITIVE] | None = None
    on_late: OnLate = "err"
    publish: PublishSettings = PublishSettings()
    archive: ArchiveSettings | None = None
    """Images and maps on disk for later (docs/archive.md)."""
    log_format: logs.Format = "text"
    drift: DriftSettings | None = DriftSettings()
    """When to raise alarms about drift (docs/health.md); null turns the monitors off."""
    health: HealthSettings | None = None
    """Health and metrics over HTTP, from a process of their own (docs/health.md)."""
    pictures: PictureSettings | None = PictureSettings()
    """Small pictures for the operator's page, on the maps socket (docs/wire.md); made only while
    somebody watches. null: none."""
    gates: tuple[GateSettings, ...] = ()
    """Reject gates that this box drives (docs/gate.md)."""


def load_station(path: Path) -> Station:
    """Read a station file. Raises ConfigError naming file, key and the nearest known key."""
    try:
        found = yaml.safe_load(path.read_bytes())
        return msgspec.convert({} if found is None else found, built(Station))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "check the path") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise ConfigError(f"{path}{line} is not YAML", "check indentation and colons") from error
    except msgspec.ValidationError as error:
        raise _explained(path, error) from error


def with_options(station: Station, arguments: argparse.Namespace) -> Station:
    """The station with what the command line says in place of what the file says."""
    direct = ("box", "backend", "mode", "deadline_ms", "on_late", "log_format")
    given: dict[str, Any] = {
        key: getattr(arguments, key) for key in direct if getattr(arguments, key) is not None
    }
    if arguments.plan is not None:
        given["plan"] = str(arguments.plan)
    if arguments.camera:
        given["cameras"] = tuple(StationCamera(uri=uri) for uri in arguments.camera)
    if arguments.health is not None:
        kept = station.health or HealthSettings()
        given["health"] = msgspec.structs.replace(kept, listen=arguments.health)
    publish = {
        key: getattr(arguments, key)
        for key in ("events", "maps", "map_policy", "replay", "control", "keys")
        if getattr(arguments, key) is not None
    }
    if arguments.journal is not None:
        publish["journal"] = JournalSettings(path=arguments.journal)
    given["publish"] = msgspec.structs.replace(station.publish, **publish)
    return msgspec.structs.replace(station, **given)


def camera_settings(station: Station) -> list[CameraSettings]:
    """The cameras, each with a name of its own. Raises ConfigError."""
    settings: list[CameraSettings] = []
    for name, uri, camera in zip(
        camera_names(station), camera_uris(station.cameras), station.cameras, strict=True
    ):
        trigger = _trigger_of(name, camera, uri, station)
        _check_plan(name, camera, station)
        make_source = partial(open_source, uri)
        settings.append(
            CameraSettings(name, make_source, camera.frozen_after, camera.hang_limit_s, trigger)
        )
    names = tuple(one.name for one in settings)
    behind = [check_gate(gate, names) for gate in station.gates]
    if len(behind) > len(set(behind)):
        raise ConfigError("two gates stand behind one camera", "one line of parts has one gate")
    return settings


def camera_uris(cameras: Sequence[StationCamera]) -> list[CameraUri]:
    return [parse_uri(camera.uri) for camera in cameras]


def camera_names(station: Station) -> list[str]:
    """How the cameras are called, in order. Raises ConfigError for none, or two of one name."""
    if not station.cameras:
        raise ConfigError("no camera is named", "for example --camera 0, or cameras: in --station")
    names: list[str] = []
    for index, (camera, uri) in enumerate(
        zip(station.cameras, camera_uris(station.cameras), strict=True)
    ):
        name = camera.name or uri.name or f"cam{index}"
        if name in names:
            raise ConfigError(
                f"two cameras are called '{name}'", "give each a name: --camera left=0"
            )
        names.append(name)
    return names


def _check_plan(name: str, camera: StationCamera, station: Station) -> None:
    if camera.plan is None or camera.plan in station.plans:
        return
    known = ", ".join(station.plans) or "none"
    raise ConfigError(
        f"camera {name}: plans: has no plan called '{camera.plan}'",
        nearest(camera.plan, station.plans, f"known there: {known}"),
    )


def _trigger_of(
    name: str, camera: StationCamera, uri: CameraUri, station: Station
) -> TriggerSettings | None:
    """A camera whose address says that it waits for orders takes them without another word."""
    trigger = camera.trigger
    if trigger is None:
        if not takes_orders(uri):
            return None
        trigger = TriggerSettings()
    if trigger.fire == "software" and not takes_orders(uri):
        raise ConfigError(
            f"camera {name} takes no trigger from the line: {redacted(camera.uri)}",
            "trigger=software (aravis:) or trigger=true (test:) in its address; where a sensor "
            "fires it, fire: external",
        )
    if station.mode == "latest":
        raise ConfigError(
            f"camera {name} has triggers, and each gets a result; `latest` would drop some",
            "leave mode out, or run the cameras without triggers in a process of their own",
        )
    if trigger.fire == "external" and trigger.match == "none":
        raise ConfigError(
            f"camera {name} is fired by a sensor and pairs nothing: its orders would mean nothing",
            "leave trigger out",
        )
    needed = trigger.match in ("time", "fifo") or trigger.fire == "external"
    if trigger.window_ms is None and needed:
        raise ConfigError(
            f"camera {name}: trigger needs window_ms with match: time or fifo, and fire: external",
            "how long after its trigger a frame is taken at most, shorter than between two parts",
        )
    if trigger.window_ms is not None and trigger.window_ms > trigger.limit_ms:
        raise ConfigError(f"camera {name}: trigger.window_ms is longer than limit_ms")
    return trigger


def line_settings(station: Station, arguments: argparse.Namespace) -> LineSettings:
    """`latest` is the default as soon as one camera runs whether it is read or not; triggered
    parts have a result each, so with them the line keeps the other promise."""
    uris = [parse_uri(camera.uri) for camera in station.cameras]
    any_live = any(is_live(uri) for uri in uris)
    triggered = any(camera.trigger for camera in station.cameras) or any(map(takes_orders, uris))
    any_live = any_live and not triggered
    return LineSettings(
        mode=station.mode or ("latest" if any_live else "every"),
        depth=station.depth,
        batch_wait_ms=station.batch_wait_ms,
        part_limit=arguments.count,
        deadline_ms=station.deadline_ms,
        on_late=station.on_late,
        wait_subscribers=arguments.wait_subscribers,
        wait_timeout_s=arguments.wait_timeout,
    )


def host_name() -> str:
    """How this computer is called, as a topic may hold it; the name of a box without `box`."""
    name = socket.gethostname().partition(".")[0]
    cleaned = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    return cleaned.strip("-_")[:63] or "box"


def as_yaml(station: Station) -> str:
    """The resolved station for people, without passwords."""
    plain = msgspec.to_builtins(station)
    for camera in plain["cameras"]:
        camera["uri"] = redacted(camera["uri"])
    return yaml.safe_dump(plain, sort_keys=False)


def station_schema() -> dict[str, Any]:
    """JSON Schema of the station file, for editors."""
    return msgspec.json.schema(Station)


def _explained(path: Path, error: msgspec.ValidationError) -> ConfigError:
    text = str(error)
    where = re.search(r" - at `\$\.?(.*)`$", text)
    place = where[1] if where else ""
    unknown = re.search(r"unknown field `(.+?)`", text)
    if unknown is None:
        plain = text.partition(" - at ")[0]
        return ConfigError(f"{path}: {place or 'the file'}: {plain[0].lower()}{plain[1:]}")
    key = f"{place}.{unknown[1]}" if place else unknown[1]
    known = _keys_at(place)
    hint = nearest(unknown[1], known, "known here: " + ", ".join(known))
    return ConfigError(f"{path}: the key '{key}' is not known", hint)


def _keys_at(place: str) -> list[str]:
    """The keys known at a place such as "cameras[0]" or "publish.journal"."""
    kind = _struct(msgspec.inspect.type_info(Station))
    for name in filter(None, re.sub(r"\[.*?\]", "", place).split(".")):
        fields = {one.encode_name: one for one in kind.fields}
        kind = _struct(fields[name].type)
    return [one.encode_name for one in kind.fields]


def _struct(kind: msgspec.inspect.Type) -> msgspec.inspect.StructType:
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return _struct(kind.item_type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return next(one for one in kind.types if isinstance(one, msgspec.inspect.StructType))
    assert isinstance(kind, msgspec.inspect.StructType)
    return kind
