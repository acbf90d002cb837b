"""Another plan while the line runs: loaded and warmed beside, swapped in between two batches.

    control thread   load, check, open, warm up .......... ask for the swap, wait; close the old one
    infer thread     batch, batch, batch, ...... [swap] batch, batch

When anything fails the old plan goes on: the order is refused with the reason, alarm
"reload_failed". The plan before is remembered for a rollback: its bytes, not its engine, so that
two engines share the device only while a change is under way.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ..engine.backends.base import Engine
from ..errors import SkrdError
from .control_port import ControlRefused
from .line_plan import LinePlan, PlanSlot, release, warmed_engine
from .outlet import Alarm

log = logging.getLogger(__name__)
SWAP_LIMIT_S = 15.0
"""How long the infer thread may take to come to the end of a batch."""
LoadPlan = Callable[[str, str], LinePlan]
"""(name of the slot, path) -> the plan. Raises a class of skrd4ad.errors."""


@dataclass(slots=True, eq=False)
class _Swap:
    slot: PlanSlot
    plan: LinePlan
    engine: Engine
    remember: LinePlan | None
    """What the slot's rollback goes back to afterwards."""
    state: str = "waiting"
    """"waiting", then "done", or "given up" by whoever asked, or "refused" by the end."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    settled: threading.Event = field(default_factory=threading.Event)
    old: Engine | None = None


class PlanChanges:
    """One change at a time. `say` posts alarms."""

    def __init__(
        self,
        load: LoadPlan | None,
        say: Callable[[Alarm], None],
        swap_limit_s: float = SWAP_LIMIT_S,
    ) -> None:
        self._load, self._say, self._swap_limit_s = load, say, swap_limit_s
        self._busy = threading.Lock()
        self._swaps: queue.SimpleQueue[_Swap] = queue.SimpleQueue()
        self._ended = threading.Event()

    # ---- the thread that gives the order ---------------------------------------------------

    def reload(self, slot: PlanSlot, path: str) -> str:
        """The digest of the plan at `path`, once it judges. Raises ControlRefused."""
        load = self._load
        if load is None:
            raise ControlRefused(
                "this line was started without a way to load plans",
                "drain it, and start it again with the new plan",
            )
        return self._change(slot, lambda: load(slot.name, path), path)

    def rollback(self, slot: PlanSlot) -> str:
        """Back to the plan before the last change; a second one goes forth again."""
        previous = slot.previous
        if previous is None:
            raise ControlRefused("this plan is the first one since the line started")
        return self._change(slot, lambda: previous, "the plan before")

    def _change(self, slot: PlanSlot, load: Callable[[], LinePlan], what: str) -> str:
        if not self._busy.acquire(blocking=False):
            raise ControlRefused("another plan is being loaded", "ask again when it has ended")
        try:
            plan = load()
            slot.check_fit(plan)
            engine = warmed_engine(plan)
            self._swapped(_Swap(slot, plan, engine, remember=slot.plan))
        except Exception as error:
            # Backends raise classes of their own; whatever it was, the old plan goes on.
            text = (
                error.sentence
                if isinstance(error, SkrdError)
                else f"{type(error).__name__}: {error}"
            )
            hint = error.hint if isinstance(error, SkrdError) else ""
            log.warning("%s was refused: %s", what, text)
            # It ends at once: the line is as it was, but somebody should know.
            self._say(Alarm("reload_failed", True, text))
            self._say(Alarm("reload_failed", False, "the old plan keeps running"))
            raise ControlRefused(f"the old plan keeps running: {text}", hint) from error
        finally:
            self._busy.release()
        log.info("now on %s (%s)", what, plan.model.plan[:19])
        return plan.model.plan

    def _swapped(self, swap: _Swap) -> None:
        self._swaps.put(swap)
        if self._ended.is_set():
            self._refuse_waiting()
        swap.settled.wait(self._swap_limit_s)
        with swap.lock:
            if swap.state == "waiting":
                swap.state = "given up"
        if swap.state != "done":
            release(swap.engine)
            why = "the line is ending" if swap.state == "refused" else "the engine does not return"
            raise ControlRefused(why)
        if swap.old is not None:
            release(swap.old)

    # ---- the infer thread ------------------------------------------------------------------

    def swap_if_asked(self) -> None:
        """Between two batches."""
        while not self._swaps.empty():
            swap = self._swaps.get()
            with swap.lock:
                if swap.state == "waiting":
                    swap.old = swap.slot.install(swap.plan, swap.engine)
                    swap.slot.previous = swap.remember
                    swap.state = "done"
            swap.settled.set()

    def end(self) -> None:
        """Nothing is swapped any more."""
        self._ended.set()
        self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        while not self._swaps.empty():
            try:
                swap = self._swaps.get_nowait()
            except queue.Empty:
                return
            with swap.lock:
                if swap.state == "waiting":
                    swap.state = "refused"
            swap.settled.set()
