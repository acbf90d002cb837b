"""A plan as a line runs it, and the place it has there while the line runs.

One engine for each plan; the infer thread drives all of them in turn, because they share one device
and two threads on it would only make each other late. What judges (plan, engine, views, rulebook)
is one value that is replaced as a whole: a part is never judged by a mixture of two.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from ..engine.backends.base import Engine
from ..engine.spec import Threshold
from ..errors import ConfigError
from . import wire_messages as wire
from .judge import warm_up
from .rulebook import Rulebook
from .view import View
from .waiting import Seat

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class LinePlan:
    """What a line needs of a plan. `name` is the station's; several plans have several names."""

    open_engine: Callable[[], Engine]
    threshold: Threshold
    name: str = ""
    model: wire.ModelFields = field(default_factory=wire.ModelFields)
    """How events name it; `thr_rev` is filled in."""
    views: Mapping[str, View] | None = None
    """By camera, which names the plan's cameras too; None: all, as the plan's input says."""


@dataclass(frozen=True, slots=True, eq=False)
class Judging:
    """Everything that judges the parts of a plan's cameras now."""

    engine: Engine
    views: Mapping[str, View]
    rulebook: Rulebook


class PlanSlot:
    """The place of one plan on the line. `waiting_per_camera` parts of each camera may wait."""

    def __init__(self, plan: LinePlan, cameras: Sequence[str], waiting_per_camera: int = 1) -> None:
        self.name, self.cameras = plan.name, tuple(cameras)
        self.plan = plan
        self.previous: LinePlan | None = None
        """What a rollback goes back to."""
        self.now: Judging | None = None
        """None until the engine is open and warm."""
        self.sizes: dict[str, tuple[int, int]] = {}
        """(height, width) of the pictures that its cameras gave so far."""
        self.seat = Seat(plan.name, batch=1)
        """How many of its parts are judged at once, and with how many waiting is useless."""
        self._fill = waiting_per_camera * len(self.cameras)
        self._lock = threading.Lock()

    @property
    def rulebook(self) -> Rulebook:
        return _first_rulebook(self.plan) if self.now is None else self.now.rulebook

    def open(self) -> None:
        """In the infer thread, once. Raises what the engine raises."""
        self.install(self.plan, warmed_engine(self.plan))

    def install(self, plan: LinePlan, engine: Engine) -> Engine | None:
        """In the infer thread, between two batches: `plan` judges from now on. The old engine."""
        views = plan.views or {}
        plain = View(engine.manifest.input)
        with self._lock:
            old, self.plan = self.now, plan
            seen = {camera: views.get(camera, plain) for camera in self.cameras}
            self.now = Judging(engine, seen, _first_rulebook(plan))
            batch = engine.manifest.batch
            self.seat = Seat(self.name, batch, min(batch, self._fill))
        return None if old is None else old.engine

    def check_fit(self, plan: LinePlan) -> None:
        """Whether `plan` could judge the pictures that the cameras give. Raises ConfigError."""
        for camera, size in self.sizes.items():
            view = None if plan.views is None else plan.views.get(camera)
            if view is not None:
                try:
                    view.check_size(size)
                except ConfigError as error:
                    raise ConfigError(f"camera {camera}: {error.sentence}", error.hint) from error

    def change(self, camera: str, region: str, value: float) -> Rulebook:
        """Judge by another threshold from the next batch on; from any thread."""
        with self._lock:
            assert self.now is not None, "orders come when the line is ready"
            rulebook = self.now.rulebook.changed(camera, region, value)
            self.now = replace(self.now, rulebook=rulebook)
        return rulebook

    def close(self) -> None:
        """In the infer thread, at the end."""
        if self.now is not None:
            release(self.now.engine)


def seats(plans: Sequence[LinePlan], cameras: Sequence[str], per_camera: int) -> list[PlanSlot]:
    """A slot for each plan, with its cameras: those it has views of, or all that no other has."""
    named = {camera for plan in plans for camera in plan.views or ()}
    slots = []
    for plan in plans:
        own = plan.views
        mine = [one for one in cameras if (one in own if own is not None else one not in named)]
        slots.append(PlanSlot(plan, mine, per_camera))
    assigned = sorted(camera for slot in slots for camera in slot.cameras)
    if assigned != sorted(cameras):
        raise ValueError(f"each camera needs one plan: {assigned} of {sorted(cameras)}")
    return slots


def warmed_engine(plan: LinePlan) -> Engine:
    """The plan's engine, entered and warm. Raises what it raises, with nothing left open."""
    engine = plan.open_engine()
    engine.__enter__()
    try:
        warm_up(engine)
    except BaseException:
        release(engine)
        raise
    return engine


def release(engine: Engine) -> None:
    """Leave the engine; a device that fails to let go is no reason to lose a verdict."""
    try:
        engine.__exit__(None, None, None)
    except Exception:
        log.exception("the engine could not be released")


def _first_rulebook(plan: LinePlan) -> Rulebook:
    model = msgspec.structs.replace(plan.model, thr_rev=plan.threshold.revision)
    return Rulebook(plan.threshold, model)
