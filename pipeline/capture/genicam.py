"""GigE Vision and USB3 Vision cameras: which are there, opening one, and what went wrong in words.

Aravis says "write_register timeout" when another program holds the camera, and "not found" for
all the rest; an operator needs to hear which of the usual causes it is.
"""

from __future__ import annotations

import ipaddress
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import CameraError

_CONTROL_REGISTER = 0x0A00
"""GigE Vision's control channel privilege; bit 1 is set while somebody controls the camera."""
_DISPOSERS = 3
"""So many dead handles may wind up at once; the next one is waited for."""
_LISTING = threading.Lock()
"""Aravis keeps one list for the process; another camera's thread must not renew it meanwhile."""
_RECEIVE_LIMIT = Path("/proc/sys/net/core/rmem_max")


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """One camera that answered. `names` are what may be written after `aravis:`."""

    device_id: str
    serial: str
    address: str
    model: str
    protocol: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.device_id, self.serial, self.address)

    def __str__(self) -> str:
        return f"{self.device_id} ({self.model}, serial {self.serial}, {self.address})"


def list_cameras(aravis: Any) -> list[FoundCamera]:
    """Every camera that answers a broadcast or is on USB; takes about a second."""
    with _LISTING:
        aravis.update_device_list()
        return _listed(aravis)


def _listed(aravis: Any) -> list[FoundCamera]:
    return [
        FoundCamera(
            device_id=aravis.get_device_id(index) or "",
            serial=aravis.get_device_serial_nbr(index) or "",
            address=aravis.get_device_address(index) or "",
            model=" ".join(
                filter(None, (aravis.get_device_vendor(index), aravis.get_device_model(index)))
            ),
            protocol=aravis.get_device_protocol(index) or "",
        )
        for index in range(aravis.get_n_devices())
    ]


def choose(wanted: str, found: list[FoundCamera]) -> FoundCamera:
    """The camera called `wanted` (id, serial or address); "" is the only one there is.

    Raises CameraError that names those that were found.
    """
    there = ", ".join(str(one) for one in found)
    fitting = [one for one in found if not wanted or wanted in one.names]
    if len(fitting) == 1:
        return fitting[0]
    name = f"camera aravis:{wanted}"
    if fitting:
        raise CameraError(f"{name}: {len(fitting)} cameras fit", f"name one; found: {there}")
    raise CameraError(
        f"{name} is not found" if wanted else "no GigE Vision or USB3 Vision camera is found",
        f"found these: {there}"
        if found
        else "nothing answers: check power and cable, that camera and box are in one network, and "
        "for USB that this user may open the device",
    )


def is_address(text: str) -> bool:
    """Whether `text` is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def open_camera(aravis: Any, wanted: str) -> tuple[Any, FoundCamera]:
    """(an Aravis camera that this process controls, which one it is). Raises CameraError.

    An address is asked directly, which is quick and crosses subnets; a name needs a broadcast.
    """
    found = None if is_address(wanted) else choose(wanted, list_cameras(aravis))
    try:
        camera = aravis.Camera.new(wanted if found is None else found.device_id)
        if found is None:
            found = FoundCamera(
                camera.get_device_id() or wanted,
                camera.get_device_serial_number() or "",
                wanted,
                f"{camera.get_vendor_name()} {camera.get_model_name()}",
                "GigEVision",
            )
    except Exception as error:
        raise explained(error, wanted) from error
    if camera.is_gv_device() and not camera.get_device().is_controller():
        dispose([camera])
        del camera
        raise CameraError(
            f"camera aravis:{wanted} is in use by another client",
            "close the other program (a viewer?); after a crash the camera frees itself in seconds",
        )
    return camera, found


def explained(error: Exception, wanted: str) -> CameraError:
    """What Aravis reported, as a sentence and what to do. Other errors are bugs: raised again."""
    if type(error).__name__ not in ("Error", "GError"):
        raise error
    text = str(getattr(error, "message", error))
    lower = text.lower()
    name = f"camera aravis:{wanted}"
    if "device" in lower and ("not found" in lower or "can't connect" in lower):
        hint = "check power, cable and address; aravis: without a name lists what answers"
        return CameraError(f"{name} is not found", hint)
    if "access" in lower or "permission" in lower or "busy" in lower:
        return CameraError(
            f"{name} is in use by another client, or this user may not open it ({text})",
            "close the other program; for USB3 Vision install the vendor's udev rule",
        )
    if "timeout" in lower:
        return CameraError(
            f"{name} does not answer ({text})",
            "is it in use by another client? Check power, cable and network",
        )
    return CameraError(f"{name}: {text}", "arv-tool-0.8 shows what the camera offers")


def still_controlled(camera: Any) -> bool:
    """Ask the camera itself whether this process controls it: an idle camera is not a dead one.

    A GigE camera that is gone, or was restarted, or belongs to somebody else by now, says no (or
    nothing, which takes a few seconds). USB3 Vision reports its own loss.
    """
    if not camera.is_gv_device():
        return True
    try:
        return bool(camera.get_device().read_register(_CONTROL_REGISTER) & 0x2)
    except Exception as error:
        if type(error).__name__ not in ("Error", "GError"):
            raise
        return False


def dispose(handles: list[Any]) -> None:
    """Let go of handles to a camera that does not answer, first to last.

    Aravis says goodbye to such a camera with four time-outs, ten seconds in all; they pass in a
    thread, so that the camera can be opened again as soon as it is back.
    """
    waiting = [one for one in threading.enumerate() if one.name == "camera-disposer"]

    def let_go() -> None:
        while handles:
            del handles[0]

    if len(waiting) >= _DISPOSERS:
        let_go()
    else:
        threading.Thread(target=let_go, name="camera-disposer", daemon=True).start()


def receive_limit_bytes() -> int | None:
    """The largest socket buffer the kernel grants, None where that cannot be read."""
    try:
        return int(_RECEIVE_LIMIT.read_text())
    except (OSError, ValueError):
        return None
