"""Camera URIs: one short string says which camera, how, and with what options.

0   /dev/video0   /dev/v4l/by-id/...   [?width=1280&height=720&fps=30]
aravis:[ID, serial or address]  [?trigger=software&exposure_us=5000&GammaEnable=false]
csi:0[?width=1920&height=1080&fps=30&flip=2]       gst:PIPELINE (as for gst-launch-1.0)
file:belt.mp4[?pace=true]       dir:parts/[?pace_hz=5]       watch:inbox/[?existing=false]
test:seed=1,defect=0.1,rate=30,count=1000,size=256,bank=32
top=dir:parts/                  any of them with a name for the camera
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ...errors import ConfigError, nearest
from ...redaction import redacted
from ..clock import SYSTEM_CLOCK, Clock
from .base import Source

_NAME = re.compile(r"(?P<name>[A-Za-z][A-Za-z0-9_-]*)=(?P<rest>.+)", re.DOTALL)
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+]*):(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CameraUri:
    """A parsed URI. `target` is a path or device, `options` the keys that were given, as text."""

    scheme: str
    target: str
    options: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _yes_no(text: str) -> bool:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text]


def _fourcc(text: str) -> str:
    if len(text) != 4 or not text.isascii():
        raise ValueError
    return text


def _flip(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 7:
        raise ValueError
    return value


def _text(text: str) -> str:
    return text


NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https")
"""Their whole text is the address: a query belongs to the camera."""
_OF_TRIGGERS = {"lose", "delay_ms", "count"}
Reader = Callable[[str], object]
OPTIONS: dict[str, dict[str, Reader]] = {
    "device": {"width": _count, "height": _count, "fps": _positive, "format": _fourcc},
    "aravis": {
        "format": _text,
        "width": _count,
        "height": _count,
        "x": _whole,
        "y": _whole,
        "fps": _positive,
        "exposure_us": _positive,
        "gain": float,
        "trigger": _text,
        "answer_ms": _positive,
        "buffers": _count,
        "packet_size": _count,
        "packet_socket": _yes_no,
    },
    "csi": {"width": _count, "height": _count, "fps": _positive, "flip": _flip},
    "gst": {},
    "file": {"pace": _yes_no},
    "dir": {"pace_hz": _positive},
    "watch": {"settle_ms": _positive, "existing": _yes_no, "seen": _text},
    "test": {
        "seed": _whole,
        "defect": _fraction,
        "rate": _positive,
        "count": _count,
        "size": _count,
        "bank": _count,
        "barcode": _yes_no,
        "trigger": _yes_no,
        "lose": _fraction,
        "delay_ms": _positive,
    },
}
"""What each scheme understands; the table of docs/line.md is checked against it."""


def parse_uri(text: str) -> CameraUri:
    """Split and check a camera URI. Raises ConfigError naming the nearest known scheme or key."""
    name, rest = _split_name(text.strip())
    if not rest:
        raise ConfigError("the camera URI is empty", "for example --camera 0 or --camera dir:parts")
    if rest.partition("?")[0].isdigit() or rest.startswith("/dev/"):
        target, _, query = rest.partition("?")
        return _checked(CameraUri("device", target, _pairs(query, "&", text), name), text)
    match = _SCHEME.fullmatch(rest)
    if match is None:
        path = Path(rest)
        guess = "dir:" if path.is_dir() else "file:"
        raise ConfigError(
            f"camera '{text}' has no scheme", f"write {guess}{rest}, or an index such as 0"
        )
    scheme, body = match["scheme"], match["rest"]
    if scheme in NETWORK_SCHEMES:
        if not re.match(r"//[^/]", body):
            raise ConfigError(f"camera '{redacted(text)}' names no host", f"{scheme}://HOST/PATH")
        return CameraUri(scheme, rest, {}, name)
    if scheme not in OPTIONS or scheme == "device":
        known = [*(name for name in OPTIONS if name != "device"), *NETWORK_SCHEMES]
        raise ConfigError(
            f"camera '{text}': the scheme '{scheme}:' is not known",
            _nearest(scheme, known, ":") + "; known are an index, /dev/..., "
            + ", ".join(f"{name}:" for name in known),
        )  # fmt: skip
    if scheme == "gst":
        if not body.strip():
            raise ConfigError(f"camera '{text}' has no pipeline", "for example gst:videotestsrc")
        return CameraUri(scheme, body, {}, name)
    if scheme == "test":
        return _checked(CameraUri(scheme, "", _pairs(body, ",", text), name), text)
    target, _, query = body.partition("?")
    if not target and scheme != "aravis":
        raise ConfigError(f"camera '{text}' names no path", f"write {scheme}:PATH")
    if scheme == "csi" and not target.isdigit():
        raise ConfigError(f"camera '{text}': csi: takes the number of a sensor", "write csi:0")
    return _checked(CameraUri(scheme, target, _pairs(query, "&", text), name), text)


def values(uri: CameraUri) -> dict[str, object]:
    """The options as numbers and truth values."""
    readers = OPTIONS[uri.scheme]
    return {key: readers[key](text) for key, text in uri.options.items() if key in readers}


def features(uri: CameraUri) -> dict[str, str]:
    """Options that are GenICam features of the camera: their names begin with a capital."""
    return {key: text for key, text in uri.options.items() if _is_feature(uri.scheme, key)}


def is_live(uri: CameraUri) -> bool:
    """Whether the camera runs by itself; `latest` is then the promise that can be kept."""
    if uri.scheme == "aravis":
        return uri.options.get("trigger", "off") == "off"
    return uri.scheme in ("device", "csi", "gst") or uri.scheme in NETWORK_SCHEMES


def takes_orders(uri: CameraUri) -> bool:
    """Whether the camera waits to be triggered by the line."""
    how = uri.options.get("trigger", "off").lower()
    if uri.scheme == "aravis":
        return how == "software"
    return uri.scheme == "test" and how in ("true", "yes", "1")


def open_source(uri: CameraUri, clock: Clock = SYSTEM_CLOCK) -> Source:
    """The source for a parsed URI, not yet opened. Each kind is imported when it is used."""
    if uri.scheme in NETWORK_SCHEMES:
        from .network import NetworkSource

        return NetworkSource(uri.target, clock)
    options = values(uri)
    if uri.scheme == "device":
        from .opencv import DeviceSource

        return DeviceSource(uri.target, clock, **options)  # type: ignore[arg-type]
    if uri.scheme in ("gst", "csi"):
        from .csi import csi_pipeline
        from .gstreamer import GStreamerSource

        if uri.scheme == "gst":
            return GStreamerSource(uri.target, clock)
        pipeline = csi_pipeline(int(uri.target), **options)  # type: ignore[arg-type]
        return GStreamerSource(
            pipeline,
            clock,
            f"csi:{uri.target}",
            "is this a Jetson, and the sensor connected? After an unclean exit: "
            "systemctl restart nvargus-daemon",
        )
    if uri.scheme == "aravis":
        from .aravis import AravisSource
        from .aravis_software import TriggeredAravis
        from .genicam_settings import GenicamSettings

        names = {one.name for one in fields(GenicamSettings)} & options.keys()
        settings = GenicamSettings(
            **{name: options.pop(name) for name in names},  # type: ignore[arg-type]
            features=features(uri),
        )
        if settings.trigger.lower() == "software":
            return TriggeredAravis(uri.target, clock, settings, **options)  # type: ignore[arg-type]
        if "answer_ms" in options:
            raise ConfigError("answer_ms= is of a software trigger", "add trigger=software")
        return AravisSource(uri.target, clock, settings, **options)  # type: ignore[arg-type]
    if uri.scheme == "file":
        from .video_file import VideoFileSource

        return VideoFileSource(Path(uri.target), clock, **options)  # type: ignore[arg-type]
    if uri.scheme == "watch":
        from .watch_folder import WatchFolderSource

        return WatchFolderSource(Path(uri.target), clock, **options)  # type: ignore[arg-type]
    if uri.scheme == "dir":
        from .still_folder import StillFolderSource

        return StillFolderSource(Path(uri.target), clock, **options)  # type: ignore[arg-type]
    from .pattern import PatternSource

    if not options.pop("trigger", False):
        for key in options:
            if key in _OF_TRIGGERS - {"count"}:
                raise ConfigError(f"'{key}' is of a test camera with triggers", "add trigger=true")
        return PatternSource(clock, **options)  # type: ignore[arg-type]
    if "rate" in options:
        raise ConfigError("a test camera with triggers has no rate of its own", "leave rate out")
    from .triggered_pattern import TriggeredPattern

    own: dict[str, object] = {key: options.pop(key) for key in _OF_TRIGGERS if key in options}
    if "seed" in options:
        own["seed"] = options["seed"]
    return TriggeredPattern(PatternSource(clock, **options), clock, **own)  # type: ignore[arg-type]


def _split_name(text: str) -> tuple[str | None, str]:
    match = _NAME.fullmatch(text)
    # "test:seed=1" has its colon before the equals sign, so only a bare word is a name.
    return (match["name"], match["rest"]) if match else (None, text)


def _pairs(query: str, separator: str, text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in filter(None, query.split(separator)):
        key, equals, value = item.partition("=")
        if not equals or not value:
            raise ConfigError(f"camera '{text}': '{item}' is not of the form key=value")
        if key in pairs:
            raise ConfigError(f"camera '{text}': the key '{key}' is given twice")
        pairs[key] = value
    return pairs


def _checked(uri: CameraUri, text: str) -> CameraUri:
    readers = OPTIONS[uri.scheme]
    for key, value in uri.options.items():
        if _is_feature(uri.scheme, key):
            continue
        if key not in readers:
            raise ConfigError(
                f"camera '{text}': the key '{key}' is not known", _nearest(key, list(readers), "=")
            )
        try:
            readers[key](value)
        except (ValueError, KeyError) as error:
            raise ConfigError(
                f"camera '{text}': '{value}' is not a possible value of '{key}'"
            ) from error
    return uri


def _is_feature(scheme: str, key: str) -> bool:
    return scheme == "aravis" and key[:1].isupper()


def _nearest(word: str, known: list[str], mark: str) -> str:
    marked = [f"{one}{mark}" for one in known]
    return nearest(f"{word}{mark}", marked, "known: " + ", ".join(known))
