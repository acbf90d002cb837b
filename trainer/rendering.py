"""A rendered transistor-like part: board, leads, moulded body, light, and one defect with its mask.

Drawing happens in reference units of a 256 × 256 image on a canvas slightly larger than the image.
The board, the part and the defect are drawn undistorted, then the camera's pose is applied once,
then light and sensor noise. A defective part is the good part of the same seed with one thing
changed, so that its mask is a measurement: the pixels that the change altered visibly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .render_defects import DEFECTS, Damage, draw_damage
from .strokes import MARGIN, disc, fill, letter, stroke

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Plane = NDArray[Any]
"""float32 throughout; numpy's own stubs lose that in mixed arithmetic."""

REFERENCE_PX = 256
"""All lengths below are in pixels of an image of this size."""
MIN_SIZE_PX, MAX_SIZE_PX = 64, 2048
VISIBLE_LEVELS = 6.0
"""Grey levels by which a defect must change a pixel for the pixel to belong to its mask."""

HOLE_PITCH = 44.0
BODY = ((84.0, 58.0), (90.0, 52.0), (166.0, 52.0), (172.0, 58.0), (172.0, 132.0), (84.0, 132.0))
LEAD_TOPS = (108.0, 128.0, 148.0)
LEAD_FEET = (128.0 - HOLE_PITCH, 128.0, 128.0 + HOLE_PITCH)
LEAD_FOOT_Y = 202.0
PART_TINT = (1.0, 0.995, 0.985)
GAP_RGB, RIM_RGB, HOLE_RGB = (52, 40, 30), (205, 150, 118), (38, 27, 22)


@dataclass(frozen=True)
class Rendering:
    """One image of one part.

    `pixels` uint8 (size, size, 3) RGB; `mask` bool (size, size), all False for a good part.
    """

    pixels: Pixels
    mask: Mask
    defect: str


@dataclass(frozen=True)
class Variation:
    """Everything in which one good part differs from the next (lengths in reference pixels)."""

    camera_shift: tuple[float, float]
    camera_degrees: float
    part_shift: tuple[float, float]
    part_degrees: float
    lead_wobble: tuple[float, ...]
    lot: str
    board_rgb: tuple[float, float, float]
    body_grey: float
    metal_grey: float
    gain: float
    gradient: tuple[float, float]
    light: tuple[float, float]
    noise_levels: float


def render_part(seed: int, defect: str = "good", size: int = REFERENCE_PX) -> Rendering:
    """Render part number `seed`; the same arguments give the same pixels, always.

    Raises:
        ConfigError: a negative seed, an unknown defect or a size outside 64..2048 pixels.
    """
    check_arguments(seed, defect, size)
    variation = _draw_variation(np.random.default_rng([seed, 0]))
    textures = _Textures(np.random.default_rng([seed, 1]), size)
    board = _board(variation, textures, size / REFERENCE_PX)
    good = _scene(board, variation, textures, None, size)
    if defect == "good":
        mask = np.zeros((size, size), dtype=bool)
        return Rendering(_expose(good, variation, textures), mask, defect)
    damage = draw_damage(np.random.default_rng([seed, 2 + DEFECTS.index(defect)]), defect)
    scene = _scene(board, variation, textures, damage, size)
    mask = _visible_change(good, scene, size)
    return Rendering(_expose(scene, variation, textures), mask, defect)


def check_arguments(seed: int, defect: str, size: int) -> None:
    """Refuse what cannot be rendered (ConfigError)."""
    if seed < 0:
        raise ConfigError(f"the part seed is {seed}", "use 0 or a positive number")
    if defect != "good" and defect not in DEFECTS:
        raise ConfigError(f"there is no defect '{defect}'", f"known: good, {', '.join(DEFECTS)}")
    if not MIN_SIZE_PX <= size <= MAX_SIZE_PX:
        raise ConfigError(
            f"cannot render a part of {size} pixels", f"use {MIN_SIZE_PX} to {MAX_SIZE_PX}"
        )


def _draw_variation(rng: np.random.Generator) -> Variation:
    def uniform(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    angle, slope = uniform(0, 2 * np.pi), uniform(0.0, 0.12)
    tint = uniform(-6, 6)
    return Variation(
        camera_shift=(uniform(-3, 3), uniform(-3, 3)),
        camera_degrees=uniform(-3, 3),
        part_shift=(uniform(-1.5, 1.5), uniform(-1.5, 1.5)),
        part_degrees=uniform(-0.8, 0.8),
        lead_wobble=tuple(uniform(-1.2, 1.2) for _ in range(6)),
        lot=f"{int(rng.integers(1000, 10000))}",
        board_rgb=(172 + tint, 112 + uniform(-4, 4), 84 - tint / 2),
        body_grey=uniform(30, 40),
        metal_grey=uniform(150, 175),
        gain=uniform(0.86, 1.14),
        gradient=(slope * float(np.cos(angle)), slope * float(np.sin(angle))),
        light=(uniform(-0.9, -0.4), uniform(-0.9, -0.5)),
        noise_levels=uniform(1.5, 3.0),
    )


class _Textures:
    """The random surfaces of one part, drawn once so that good and defective share them."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.canvas = round(size * (REFERENCE_PX + 2 * MARGIN) / REFERENCE_PX)
        side = self.canvas
        self.grain = rng.standard_normal((side, side), dtype=np.float32)
        self.cloud = cv2.resize(rng.standard_normal((9, 9), dtype=np.float32), (side, side))
        brushed = rng.standard_normal((side, 24), dtype=np.float32)
        self.fibre = cv2.resize(brushed, (side, side), interpolation=cv2.INTER_LINEAR)
        self.sensor = rng.standard_normal((size, size), dtype=np.float32)


def _scene(
    board: Plane, variation: Variation, textures: _Textures, damage: Damage | None, size: int
) -> Plane:
    """Board, shadow and part as the camera sees them, before light: float32 (size, size, 3)."""
    scale = size / REFERENCE_PX
    side = textures.canvas
    scene = board.copy()
    if damage is None or not damage.absent:
        grey, alpha = _part(variation, textures, damage, scale)
        turn = variation.part_degrees + (damage.turn_degrees if damage else 0.0)
        shift = np.add(variation.part_shift, damage.shift if damage else (0.0, 0.0))
        place = _pose(turn, (float(shift[0]), float(shift[1])), scale, MARGIN * scale)
        paint = cv2.warpAffine(grey * alpha, place, (side, side))
        cover = cv2.warpAffine(alpha, place, (side, side))
        drop = np.array([[1, 0, -7 * scale * variation.light[0]], [0, 1, 4 * scale]])
        shadow = cv2.warpAffine(cv2.blur(cover, (round(9 * scale) | 1,) * 2), drop, (side, side))
        scene *= ((1.0 - 0.45 * shadow) * (1.0 - cover))[..., None]
        scene += paint[..., None] * np.asarray(PART_TINT, dtype=np.float32)
    if damage is not None and damage.stain is not None:
        opacity = damage.stain.opacity(side, scale)[..., None]
        scene += (np.asarray(damage.stain.rgb, dtype=np.float32) - scene) * opacity
    view = _pose(variation.camera_degrees, variation.camera_shift, scale, MARGIN * scale)
    view[:, 2] -= MARGIN * scale
    image: Plane = cv2.warpAffine(scene, view, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return image


def _board(variation: Variation, textures: _Textures, scale: float) -> Plane:
    """Copper strips with gaps and drilled holes, brushed: float32 (canvas, canvas, 3)."""
    bare, paint = _board_pattern(textures.canvas, scale)
    tone = 0.035 * textures.fibre + 0.03 * textures.cloud + 0.02 * textures.grain
    copper = (1.0 + tone) * bare
    board: Plane = paint + copper[..., None] * np.asarray(variation.board_rgb, np.float32)
    return board


@lru_cache(maxsize=4)
def _board_pattern(side: int, scale: float) -> tuple[Plane, Plane]:
    """What is the same on every board of one size: share of bare copper, and colour of the rest."""
    layers = [np.zeros((side, side), dtype=np.uint8) for _ in range(3)]
    for column in range(-4, 5):
        x = 128 + HOLE_PITCH * column
        gap_x = x + HOLE_PITCH / 2
        corners = ((gap_x - 3, -40), (gap_x + 3, -40), (gap_x + 3, 300), (gap_x - 3, 300))
        fill(layers[0], corners, scale)
        for row in range(-6, 4):
            y = LEAD_FOOT_Y + HOLE_PITCH * row
            disc(layers[1], (x - 0.8, y - 0.8), 10.0, scale, value=180)
            disc(layers[2], (x, y), 8.8, scale)
    bare = np.ones((side, side), dtype=np.float32)
    paint = np.zeros((side, side, 3), dtype=np.float32)
    for layer, rgb in zip(layers, (GAP_RGB, RIM_RGB, HOLE_RGB), strict=True):
        opacity = layer.astype(np.float32) / np.float32(255)
        bare *= 1 - opacity
        paint += (np.asarray(rgb, dtype=np.float32) - paint) * opacity[..., None]
    return bare, paint


def _part(
    variation: Variation, textures: _Textures, damage: Damage | None, scale: float
) -> tuple[Plane, Plane]:
    """The part alone: grey levels and opacity, each float32 (canvas, canvas)."""
    side = textures.canvas
    leads = np.zeros((side, side), dtype=np.uint8)
    metal = np.full((side, side), variation.metal_grey * 0.55, dtype=np.uint8)
    for index in range(3):
        path = _lead_path(index, variation, damage)
        stroke(leads, path, 9.0, 255, scale)
        stroke(metal, path, 6.0, variation.metal_grey, scale)
        stroke(metal, path + np.array([-1.6, 0.0]), 2.2, 245, scale)
        stroke(metal, path + np.array([2.6, 0.0]), 1.4, variation.metal_grey * 0.7, scale)
    lead_alpha = leads.astype(np.float32) / 255
    body, body_alpha = _body(variation, textures, damage, scale)
    shiny = metal.astype(np.float32) * (1.0 + 0.10 * textures.cloud + 0.05 * textures.grain)
    return shiny + (body - shiny) * body_alpha, np.maximum(lead_alpha, body_alpha)


def _lead_path(index: int, variation: Variation, damage: Damage | None) -> NDArray[Any]:
    """Corner points (n, 2) of one lead from the body to its hole."""
    top, foot = LEAD_TOPS[index], LEAD_FEET[index]
    knee, ankle = variation.lead_wobble[2 * index], variation.lead_wobble[2 * index + 1]
    path = np.array(
        [[top, 126], [top, 146 + knee], [foot + ankle, 176 + knee], [foot, LEAD_FOOT_Y]]
    )
    if damage is None or damage.lead != index:
        return path
    if damage.lead_keep < 1.0:
        return _shorten(path, damage.lead_keep)
    path[2] += np.asarray(damage.knee_shift)
    path[3] += np.asarray(damage.foot_shift)
    return path


def _shorten(path: NDArray[Any], keep: float) -> NDArray[Any]:
    """The first `keep` (0..1) of the path's length."""
    steps = np.hypot(*np.diff(path, axis=0).T)
    left = keep * float(steps.sum())
    kept = [path[0]]
    for start, end, step in zip(path[:-1], path[1:], steps, strict=True):
        kept.append(start + (end - start) * min(1.0, left / step))
        left -= step
        if left <= 0:
            break
    return np.array(kept)


def _body(
    variation: Variation, textures: _Textures, damage: Damage | None, scale: float
) -> tuple[Plane, Plane]:
    """The moulded case with bevel, sheen, mould mark and lettering; chips and scratches on it."""
    side = textures.canvas
    outline = np.zeros((side, side), dtype=np.uint8)
    fill(outline, BODY, scale)
    if damage is not None and damage.chip is not None:
        damage.chip.cut(outline, scale)
    height = cv2.distanceTransform(outline, cv2.DIST_L2, 3) / (6.0 * scale)
    height = cv2.blur(np.minimum(height, 1.0), (round(3 * scale) | 1,) * 2)
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3) * variation.light[0]
    slope += cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3) * variation.light[1]
    grey = variation.body_grey * (1.0 + 0.05 * textures.grain + 0.04 * textures.cloud)
    grey += -38.0 * scale * slope
    x = (np.arange(side, dtype=np.float32) / scale - MARGIN - 128.0) / 44.0
    grey += (14.0 * np.exp(-((x - 0.55) ** 2) / 0.02) + 9.0 * np.exp(-((x + 0.5) ** 2) / 0.05))[
        None
    ]
    ink = np.zeros((side, side), dtype=np.uint8)
    disc(ink, (128, 82), 11.5, scale, thickness=1.2, value=110)
    letter(ink, "K4D", (110, 108), 0.62, scale)
    letter(ink, variation.lot, (108, 123), 0.46, scale)
    grey += ink.astype(np.float32) * (80.0 / 255)
    if damage is not None and damage.chip is not None:
        damage.chip.break_surface(grey, textures.grain, scale)
    if damage is not None and damage.scratch is not None:
        damage.scratch.draw(grey, scale)
    return grey, outline.astype(np.float32) / 255


def _visible_change(good: Plane, defective: Plane, size: int) -> Mask:
    """The defect's mask: visibly changed pixels, with pinholes and slits closed."""
    changed = np.abs(defective - good).max(axis=2) > VISIBLE_LEVELS
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (round(5 * size / REFERENCE_PX) | 1,) * 2)
    closed = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return closed.astype(bool)


def _expose(scene: Plane, variation: Variation, textures: _Textures) -> Pixels:
    """Light falling across the image, defocus, sensor noise, 8 bits."""
    size = scene.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    light = variation.gain * (
        1.0 + variation.gradient[0] * ramp[None, :] + variation.gradient[1] * ramp[:, None]
    )
    image: Plane = cv2.GaussianBlur(scene, (3, 3), 0.6)
    image *= light[..., None].astype(np.float32)
    image += (0.5 + variation.noise_levels * textures.sensor)[..., None]
    pixels: Pixels = np.clip(image, 0, 255).astype(np.uint8)
    return pixels


def _pose(degrees: float, shift: tuple[float, float], scale: float, margin: float) -> NDArray[Any]:
    """Affine float64 (2, 3) on the canvas: rotation about the image centre, then a shift."""
    centre = 128.0 * scale + margin
    matrix: NDArray[Any] = cv2.getRotationMatrix2D((centre, centre), degrees, 1.0)
    matrix[:, 2] += np.asarray(shift) * scale
    return matrix
