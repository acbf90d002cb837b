"""GObject libraries (Aravis, GStreamer), imported when a camera needs them and not before.

They are system packages, and PyGObject is what Python sees them through; on a machine without
them every other camera works, and the message names what to install.
"""

from __future__ import annotations

from typing import Any

from ...errors import ConfigError, MissingExtra

PACKAGES = {
    "Aravis": "gir1.2-aravis-0.8",
    "Gst": "gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good",
    "GstApp": "gir1.2-gst-plugins-base-1.0",
}
_VERSIONS = {"Aravis": "0.8", "Gst": "1.0", "GstApp": "1.0"}


def load(name: str, purpose: str) -> Any:
    """The GObject library `name`. Raises ConfigError naming what to install."""
    try:
        import gi
    except ImportError as error:
        raise MissingExtra("PyGObject", "aravis", purpose) from error
    try:
        gi.require_version(name, _VERSIONS[name])
        return getattr(__import__("gi.repository", fromlist=[name]), name)
    except (ValueError, ImportError, AttributeError) as error:
        raise ConfigError(
            f"{purpose} needs the system library {name} {_VERSIONS[name]}, which is not installed",
            f"on Debian and Ubuntu: apt install {PACKAGES[name]}",
        ) from error
