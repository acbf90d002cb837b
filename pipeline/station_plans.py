"""The plans of a station, with how each of their cameras is seen. All that can be refused is here.

    plan file -> backend, threshold, whose camera -> for each camera: region of interest,
    correction, regions -> LinePlan

A plan that is loaded while the line runs goes the same way.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from ..calibration.correction import check_camera, load_correction
from ..calibration.regions import Regions, check_regions, load_regions
from ..engine.backends.base import open_engine
from ..engine.plan import Plan, load_plan
from ..engine.preprocess import check_input_spec
from ..engine.spec import Threshold
from ..errors import CalibrationError, ConfigError, EngineError
from ..redaction import redacted
from . import wire_messages as wire
from .line_plan import LinePlan
from .plan_change import LoadPlan
from .readiness import plan_threshold
from .station import Station, StationCamera, camera_names, camera_uris
from .view import View, check_view

_NO_DEVICE = ("dir", "watch", "file", "test")
"""Where the pictures come from says nothing about the camera that took them."""
DEFAULT_PLAN = "default"
"""How the plan under `plan:` is called, beside those under `plans:`."""


def station_plans(station: Station, box: str) -> tuple[list[Plan], list[LinePlan]]:
    """Every plan that a camera uses, opened and checked, and the same for the line.

    Raises ConfigError, PlanError, EngineError or CalibrationError, one sentence each.
    """
    plans, line_plans = [], []
    for name in dict.fromkeys(plan_name(camera) for camera in station.cameras):
        plan = load_plan(Path(_plan_path(station, name)))
        plans.append(plan)
        line_plans.append(as_line_plan(station, box, name, plan))
    return plans, line_plans


def as_line_plan(station: Station, box: str, name: str, plan: Plan) -> LinePlan:
    """`plan` as the station's plan `name`. Raises as `station_plans`."""
    manifest, backend = plan.manifest, station.backend
    if station.require not in (None, manifest.backend):
        raise EngineError(
            f"the station requires {station.require}, {plan.path} is for {manifest.backend}",
            f"skrd4ad compile --backend {station.require} makes such a plan on this machine",
        )
    threshold = plan_threshold(plan)
    views: dict[str, View] = {}
    for camera_name, camera in zip(camera_names(station), station.cameras, strict=True):
        if plan_name(camera) == name:
            names = identities(camera_name, camera)
            check_camera(f"the threshold of {plan.path}", threshold.camera, names)
            views[camera_name] = camera_view(
                plan, camera, names, regions_file(station, box, camera_name)
            )
    return LinePlan(
        open_engine=lambda: open_engine(plan, backend),
        threshold=threshold,
        name=name,
        model=model_fields(plan, threshold),
        views=views,
    )


def plan_loader(station: Station, box: str) -> LoadPlan:
    """What an order to change the plan may load: the station's own plans and its `plan_folder`."""

    def load(name: str, text: str) -> LinePlan:
        path = allowed_plan(station, text)
        return as_line_plan(station, box, name, load_plan(path))

    return load


def allowed_plan(station: Station, text: str) -> Path:
    """The file that an order means. Raises ConfigError for one that orders may not load."""
    folder = None if station.plan_folder is None else Path(station.plan_folder).resolve()
    own = [station.plan, *station.plans.values()]
    if text in station.plans:
        return Path(station.plans[text])
    # Links are followed first, so that none leads out of the folder.
    here = Path(text).resolve()
    if any(here == Path(one).resolve() for one in own if one is not None):
        return here
    if folder is not None:
        there = (folder / text).resolve()
        if there.is_relative_to(folder):
            return there
    raise ConfigError(
        f"'{text}' is not a plan that orders may load",
        "a plan of the station file, or one in its plan_folder"
        + (" (there is none)" if folder is None else f" ({folder})"),
    )


def camera_view(
    plan: Plan, camera: StationCamera, names: Collection[str], drawn: Path | None
) -> View:
    """How `plan` sees one camera. `drawn` is a file of regions that were drawn on the screen."""
    spec = plan.manifest.input
    if camera.roi is not None:
        spec = msgspec.structs.replace(spec, roi=camera.roi)
        check_input_spec(spec)
    correction = load_correction(
        names,
        flat_field=_path(camera.flat_field),
        lens=_path(camera.lens),
        part=_path(camera.part_template),
        mm_per_px=camera.mm_per_px,
    )
    view = View(spec, correction, camera_regions(plan, camera, names, drawn))
    try:
        check_view(view)
    except ConfigError as error:
        raise ConfigError(f"camera {_first(names)}: {error.sentence}", error.hint) from error
    return view


def camera_regions(
    plan: Plan, camera: StationCamera, names: Collection[str], drawn: Path | None
) -> Regions | None:
    """The regions of one camera: the station's, else those drawn, else the plan's; None: none.

    Raises ConfigError for bad ones, CalibrationError for those of another camera.
    """
    if camera.regions == "none":
        return None
    if isinstance(camera.regions, Regions):
        found, what = camera.regions, "regions in the station file"
        check_regions(found)
    elif camera.regions is not None or drawn is not None:
        path = drawn if camera.regions is None else Path(camera.regions)
        assert path is not None, "one of the two is given"
        found, what = load_regions(path), str(path)
    else:
        return _plan_regions(plan, names)
    check_camera(what, found.camera, names)
    return found


def _plan_regions(plan: Plan, names: Collection[str]) -> Regions | None:
    stored = plan.manifest.regions
    for one in stored:
        check_regions(one)
    for one in sorted(stored, key=lambda one: one.camera == ""):
        if one.camera in names or one.camera == "":
            return one
    if stored:
        theirs = ", ".join(f"'{one.camera}'" for one in stored)
        raise CalibrationError(
            f"{plan.path} has regions for camera {theirs}, but none for '{_first(names)}'",
            "calibrate regions for this camera, or say regions: none in the station file",
        )
    return None


def regions_file(station: Station, box: str, camera: str) -> Path | None:
    """Where regions that were drawn on the operator's page lie, when there are some."""
    if station.regions_folder is None:
        return None
    path = Path(station.regions_folder) / box / f"{camera}.yaml"
    return path if path.exists() else None


def identities(name: str, camera: StationCamera) -> tuple[str, ...]:
    """By what calibration may know this camera: its name, its device, and what the station says."""
    uri = camera_uris((camera,))[0]
    device = None if uri.scheme in _NO_DEVICE else redacted(uri.target)
    return tuple(dict.fromkeys(filter(None, (name, camera.identity, device))))


def plan_name(camera: StationCamera) -> str:
    return camera.plan or DEFAULT_PLAN


def _plan_path(station: Station, name: str) -> str:
    if name != DEFAULT_PLAN:
        return station.plans[name]
    if station.plan is None:
        raise ConfigError("no plan is named", "--plan F, or plan: in the station file")
    return station.plan


def model_fields(plan: Plan, threshold: Threshold) -> wire.ModelFields:
    """How events name this plan."""
    manifest = plan.manifest
    return wire.ModelFields(
        name=manifest.name,
        plan=plan.digest,
        backend=f"{manifest.backend}-{manifest.precision}",
        cal=threshold.created,
        thr_rev=threshold.revision,
    )


def region_names(plans: Collection[LinePlan]) -> tuple[str, ...]:
    """All regions of the line in the order of their numbers in the record for PLCs."""
    views = [view for plan in plans for view in (plan.views or {}).values()]
    return tuple(dict.fromkeys(["image", *(name for view in views for name in view.region_names)]))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _first(names: Collection[str]) -> str:
    return next(iter(names))
