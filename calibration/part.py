"""The part's template and place: every picture is moved so that the part lies where it was learned.

The template is a rectangle of one well-placed picture (the reference). `place_part` finds it in a
picture and moves the whole picture so that the rectangle comes to lie where it lay there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engine.spec import Record, Roi
from ..errors import CalibrationError, ConfigError
from .array_file import load_array, store_array
from .registration import Registration, register, straighten

SMALLEST_SIDE_PX = 16
"""A smaller template says too little to be found again."""


class PartFacts(Record, frozen=True, kw_only=True):
    """What stands beside the template's pixels in the file."""

    schema: str = "skrd4ad-part/1"
    camera: str = ""
    """Identity of the camera the reference was taken with; empty means any."""
    created: str = ""
    image_width: int
    image_height: int
    """Size of the reference picture; pictures of another size are refused."""
    template: Roi
    """Where the template lies in the reference picture."""
    largest_angle_deg: float = 10.0
    smallest_correlation: float = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class PartTemplate:
    """A part file: `pixels` uint8 RGB (height, width, 3) of the template."""

    pixels: NDArray[np.uint8]
    facts: PartFacts


@dataclass(frozen=True, slots=True, eq=False)
class PlacedPart:
    """A picture moved into place."""

    pixels: NDArray[np.uint8]
    placed_to_image: NDArray[np.float64]
    """2 x 3 between pixel centres: x_taken = A x_placed + t."""
    shift_px: tuple[float, float]
    """How far the template's centre had moved from its place, x and y."""
    angle_deg: float
    correlation: float


def part_template(
    reference: NDArray[np.uint8],
    box: Roi,
    *,
    largest_angle_deg: float = 10.0,
    smallest_correlation: float = 0.6,
    camera: str = "",
    created: str = "",
) -> PartTemplate:
    """Cut `box` out of the reference picture, uint8 (h, w, 3), and check that it is found there.

    Raises ConfigError for a box outside the picture or limits that make no sense, CalibrationError
    for a template that cannot be registered (uniform, or not found in its own picture).
    """
    height, width = reference.shape[:2]
    if min(box.width, box.height) < SMALLEST_SIDE_PX:
        raise ConfigError(
            f"the template is {box.width} x {box.height} pixels, at least {SMALLEST_SIDE_PX} are "
            "needed",
            "choose a rectangle around the whole part or around a fiducial mark on it",
        )
    if box.x < 0 or box.y < 0 or box.x + box.width > width or box.y + box.height > height:
        raise ConfigError(
            f"the template's rectangle does not lie inside the {width} x {height} picture",
            "give it as x,y,width,height in pixels of that picture",
        )
    if not (0.0 <= largest_angle_deg <= 45.0 and 0.0 < smallest_correlation < 1.0):
        raise ConfigError(
            "the largest angle lies between 0 and 45 degrees, the smallest correlation between 0 "
            "and 1"
        )
    rows, columns = slice(box.y, box.y + box.height), slice(box.x, box.x + box.width)
    part = PartTemplate(
        pixels=np.ascontiguousarray(reference[rows, columns]),
        facts=PartFacts(
            camera=camera,
            created=created,
            image_width=width,
            image_height=height,
            template=box,
            largest_angle_deg=largest_angle_deg,
            smallest_correlation=smallest_correlation,
        ),
    )
    found = place_part(reference, part)
    if max(abs(found.shift_px[0]), abs(found.shift_px[1])) > 0.5:
        raise CalibrationError(
            "the template is found elsewhere in its own picture, so it is not unique",
            "choose a rectangle with more of the part in it",
        )
    return part


def place_part(pixels: NDArray[np.uint8], part: PartTemplate) -> PlacedPart:
    """Find the part in `pixels`, uint8 (h, w, 3), and move the picture so that it lies in place.

    The result has the same size; where the picture does not reach, its edge repeats. Raises
    ConfigError for a picture of another size, CalibrationError when the part is not found: it is
    missing or wrong, and must not be inspected as if it lay there.
    """
    facts, box = part.facts, part.facts.template
    if pixels.shape[:2] != (facts.image_height, facts.image_width):
        raise ConfigError(
            f"the part's template is of {facts.image_width} x {facts.image_height} pictures, but "
            f"this one has {pixels.shape[1]} x {pixels.shape[0]}",
            "take a new reference at this resolution",
        )
    found = register(
        pixels,
        part.pixels,
        largest_angle_deg=facts.largest_angle_deg,
        smallest_correlation=facts.smallest_correlation,
    )
    # x_image = A x_template + t with x_template = x_reference - corner.
    rotation, shift = found.template_to_image[:, :2], found.template_to_image[:, 2]
    corner = np.array([box.x, box.y], np.float64)
    to_image = np.column_stack([rotation, shift - rotation @ corner])
    middle = np.array([(box.width - 1) / 2, (box.height - 1) / 2])
    moved = rotation @ middle + shift - (middle + corner)
    size = (facts.image_height, facts.image_width)
    return PlacedPart(
        pixels=straighten(pixels, Registration(to_image, found.correlation), size),
        placed_to_image=to_image,
        shift_px=(float(moved[0]), float(moved[1])),
        angle_deg=found.angle_deg,
        correlation=found.correlation,
    )


def store_part(path: Path, part: PartTemplate) -> None:
    """Write `path` (.npz: the template's pixels and facts), atomically."""
    store_array(path, "template", part.pixels, part.facts)


def load_part(path: Path) -> PartTemplate:
    """Read a part file. Raises CalibrationError naming the file when it is damaged or foreign."""
    pixels, facts = load_array(
        path, "template", PartFacts, "a part file", "skrd4ad calibrate part makes one"
    )
    if facts.schema != "skrd4ad-part/1":
        raise CalibrationError(f"{path} has schema '{facts.schema}', not skrd4ad-part/1")
    size = (facts.template.height, facts.template.width, 3)
    if pixels.dtype != np.uint8 or pixels.shape != size:
        raise CalibrationError(f"{path} is not a part file: its template is {pixels.shape}")
    return PartTemplate(pixels=pixels, facts=facts)
