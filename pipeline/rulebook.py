"""What the parts of one plan are judged by: its threshold, its regions, what operators changed.

A rulebook is replaced as a whole, so that a part is judged by one revision and its event names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from ..calibration.regions import REST, RegionMask
from ..engine.spec import Threshold
from . import wire_messages as wire
from .decide import Rule
from .view import View

_MOST_KEPT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Rulebook:
    """Immutable; `changed` gives the next one."""

    threshold: Threshold
    """The plan's; its revision counts up with every change."""
    model: wire.ModelFields
    """How events name plan and threshold."""
    changes: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(camera or "" for all, region) -> threshold, from operators."""
    _rules: dict[tuple[str, View, tuple[int, int]], tuple[Rule, ...]] = field(
        default_factory=dict, init=False, repr=False
    )
    """Kept here, so that they go when the rulebook goes."""

    def rules(self, camera: str, view: View, image_size: tuple[int, int]) -> tuple[Rule, ...]:
        """One rule for each region of a picture of this size. Raises ConfigError as `view.masks`
        and `view.transform`."""
        key = (camera, view, image_size)
        found = self._rules.get(key)
        if found is None:
            if len(self._rules) >= _MOST_KEPT:  # a folder of pictures of ever other sizes
                self._rules.clear()
            found = self._rules[key] = self._made(camera, view, image_size)
        return found

    def _made(self, camera: str, view: View, image_size: tuple[int, int]) -> tuple[Rule, ...]:
        masks = view.masks(image_size)
        if not masks:
            return (Rule(self.value(camera), self.threshold.review_value),)
        return tuple(_rule(self, camera, mask) for mask in masks)

    def value(self, camera: str, region: str = REST, own: float | None = None) -> float:
        """The threshold of a region; `own` is what was stored for it, None where it follows the
        image's."""
        for key in ((camera, region), ("", region)):
            if key in self.changes:
                return self.changes[key]
        if own is not None:
            return own
        return self.threshold.value if region == REST else self.value(camera)

    def changed(self, camera: str, region: str, value: float) -> Rulebook:
        """The next revision: `camera` "" means all cameras, also those changed by name before."""
        kept = {
            key: old
            for key, old in self.changes.items()
            if key[1] != region or camera not in ("", key[0])
        }
        revision = self.threshold.revision + 1
        return Rulebook(
            msgspec.structs.replace(self.threshold, revision=revision),
            msgspec.structs.replace(self.model, thr_rev=revision),
            {**kept, (camera, region): value},
        )


def _rule(book: Rulebook, camera: str, region: RegionMask) -> Rule:
    value = book.value(camera, region.name, region.threshold)
    follows = region.threshold is None
    review = book.threshold.review_value if follows else region.review_value
    grow = region.grow_threshold
    return Rule(
        threshold=value,
        review_value=review,
        # An operator may have moved the threshold below where growth was to stop.
        grow=None if grow is None else min(grow, value),
        min_area_px=region.min_area_px,
        min_area_mm2=region.min_area_mm2,
        name=region.name,
        # One region without a hole needs no mask, and the engine's own score then holds.
        mask=None if bool(region.mask.all()) else region.mask,
    )
