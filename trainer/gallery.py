"""Chooses the few maps that a report shows, while any number of images passes by."""

from __future__ import annotations

import math

from .scorer import Scored

GALLERY_SIZE = 6


class Gallery:
    """The few maps worth keeping: bounded however many images pass by."""

    def __init__(self) -> None:
        self.good: list[Scored] = []
        self.defective: list[Scored] = []
        self.clearest: dict[str, Scored] = {}

    def offer(self, item: Scored) -> None:
        rank = math.inf if math.isnan(item.score) else item.score
        if not item.sample.is_defective:
            self.good = sorted([*self.good, item], key=lambda s: -s.score)[:GALLERY_SIZE]
            return
        self.defective = sorted([*self.defective, item], key=lambda s: s.score)[:GALLERY_SIZE]
        best = self.clearest.get(item.sample.defect)
        if best is None or rank > best.score:
            self.clearest[item.sample.defect] = item

    def chosen(self) -> tuple[Scored, ...]:
        every = [*self.good, *self.defective, *self.clearest.values()]
        return tuple({item.sample.path: item for item in every}.values())
