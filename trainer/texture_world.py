"""A procedural world of textures and shapes that has nothing to do with any inspected part.

Each image is a mosaic of warped cells, every cell filled with one of `TEXTURES` in two random
colours, with a few shapes on top, seen under uneven light and sensor noise. The targets are what a
network must know to describe a surface: which texture, and the colours without light and noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[Any]  # float32
Pattern = Callable[[np.random.Generator, Plane, Plane, float], Plane]


class Mosaic(NamedTuple):
    """`seen` and `clean` float32 (side, side, 3) in 0..1; `kind` uint8 (side, side)."""

    seen: Plane
    clean: Plane
    kind: NDArray[np.uint8]


def _grating(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    return 0.5 + 0.5 * np.sin(2 * np.pi * u / period)


def _stripes(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    duty = rng.uniform(0.2, 0.8)
    return ((u / period) % 1.0 < duty).astype(np.float32)


def _checks(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    return ((np.floor(u / period) + np.floor(v / period)) % 2).astype(np.float32)


def _dots(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    distance = np.hypot(u % period - period / 2, v % period - period / 2)
    return np.clip(period * rng.uniform(0.2, 0.4) - distance + 0.5, 0, 1)


def _rings(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    distance = np.hypot(u % period - period / 2, v % period - period / 2)
    return np.clip(1.5 - np.abs(distance - period * rng.uniform(0.2, 0.4)), 0, 1)


def _grain(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    noise = rng.standard_normal(u.shape, dtype=np.float32)
    return 0.5 + 0.3 * cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.4, 1.0))


def _cloud(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    coarse = max(3, round(u.shape[0] / period))
    noise = rng.standard_normal((coarse, coarse), dtype=np.float32)
    return 0.5 + 0.35 * cv2.resize(noise, u.shape[::-1], interpolation=cv2.INTER_CUBIC)


def _fibre(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    noise = rng.standard_normal((96, 12), dtype=np.float32)
    across, along = (u * 0.5 + 48) % 95, (v * 0.05 + 6) % 11
    return 0.5 + 0.35 * cv2.remap(noise, along, across, cv2.INTER_LINEAR)


def _bricks(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    row = np.floor(v / period)
    joint = 1.2 + rng.uniform(0, 1)
    return ((v % period < joint) | ((u + row * period) % (2 * period) < joint)).astype(np.float32)


def _hatch(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    return np.maximum(u % period < 1.5, v % period < 1.5).astype(np.float32)


def _circles(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    return 0.5 + 0.5 * np.sin(2 * np.pi * np.hypot(u, v) / period)


def _chevrons(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    return ((u + np.abs(v % (2 * period) - period)) / period % 1.0 < 0.5).astype(np.float32)


def _specks(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    points = (rng.random(u.shape, dtype=np.float32) < 0.02).astype(np.float32)
    return np.clip(cv2.GaussianBlur(points, (0, 0), rng.uniform(0.6, 1.2)) * 6, 0, 1)


def _slope(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    return np.abs((u / (4 * period)) % 2.0 - 1.0)


def _flat(rng: np.random.Generator, u: Plane, v: Plane, period: float) -> Plane:
    return np.zeros_like(u)


TEXTURES: tuple[Pattern, ...] = (
    *(_flat, _grating, _stripes, _checks, _dots, _rings, _grain, _cloud),
    *(_fibre, _bricks, _hatch, _circles, _chevrons, _specks, _slope),
)
SHAPES = ("line", "disc", "polygon", "arc")
KINDS = len(TEXTURES) + len(SHAPES)


def draw_mosaic(rng: np.random.Generator, side: int) -> Mosaic:
    """One image of the world."""
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32)
    owner = _cells(rng, rows, columns, int(rng.integers(1, 6)))
    clean = np.empty((side, side, 3), dtype=np.float32)
    kind = np.empty((side, side), dtype=np.uint8)
    for cell in range(int(owner.max()) + 1):
        inside = owner == cell
        chosen = int(rng.integers(len(TEXTURES)))
        clean[inside] = _surface(rng, rows, columns, chosen)[inside]
        kind[inside] = chosen
    for _ in range(int(rng.integers(0, 5))):
        _shape(rng, clean, kind, side)
    return Mosaic(_see(rng, clean), np.clip(clean, 0, 1), kind)


def _cells(rng: np.random.Generator, rows: Plane, columns: Plane, count: int) -> NDArray[Any]:
    """Voronoi cells with wavy borders: the owner (side, side) of every pixel."""
    side = rows.shape[0]
    wave = 0.06 * side * np.sin(rows * rng.uniform(0.05, 0.2) + columns * rng.uniform(0.05, 0.2))
    centres = rng.uniform(0, side, size=(count, 2)).astype(np.float32)
    distances = np.stack([np.hypot(rows - y + wave, columns - x - wave) for y, x in centres])
    owner: NDArray[np.int64] = distances.argmin(axis=0)
    return owner


def _surface(rng: np.random.Generator, rows: Plane, columns: Plane, chosen: int) -> Plane:
    angle, side = rng.uniform(0, np.pi), rows.shape[0]
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    y, x = rows - rng.uniform(0, side), columns - rng.uniform(0, side)
    period = float(np.exp(rng.uniform(np.log(4.0), np.log(16.0))))
    share = TEXTURES[chosen](rng, cosine * x + sine * y, cosine * y - sine * x, period)
    one, other = _two_colours(rng)
    surface: Plane = one + share[..., None].astype(np.float32) * (other - one)
    return surface


def _two_colours(rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Two colours whose contrast runs from faint to full; half of the worlds is nearly grey."""
    one = rng.uniform(0, 1, size=3)
    other = np.clip(
        one + rng.choice((-1, 1)) * rng.uniform(0.08, 0.7) + rng.normal(0, 0.15, 3), 0, 1
    )
    saturation = rng.uniform(0, 1) if rng.random() < 0.6 else 0.1
    pair = [c.mean() + saturation * (c - c.mean()) for c in (one, other)]
    return pair[0].astype(np.float32), pair[1].astype(np.float32)


def _shape(rng: np.random.Generator, clean: Plane, kind: NDArray[np.uint8], side: int) -> None:
    """Paint one antialiased shape onto `clean` and note its kind, in place."""
    which = int(rng.integers(len(SHAPES)))
    cover = np.zeros((side, side), dtype=np.uint8)
    thickness = int(rng.integers(1, 6))
    x, y = (int(v) for v in rng.integers(0, side, size=2))
    if SHAPES[which] == "line":
        path = np.cumsum(rng.integers(-side // 3, side // 3 + 1, size=(3, 2)), axis=0) + (x, y)
        cv2.polylines(cover, [path.astype(np.int32)], False, 255, thickness, cv2.LINE_AA)
    elif SHAPES[which] == "disc":
        cv2.circle(cover, (x, y), int(rng.integers(2, side // 5)), 255, -1, cv2.LINE_AA)
    elif SHAPES[which] == "arc":
        axes = tuple(int(v) for v in rng.integers(3, side // 3, size=2))
        start = float(rng.uniform(0, 360))
        end = start + float(rng.uniform(60, 360))
        cv2.ellipse(cover, (x, y), axes, start, 0, end - start, 255, thickness, cv2.LINE_AA)
    else:
        corners = rng.integers(-side // 4, side // 4 + 1, size=(4, 2)) + (x, y)
        cv2.fillConvexPoly(cover, cv2.convexHull(corners.astype(np.int32)), 255, cv2.LINE_AA)
    opacity = cover.astype(np.float32)[..., None] / 255
    clean += (_two_colours(rng)[0] - clean) * opacity
    kind[cover > 127] = len(TEXTURES) + which


def _see(rng: np.random.Generator, clean: Plane) -> Plane:
    """Uneven light, a little defocus and sensor noise."""
    side = clean.shape[0]
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    slope = rng.uniform(-0.2, 0.2, size=2).astype(np.float32)
    light = np.float32(rng.uniform(0.75, 1.25)) * (
        1 + slope[0] * ramp[None] + slope[1] * ramp[:, None]
    )
    image = cv2.GaussianBlur(clean, (3, 3), rng.uniform(0.3, 0.8)) * light[..., None]
    image += rng.uniform(0.0, 0.03) * rng.standard_normal(clean.shape, dtype=np.float32)
    seen: Plane = np.clip(image, 0, 1).astype(np.float32)
    return seen
