"""The six defects of a rendered part: what is damaged, where, and how it is painted.

Lengths are in reference pixels (256 across the image). Geometry changes (a lead, the pose) are
plain numbers that the renderer applies; surface changes (chip, scratch, stain) paint themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .strokes import fill, stroke

DEFECTS = ("bent_lead", "cut_lead", "damaged_case", "misplaced", "scratch", "stain")
"""In the order of their folders; a part's defect is drawn from its own random stream."""

Plane = NDArray[Any]  # float32
Points = NDArray[Any]  # float64 (n, 2)


@dataclass(frozen=True)
class Chip:
    """A piece broken off the case: `missing` shows the board, `fracture` the rough inside."""

    missing: Points
    fracture: Points

    def cut(self, outline: NDArray[np.uint8], scale: float) -> None:
        """Take the missing piece out of the case's outline."""
        fill(outline, self.missing, scale, value=0)

    def break_surface(self, grey: Plane, grain: Plane, scale: float) -> None:
        """Paint the rough, lighter fracture face onto the case's grey levels, in place."""
        face = np.zeros(grey.shape, dtype=np.uint8)
        fill(face, self.fracture, scale)
        rough = cv2.blur(grain, (3, 3)) * 34.0 + 118.0
        grey += (rough - grey) * (face.astype(np.float32) / 255)


@dataclass(frozen=True)
class Scratch:
    """A bright groove with a dark burr beside it."""

    path: Points
    width: float
    brightness: float

    def draw(self, grey: Plane, scale: float) -> None:
        """Paint the groove onto the case's grey levels, in place."""
        for offset, level in ((1.5, 12.0), (0.0, self.brightness)):
            groove = np.zeros(grey.shape, dtype=np.uint8)
            stroke(groove, self.path + offset, self.width, 255, scale)
            grey += (level - grey) * (groove.astype(np.float32) * (0.85 / 255))


@dataclass(frozen=True)
class Stain:
    """A translucent splash of dried liquid, darker at its edge."""

    outline: Points
    rgb: tuple[float, float, float]
    strength: float

    def opacity(self, side: int, scale: float) -> Plane:
        """float32 (side, side) in 0..1."""
        blob = np.zeros((side, side), dtype=np.uint8)
        fill(blob, self.outline, scale)
        soft = cv2.blur(blob, (round(5 * scale) | 1,) * 2).astype(np.float32) / 255
        inner = cv2.blur(blob, (round(13 * scale) | 1,) * 2).astype(np.float32) / 255
        plane: Plane = self.strength * soft * (1.0 - 0.35 * inner**2)
        return plane


@dataclass(frozen=True)
class Damage:
    """What one defect changes; everything else stays as in the good part of the same seed."""

    lead: int | None = None
    lead_keep: float = 1.0
    knee_shift: tuple[float, float] = (0.0, 0.0)
    foot_shift: tuple[float, float] = (0.0, 0.0)
    shift: tuple[float, float] = (0.0, 0.0)
    turn_degrees: float = 0.0
    absent: bool = False
    chip: Chip | None = None
    scratch: Scratch | None = None
    stain: Stain | None = None


def draw_damage(rng: np.random.Generator, defect: str) -> Damage:
    """Draw the particulars of one `defect` of DEFECTS from its own random stream."""
    if defect == "bent_lead":
        side = _sign(rng)
        foot = (side * rng.uniform(14, 26), rng.uniform(-22, 6))
        knee = (side * rng.uniform(6, 16), rng.uniform(-8, 4))
        return Damage(lead=int(rng.integers(3)), knee_shift=knee, foot_shift=foot)
    if defect == "cut_lead":
        return Damage(lead=int(rng.integers(3)), lead_keep=float(rng.uniform(0.25, 0.65)))
    if defect == "damaged_case":
        return Damage(chip=_draw_chip(rng))
    if defect == "misplaced":
        return _draw_misplacement(rng)
    if defect == "scratch":
        return Damage(scratch=_draw_scratch(rng))
    if defect == "stain":
        return Damage(stain=_draw_stain(rng))
    raise AssertionError(f"no such defect: {defect}")


def _draw_chip(rng: np.random.Generator) -> Chip:
    corners = ((84, 54), (172, 54), (84, 130), (172, 130), (84, 92), (172, 92), (128, 52))
    centre = np.array(corners[int(rng.integers(len(corners)))], dtype=np.float64)
    centre += rng.uniform(-4, 4, size=2)
    radius = float(rng.uniform(18, 27))
    fracture = _ragged(rng, centre, radius, points=11, raggedness=0.3)
    outward = (centre - np.array([128.0, 92.0])) / 44.0
    missing = _ragged(rng, centre + outward * radius * 0.35, radius * 0.6, 9, 0.3)
    return Chip(missing=missing, fracture=fracture)


def _draw_misplacement(rng: np.random.Generator) -> Damage:
    """Nine in ten parts sit shifted and turned; one in ten is not there at all."""
    if rng.random() < 0.1:
        return Damage(absent=True)
    angle = rng.uniform(0, 2 * np.pi)
    distance = rng.uniform(12, 24)
    shift = (float(distance * np.cos(angle)), float(distance * np.sin(angle)))
    return Damage(shift=shift, turn_degrees=float(_sign(rng) * rng.uniform(6, 28)))


def _draw_scratch(rng: np.random.Generator) -> Scratch:
    start = np.array([rng.uniform(92, 140), rng.uniform(60, 118)])
    heading = rng.uniform(-0.9, 0.9)
    points = [start]
    for _ in range(5):
        heading += rng.uniform(-0.35, 0.35)
        step = rng.uniform(7, 13) * np.array([np.cos(heading), np.sin(heading)])
        points.append(np.clip(points[-1] + step, (88, 56), (168, 128)))
    return Scratch(np.array(points), float(rng.uniform(2.4, 4.2)), float(rng.uniform(130, 200)))


def _draw_stain(rng: np.random.Generator) -> Stain:
    centre = np.array([rng.uniform(56, 200), rng.uniform(56, 190)])
    outline = _ragged(rng, centre, float(rng.uniform(14, 26)), points=16, raggedness=0.22)
    liquids = ((196, 140, 40), (226, 222, 208), (70, 150, 84), (64, 92, 160))
    rgb = np.asarray(liquids[int(rng.integers(len(liquids)))]) + rng.uniform(-12, 12, size=3)
    red, green, blue = (float(v) for v in rgb)
    return Stain(outline, (red, green, blue), float(rng.uniform(0.75, 0.95)))


def _ragged(
    rng: np.random.Generator, centre: Points, radius: float, points: int, raggedness: float
) -> Points:
    """A closed irregular outline (points, 2) about `centre`."""
    angles = np.linspace(0, 2 * np.pi, points, endpoint=False) + rng.uniform(-0.15, 0.15, points)
    radii = radius * (1 + rng.uniform(-raggedness, raggedness, points))
    outline: Points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return outline


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1
