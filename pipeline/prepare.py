"""From a frame to the network's input, in whichever thread has time for it.

Resizing is most of what a part costs beside the network, and it runs without the interpreter lock.
So a camera's thread does it while the infer thread is busy; when the infer thread would only wait
for the part, it does it itself, which is sooner. Both call the same function.
"""

from __future__ import annotations

from dataclasses import replace

from ..engine.backends.base import Engine
from ..engine.preprocess import to_network_input
from ..engine.spec import InputSpec
from ..errors import ConfigError
from .admission import Admission
from .clock import Clock
from .records import Frame, Prepared


def prepare(frame: Frame, spec: InputSpec, clock: Clock) -> Prepared:
    """The input of a network that takes `spec`; a frame that has none says why. Never raises."""
    if frame.pixels is None:
        return Prepared(spec, None, frame.failure or "no_frame", frame.detail, 0)
    began_ns = clock.mono_ns()
    try:
        values = to_network_input(frame.pixels, spec)
    except (ConfigError, ValueError) as error:
        return Prepared(spec, None, "wrong_image", str(error), clock.mono_ns() - began_ns)
    return Prepared(spec, values, "", "", clock.mono_ns() - began_ns)


def prepared_early(
    frame: Frame, admission: Admission, engine: Engine | None, clock: Clock
) -> Frame:
    """Called in the camera's thread before a frame is admitted: with its input, or as it is."""
    if engine is None or not admission.may_prepare(frame.camera):
        return frame
    return replace(frame, prepared=prepare(frame, engine.manifest.input, clock))


def prepared_for(frame: Frame, spec: InputSpec, clock: Clock) -> Prepared:
    """What the camera's thread has made, when it is for this network; made now otherwise."""
    ready = frame.prepared
    return ready if ready is not None and ready.spec == spec else prepare(frame, spec, clock)
