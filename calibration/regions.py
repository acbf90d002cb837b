"""Where to look and how strictly: ignore polygons and named regions with their own thresholds.

Regions are drawn on the captured image and turned once into masks on the network's map; after that
a part is judged by one maximum for each region. Pure functions; `load_regions` reads the file.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from ..built_types import built
from ..engine.atomic import write_atomically
from ..engine.score_map import top_count
from ..engine.spec import Region as Region
from ..engine.spec import Regions as Regions
from ..engine.spec import ScoreContract
from ..errors import CalibrationError, ConfigError
from .threshold import conformal_threshold

REST = "image"
"""Name of everything that no polygon covers; it is judged with the plan's own threshold."""

Affine = tuple[float, float, float, float, float, float]
Point = tuple[float, float]
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True, eq=False)
class RegionMask:
    """One region on the network's map."""

    name: str
    mask: NDArray[np.bool_]
    """(H, W) of the map; the masks of one set are disjoint."""
    threshold: float | None
    """None: the plan's."""
    review_value: float | None = None
    grow_threshold: float | None = None
    min_area_px: float = 0.0
    min_area_mm2: float = 0.0


def load_regions(path: Path) -> Regions:
    """Read and check a regions file (YAML). Raises ConfigError naming file and key."""
    try:
        regions = msgspec.yaml.decode(path.read_bytes(), type=built(Regions))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}", "docs/calibration.md shows the format") from error
    try:
        check_regions(regions)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.sentence}", error.hint) from error
    return regions


def store_regions(path: Path, regions: Regions) -> None:
    """Write a regions file, atomically."""
    check_regions(regions)
    write_atomically(path, msgspec.yaml.encode(regions))


def check_regions(regions: Regions) -> None:
    """Raise ConfigError for an unknown schema, impossible polygons, or repeated or bad names."""
    if regions.schema != "skrd4ad-regions/1":
        raise ConfigError(f"schema '{regions.schema}' is not skrd4ad-regions/1")
    if min(regions.image_width, regions.image_height) < 1:
        raise ConfigError("image_width and image_height must be positive")
    names = [region.name for region in regions.regions]
    for name in names:
        if name == REST or not _NAME.fullmatch(name):
            raise ConfigError(
                f"'{name}' is not a usable region name",
                f"a small letter, then letters, digits, - or _ (32 at most), and not '{REST}'",
            )
        if names.count(name) > 1:
            raise ConfigError(f"region '{name}' is there {names.count(name)} times")
    named = [(f"region '{region.name}'", region.polygon) for region in regions.regions]
    ignored = [(f"ignore polygon {i + 1}", polygon) for i, polygon in enumerate(regions.ignore)]
    for what, polygon in (*named, *ignored):
        _check_polygon(what, polygon, regions)
    _check_levels("the picture", regions)
    for one in regions.regions:
        _check_levels(f"region '{one.name}'", one)


def _check_levels(what: str, one: Region | Regions) -> None:
    """Raise ConfigError for thresholds that are no numbers or contradict, and negative areas."""
    threshold = one.threshold if isinstance(one, Region) else None
    review = one.review_value if isinstance(one, Region) else None
    levels = {"threshold": threshold, "review_value": review, "grow_threshold": one.grow_threshold}
    for name, value in levels.items():
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{what}: its {name} is not a finite number")
    if threshold is not None and one.grow_threshold is not None and one.grow_threshold > threshold:
        raise ConfigError(
            f"{what}: grow_threshold {one.grow_threshold:g} is above its threshold {threshold:g}",
            "a defect begins above the threshold and grows over what is fainter",
        )
    if threshold is not None and review is not None and review < threshold:
        raise ConfigError(f"{what}: review_value {review:g} is below its threshold {threshold:g}")
    for name in ("min_area_px", "min_area_mm2"):
        if not 0 <= getattr(one, name) < math.inf:
            raise ConfigError(f"{what}: {name} is negative or not a number")


def check_drawn_size(regions: Regions, image_size: tuple[int, int]) -> None:
    """Raise ConfigError when an image of this (height, width) is not what they were drawn on."""
    if image_size != (regions.image_height, regions.image_width):
        raise ConfigError(
            f"the regions were drawn on {regions.image_width} x {regions.image_height} pixels, but "
            f"the picture has {image_size[1]} x {image_size[0]}",
            "draw them again on a picture of this camera",
        )


def region_masks(
    regions: Regions, map_to_image: Affine, map_size: tuple[int, int], image_size: tuple[int, int]
) -> tuple[RegionMask, ...]:
    """Disjoint masks on the map of (H, W) = `map_size`, named regions first, the rest last.

    `map_to_image` as engine.preprocess gives it, `image_size` (height, width) of the captured
    image. Raises ConfigError when the image has another size than the regions were drawn on, or a
    region covers no map pixel (it would silently inspect nothing).
    """
    check_drawn_size(regions, image_size)
    free = np.ones(map_size, np.bool_)
    for polygon in regions.ignore:
        free &= ~polygon_mask(polygon, map_to_image, map_size)
    masks = []
    for region in regions.regions:
        mask = free & polygon_mask(region.polygon, map_to_image, map_size)
        if not mask.any():
            raise ConfigError(
                f"region '{region.name}' covers no pixel that the network sees",
                "it lies outside the region of interest, below an ignored area, or is too small",
            )
        free &= ~mask
        masks.append(
            RegionMask(
                region.name,
                mask,
                region.threshold,
                region.review_value,
                region.grow_threshold,
                region.min_area_px,
                region.min_area_mm2,
            )
        )
    if free.any():
        grow, area, mm2 = regions.grow_threshold, regions.min_area_px, regions.min_area_mm2
        masks.append(RegionMask(REST, free, None, None, grow, area, mm2))
    if not masks:
        raise ConfigError("the ignore polygons cover everything, so nothing would be inspected")
    return tuple(masks)


def polygon_mask(
    polygon: tuple[Point, ...], map_to_image: Affine, map_size: tuple[int, int]
) -> NDArray[np.bool_]:
    """(H, W) map pixels whose centre lies inside the polygon (even-odd rule, float64)."""
    sx, _, tx, _, sy, ty = map_to_image
    x = sx * np.arange(map_size[1], dtype=np.float64)[None, :] + tx
    y = sy * np.arange(map_size[0], dtype=np.float64)[:, None] + ty
    inside = np.zeros(map_size, np.bool_)
    for (x0, y0), (x1, y1) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 <= y) != (y1 <= y)
        inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def region_scores(
    anomaly_map: NDArray[np.float32], masks: tuple[RegionMask, ...], contract: ScoreContract
) -> NDArray[np.float64]:
    """One score for each mask (r,) by the plan's score rule inside it; NaN counts as +inf."""
    return np.array([region_score(anomaly_map[one.mask], contract) for one in masks], np.float64)


def region_score(values: NDArray[np.float32], contract: ScoreContract) -> float:
    """The plan's score rule over the map values (n,) of one region; NaN counts as +inf."""
    inside = np.where(np.isnan(values), np.float32(np.inf), values)
    if contract.score == "max":
        return float(inside.max())
    count = top_count(contract, inside.size)
    return float(np.partition(inside.astype(np.float64), inside.size - count)[-count:].mean())


def region_thresholds(
    scores: NDArray[np.float64], names: tuple[str, ...], false_reject_rate: float
) -> dict[str, float]:
    """Conformal thresholds for all regions, from `scores` (n parts, r regions) of good parts.

    Each region gets false_reject_rate / r, so that a good part is rejected by *any* of them with
    at most false_reject_rate (Bonferroni). Raises CalibrationError when n cannot support that.
    """
    share = false_reject_rate / len(names)
    n = scores.shape[0]
    if 1.0 / (n + 1) > share * (1 + 1e-9):
        raise CalibrationError(
            f"{n} good images cannot support {false_reject_rate:.2%} over {len(names)} regions",
            f"use at least {math.ceil(len(names) / false_reject_rate) - 1} images, fewer regions, "
            f"or a rate of at least {len(names) / (n + 1):.2%}",
        )
    return {
        name: conformal_threshold(scores[:, index], share).value for index, name in enumerate(names)
    }


def _check_polygon(what: str, polygon: tuple[Point, ...], regions: Regions) -> None:
    if len(polygon) < 3:
        raise ConfigError(f"{what} has {len(polygon)} corners; a polygon has at least 3")
    for x, y in polygon:
        if not (-0.5 <= x <= regions.image_width - 0.5 and -0.5 <= y <= regions.image_height - 0.5):
            raise ConfigError(
                f"{what}: the corner ({x:g}, {y:g}) lies outside the "
                f"{regions.image_width} x {regions.image_height} image"
            )
    doubled = sum(
        x0 * y1 - x1 * y0
        for (x0, y0), (x1, y1) in zip(polygon, (*polygon[1:], polygon[0]), strict=True)
    )
    if doubled == 0:
        raise ConfigError(f"{what} has no area")
