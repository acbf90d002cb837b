"""docs/line.md, with docs/cameras.md, names every camera scheme, option and station key."""

from __future__ import annotations

from pathlib import Path

from skrd4ad.pipeline.capture.uri import NETWORK_SCHEMES, OPTIONS
from skrd4ad.pipeline.station import Station, StationCamera

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "line.md").read_text()
CAMERAS = (DOCS / "cameras.md").read_text()


def test_every_camera_option_is_documented() -> None:
    for scheme, options in OPTIONS.items():
        assert scheme == "device" or f"`{scheme}:" in PAGE
        for option in options:
            assert f"{option}=" in PAGE + CAMERAS, f"{scheme}: {option}"
    for scheme in NETWORK_SCHEMES:
        assert f"`{scheme}://`" in PAGE


def test_every_station_key_is_documented() -> None:
    for key in Station.__struct_fields__:
        if key not in ("version", "cameras", "publish"):
            assert f"`{key}`" in PAGE, key
    for key in StationCamera.__struct_fields__:
        assert f"{key}`" in PAGE, key
