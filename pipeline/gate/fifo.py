"""Which part is at the gate, and what is known about it. Pure: positions in, decisions out.

A part's place on the belt is where it was announced plus the delay, in nanoseconds or encoder
counts. Its verdict finds it by its number and must agree with what was announced; a verdict that
is late, repeated, foreign or contradictory never acts on another part. A part without a verdict
at the gate is rejected.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import Literal

from ..records import Announced, Part, Verdict

Cause = Literal["ok", "ng", "review", "err", "missing", "mismatch", "refused", "not_running"]
Told = Literal["taken", "late", "repeated", "unknown", "mismatch"]
"""What became of a verdict that was told."""
MAX_PARTS = 10_000
"""Between camera and gate; more mean that the belt or its encoder stands still."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate does with one part, when it is there."""

    camera_seq: int | None
    """None for a part that the line had refused."""
    part: Part
    reject: bool
    cause: Cause
    late_by: float
    """How far past its place the part is, in the unit of the positions."""
    in_time: bool
    """False: the output would hit another part, so it must not act."""


@dataclass(slots=True, eq=False)
class _Slot:
    due: float
    camera_seq: int | None
    part: Part
    cause: Cause = "missing"
    settled: bool = False


@dataclass(slots=True)
class GateFifo:
    """The parts between camera and gate. Not thread-safe.

    `delay` and `tolerance` in the unit of the positions; `pass_review` lets `review` pass.
    """

    delay: float
    tolerance: float
    pass_review: bool = False
    skipped: int = 0
    """Parts whose numbers were left out between two announcements."""
    unplaced: int = 0
    """Parts that found no place: too many between camera and gate."""
    _slots: list[_Slot] = field(default_factory=list)
    _by_seq: dict[int, _Slot] = field(default_factory=dict)
    _newest: int = 0

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def next_due(self) -> float | None:
        return self._slots[0].due if self._slots else None

    def announce(self, part: Announced, position: float) -> bool:
        """A part was at the camera when the belt was at `position`; False: it finds no place."""
        if self._newest and part.camera_seq > self._newest + 1:
            self.skipped += part.camera_seq - self._newest - 1
        if part.camera_seq <= self._newest:
            return False  # announced before; its place is taken, or it has passed
        self._newest = part.camera_seq
        slot = _Slot(position + self.delay, part.camera_seq, part.part)
        if not self._place(slot):
            return False
        self._by_seq[part.camera_seq] = slot
        return True

    def refuse(self, part: Part, position: float) -> bool:
        """A part was at the camera that the line did not take: it is rejected."""
        return self._place(_Slot(position + self.delay, None, part, "refused", settled=True))

    def tell(self, camera_seq: int, part: Part, verdict: Verdict, trusted: bool = True) -> Told:
        """The verdict of a part. Not `trusted`: given while the line was not running."""
        slot = self._by_seq.get(camera_seq)
        if slot is None:
            return "late" if camera_seq <= self._newest else "unknown"
        if (slot.part.part_id, slot.part.trigger_seq) != (part.part_id, part.trigger_seq):
            slot.cause, slot.settled = "mismatch", True
            return "mismatch"
        cause: Cause = verdict.value if trusted or verdict is not Verdict.OK else "not_running"
        if slot.settled and slot.cause != cause:
            slot.cause = "mismatch"
            return "mismatch"
        if slot.settled:
            return "repeated"
        slot.cause, slot.settled = cause, True
        return "taken"

    def due(self, position: float) -> list[Decision]:
        """Decide on all parts whose place has come, nearest first; each is decided on once."""
        decisions = []
        while self._slots and self._slots[0].due <= position:
            slot = self._slots.pop(0)
            if slot.camera_seq is not None:
                del self._by_seq[slot.camera_seq]
            late_by = position - slot.due
            decisions.append(
                Decision(
                    camera_seq=slot.camera_seq,
                    part=slot.part,
                    reject=not self._passes(slot.cause),
                    cause=slot.cause,
                    late_by=late_by,
                    in_time=late_by <= self.tolerance,
                )
            )
        return decisions

    def _passes(self, cause: Cause) -> bool:
        return cause == "ok" or (cause == "review" and self.pass_review)

    def _place(self, slot: _Slot) -> bool:
        if len(self._slots) >= MAX_PARTS:
            self.unplaced += 1
            return False
        insort(self._slots, slot, key=lambda one: one.due)
        return True
