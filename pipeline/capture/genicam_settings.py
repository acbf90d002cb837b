"""The settings of a GenICam camera: applied after every open, and read back.

Such a camera keeps what its last client told it, so everything that matters is set each time, and
a value that the camera does not take is an error before the first part, not a surprise later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ...errors import CameraError
from .genicam import explained
from .pixel_formats import KNOWN, is_known

log = logging.getLogger(__name__)
_TOLERANCE = 0.02
"""Exposure and rate come in steps (a sensor row, a clock tick); more than 2 % is another value."""
_RESULTING_RATE = ("ResultingFrameRate", "AcquisitionResultingFrameRate", "ResultingFrameRateAbs")


@dataclass(frozen=True, slots=True)
class GenicamSettings:
    """None leaves the camera's own value. `trigger`: "off", "software" or a line ("Line0").

    `features` are any other GenICam features by name, set in this order, last.
    """

    format: str | None = None
    width: int | None = None
    height: int | None = None
    x: int | None = None
    y: int | None = None
    fps: float | None = None
    exposure_us: float | None = None
    gain: float | None = None
    trigger: str = "off"
    features: Mapping[str, str] = field(default_factory=dict)


def apply(aravis: Any, camera: Any, settings: GenicamSettings, wanted: str) -> str:
    """Set and read back everything; the pixel format in use comes back. Raises CameraError."""
    try:
        camera.clear_triggers()
        name = _apply_values(aravis, camera, settings, wanted)
        for feature, value in settings.features.items():
            _apply_feature(camera, feature, value, wanted)
        _apply_trigger(camera, settings.trigger, wanted)
    except CameraError:
        raise
    except Exception as error:
        raise explained(error, wanted) from error
    return name


def snapshot(aravis: Any, camera: Any, wanted: str) -> GenicamSettings:
    """What the camera uses now, of what a power cut would reset. None where it decides itself."""
    try:
        x, y, width, height = _region(camera)
        off = aravis.Auto.OFF
        auto_exposure = (
            camera.is_exposure_auto_available() and camera.get_exposure_time_auto() != off
        )
        auto_gain = camera.is_gain_auto_available() and camera.get_gain_auto() != off
        has_exposure = camera.is_exposure_time_available() and not auto_exposure
        has_gain = camera.is_gain_available() and not auto_gain
        return GenicamSettings(
            format=str(camera.get_pixel_format_as_string()),
            width=width,
            height=height,
            x=x,
            y=y,
            fps=camera.get_frame_rate() if camera.is_frame_rate_available() else None,
            exposure_us=camera.get_exposure_time() if has_exposure else None,
            gain=camera.get_gain() if has_gain else None,
        )
    except Exception as error:
        raise explained(error, wanted) from error


def restore(aravis: Any, camera: Any, kept: GenicamSettings, wanted: str) -> str:
    """Set what differs from `kept` (a camera that lost power is back at its defaults); the pixel
    format comes back. Raises CameraError for what the camera does not take again."""
    now = snapshot(aravis, camera, wanted)
    changed = {
        one.name: getattr(kept, one.name)
        for one in fields(GenicamSettings)
        if one.name not in ("trigger", "features")
        and getattr(kept, one.name) is not None
        and getattr(kept, one.name) != getattr(now, one.name)
    }
    if changed:
        what = ", ".join(f"{name} {value}" for name, value in changed.items())
        log.warning("camera aravis:%s came back with other settings; set again: %s", wanted, what)
        try:
            _apply_values(aravis, camera, GenicamSettings(**changed), wanted)
        except CameraError:
            raise
        except Exception as error:
            raise explained(error, wanted) from error
    return str(camera.get_pixel_format_as_string())


def spacing_s(camera: Any) -> float:
    """How far apart the camera can take pictures, 0 when it does not say."""
    device = camera.get_device()
    for feature in _RESULTING_RATE:
        if device.is_feature_available(feature):
            rate = device.get_float_feature_value(feature)
            return 1 / rate if rate > 0 else 0.0
    if camera.is_frame_rate_available():
        rate = camera.get_frame_rate()
        return 1 / rate if rate > 0 else 0.0
    return 0.0


def exposure_ns(camera: Any) -> int:
    """The exposure time in use, 0 when the camera does not say."""
    return round(camera.get_exposure_time() * 1e3) if camera.is_exposure_time_available() else 0


def _apply_values(aravis: Any, camera: Any, settings: GenicamSettings, wanted: str) -> str:
    name = _apply_format(camera, settings, wanted)
    _apply_region(camera, settings, wanted)
    if settings.fps is not None:
        camera.set_frame_rate(settings.fps)
        _check("fps", settings.fps, camera.get_frame_rate(), wanted)
    if settings.exposure_us is not None:
        if camera.is_exposure_auto_available():
            camera.set_exposure_time_auto(aravis.Auto.OFF)
        camera.set_exposure_time(settings.exposure_us)
        _check("exposure_us", settings.exposure_us, camera.get_exposure_time(), wanted)
    if settings.gain is not None:
        if camera.is_gain_auto_available():
            camera.set_gain_auto(aravis.Auto.OFF)
        camera.set_gain(settings.gain)
        _check("gain", settings.gain, camera.get_gain(), wanted)
    return name


def _apply_format(camera: Any, settings: GenicamSettings, wanted: str) -> str:
    offered = list(camera.dup_available_pixel_formats_as_strings())
    usable = [name for name in offered if is_known(name)]
    if settings.format is not None:
        if settings.format not in usable:
            raise CameraError(
                f"camera aravis:{wanted}: the pixel format {settings.format} cannot be used",
                f"it offers {', '.join(offered)}; understood are {KNOWN}",
            )
        camera.set_pixel_format_from_string(settings.format)
    name = str(camera.get_pixel_format_as_string())
    if settings.format is not None and name != settings.format:
        raise _differs("format", settings.format, name, wanted)
    if not is_known(name):
        raise CameraError(
            f"camera aravis:{wanted} is set to the pixel format {name}, which is not understood",
            f"choose one with format=; of those it offers these work: {', '.join(usable)}",
        )
    return name


def _apply_region(camera: Any, settings: GenicamSettings, wanted: str) -> None:
    asked = (settings.x, settings.y, settings.width, settings.height)
    if asked == (None, None, None, None):
        return
    goal = [old if new is None else new for new, old in zip(asked, _region(camera), strict=True)]
    camera.set_region(*goal)
    got = _region(camera)
    for name, ask, answer in zip(("x", "y", "width", "height"), goal, got, strict=True):
        if ask != answer:
            raise _differs(name, ask, answer, wanted)


def _region(camera: Any) -> tuple[int, int, int, int]:
    """x, y, width, height."""
    region = camera.get_region()
    return (region.x, region.y, region.width, region.height) if hasattr(region, "x") else region


def _apply_feature(camera: Any, name: str, value: str, wanted: str) -> None:
    node = camera.get_device().get_feature(name)
    if node is None:
        raise CameraError(
            f"camera aravis:{wanted} has no feature {name}", "arv-tool-0.8 features lists them"
        )
    try:
        node.set_value_from_string(value)
        got = str(node.get_value_as_string())
    except Exception as error:
        told = explained(error, wanted)
        raise CameraError(f"{told.sentence} (feature {name}={value})", told.hint) from error
    if not _same(value, got):
        raise _differs(name, value, got, wanted)


def _apply_trigger(camera: Any, trigger: str, wanted: str) -> None:
    if trigger == "off":
        return
    source = "Software" if trigger.lower() == "software" else trigger
    offered = list(camera.dup_available_trigger_sources())
    if source not in offered:
        raise CameraError(
            f"camera aravis:{wanted} has no trigger source {source}",
            f"it offers {', '.join(offered)}",
        )
    camera.set_trigger(source)
    got = (camera.get_string("TriggerMode"), camera.get_trigger_source())
    if got != ("On", source):
        raise _differs("trigger", source, " ".join(map(str, got)), wanted)


def _check(name: str, asked: float, got: float, wanted: str) -> None:
    if abs(got - asked) > _TOLERANCE * abs(asked) + 1e-9:
        raise _differs(name, f"{asked:g}", f"{got:g}", wanted)
    if got != asked:
        log.info("camera aravis:%s: %s %g was asked for, it uses %g", wanted, name, asked, got)


def _differs(name: str, asked: object, got: object, wanted: str) -> CameraError:
    return CameraError(
        f"camera aravis:{wanted}: {name} {asked} was asked for, the camera gives {got}",
        "ask for a value that it offers; arv-tool-0.8 control NAME shows its limits",
    )


def _same(asked: str, got: str) -> bool:
    as_number: Callable[[str], float] = float
    try:
        return abs(as_number(asked) - as_number(got)) <= _TOLERANCE * abs(as_number(asked)) + 1e-9
    except ValueError:
        truth = {"true": "1", "false": "0"}
        return truth.get(asked.lower(), asked) == truth.get(got.lower(), got)
