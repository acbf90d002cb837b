"""From a frame to the network's input, in whichever thread has time for it.

Resizing is most of what a part costs beside the network, and it runs without the interpreter lock.
So a camera's thread does it while the infer thread is busy; when the infer thread would only wait
for the part, it does it itself, which is sooner. Both call the same function.
"""

from __future__ import annotations

from dataclasses import replace

from ..engine.preprocess import to_network_input
from ..errors import CalibrationError, ConfigError
from .admission import Admission
from .clock import Clock
from .records import Frame, Prepared
from .view import View


def prepare(frame: Frame, view: View, clock: Clock) -> Prepared:
    """The input of the network that sees `view`; a frame that has none says why. Never raises."""
    if frame.pixels is None:
        return Prepared(view, None, None, None, frame.failure or "no_frame", frame.detail)
    began_ns = clock.mono_ns()
    pixels, to_mm = frame.pixels, None
    try:
        corrected = view.correct(pixels)
        pixels, to_mm = corrected.pixels, corrected.image_to_mm
        values = to_network_input(pixels, view.spec)
        failure = detail = ""
    except CalibrationError as error:
        values, failure, detail = None, "part_not_found", str(error)
    except (ConfigError, ValueError) as error:
        values, failure, detail = None, "wrong_image", str(error)
    return Prepared(view, values, pixels, to_mm, failure, detail, clock.mono_ns() - began_ns)


def prepared_early(frame: Frame, admission: Admission, view: View | None, clock: Clock) -> Frame:
    """Called in the camera's thread before a frame is admitted: with its input, or as it is."""
    if view is None or not admission.may_prepare(frame.camera):
        return frame
    return replace(frame, prepared=prepare(frame, view, clock))


def prepared_for(frame: Frame, view: View, clock: Clock) -> Prepared:
    """What the camera's thread has made, when it is for this view; made now otherwise."""
    ready = frame.prepared
    return ready if ready is not None and ready.view is view else prepare(frame, view, clock)
