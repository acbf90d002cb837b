"""From the sensor's picture to the one that is judged: even light, straight lines, part in place.

    flat field -> lens -> part in place

Everything after it (regions, network, pictures, archive) is in pixels of the corrected picture.
Line and `inspect` both go through here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CalibrationError, ConfigError
from .camera import CameraModel, load_camera, undistort, undistort_maps
from .flatfield import FlatField, apply_flat_field, load_flat_field
from .part import PartTemplate, load_part, place_part

Homography = tuple[float, float, float, float, float, float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    """A corrected picture, uint8 RGB (h, w, 3), and its scale where it is known."""

    pixels: NDArray[np.uint8]
    image_to_mm: Homography | None
    """3 x 3, row by row: pixel of this picture -> mm on the plane the parts lie on."""


class Correction:
    """What one camera's pictures go through; any of the steps may be absent.

    `mm_per_px` is the scale of a camera that looks straight down and was not calibrated; a lens
    calibrated with a plane knows it better. Raises ConfigError when the steps contradict.
    """

    def __init__(
        self,
        *,
        flat_field: FlatField | None = None,
        lens: CameraModel | None = None,
        part: PartTemplate | None = None,
        mm_per_px: float | None = None,
    ) -> None:
        sizes: dict[str, tuple[int, int]] = {}
        if flat_field is not None:
            sizes["the flat field"] = (flat_field.gains.shape[0], flat_field.gains.shape[1])
        if lens is not None:
            sizes["the lens calibration"] = (lens.image_height, lens.image_width)
        if part is not None:
            sizes["the part's template"] = (part.facts.image_height, part.facts.image_width)
        self.sizes = sizes
        """What was calibrated on pictures of which (height, width)."""
        if len(set(sizes.values())) > 1:
            said = ", ".join(f"{what} {w} x {h}" for what, (h, w) in sizes.items())
            raise ConfigError(
                f"the camera's calibration is of different picture sizes: {said}",
                "calibrate all of it at the resolution that the camera runs at",
            )
        if lens is not None and lens.plane is not None and mm_per_px is not None:
            raise ConfigError(
                "mm_per_px is given, but the lens calibration knows the scale",
                "leave mm_per_px out",
            )
        self._gains = None if flat_field is None else flat_field.gains
        self._maps = None if lens is None else undistort_maps(lens)
        self._part = part
        self._to_mm: NDArray[np.float64] | None = None
        if lens is not None and lens.plane is not None:
            self._to_mm = np.array(lens.plane.homography, np.float64).reshape(3, 3)
        elif mm_per_px is not None:
            self._to_mm = np.diag([mm_per_px, mm_per_px, 1.0])

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) that the pictures must have; None when any will do."""
        return next(iter(self.sizes.values()), None)

    @property
    def knows_scale(self) -> bool:
        return self._to_mm is not None

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Raise ConfigError unless pictures of this (height, width) are what was calibrated."""
        size = self.image_size
        if size is not None and image_size != size:
            raise ConfigError(
                f"{next(iter(self.sizes))} is for {size[1]} x {size[0]} pixels, but the camera "
                f"gives {image_size[1]} x {image_size[0]}",
                "calibrate again at this resolution",
            )

    def scale_only(self) -> Correction:
        """For pictures that were corrected before: nothing is done to them any more.

        How far the part was moved is not known then; where it is moved, there is no scale.
        """
        plain = Correction()
        plain._to_mm = None if self._part is not None else self._to_mm
        return plain

    def apply(self, pixels: NDArray[np.uint8]) -> Corrected:
        """The corrected picture, of the same size; `pixels` uint8 RGB (h, w, 3) is not changed.

        Raises ConfigError for a picture of another size than it was calibrated on, and
        CalibrationError when the part is not found: no other place may be judged in its stead.
        """
        self.check_size((pixels.shape[0], pixels.shape[1]))
        to_mm = self._to_mm
        if self._gains is not None:
            pixels = apply_flat_field(pixels, self._gains)
        if self._maps is not None:
            pixels = undistort(pixels, self._maps)
        if self._part is not None:
            placed = place_part(pixels, self._part)
            pixels = placed.pixels
            if to_mm is not None:
                to_mm = to_mm @ np.vstack([placed.placed_to_image, [0.0, 0.0, 1.0]])
        flat = None if to_mm is None else tuple(float(value) for value in to_mm.ravel())
        return Corrected(pixels, flat)  # type: ignore[arg-type]


def load_correction(
    names: Collection[str],
    *,
    flat_field: Path | None = None,
    lens: Path | None = None,
    part: Path | None = None,
    mm_per_px: float | None = None,
) -> Correction | None:
    """The correction of the camera known by any of `names`; None when no step is given.

    Raises CalibrationError for a file that is damaged or of another camera, ConfigError when the
    files contradict each other.
    """
    if flat_field is None and lens is None and part is None and mm_per_px is None:
        return None
    field = None if flat_field is None else load_flat_field(flat_field)
    if field is not None:
        check_camera(f"{flat_field}", field.facts.camera, names)
    model = None if lens is None else load_camera(lens)
    if model is not None:
        check_camera(f"{lens}", model.camera, names)
    template = None if part is None else load_part(part)
    if template is not None:
        check_camera(f"{part}", template.facts.camera, names)
    return Correction(flat_field=field, lens=model, part=template, mm_per_px=mm_per_px)


def check_camera(what: str, recorded: str, names: Collection[str]) -> None:
    """Refuse what was calibrated on another camera. `recorded` "" means that any will do.

    Raises CalibrationError naming both cameras.
    """
    if recorded and recorded not in names:
        raise CalibrationError(
            f"{what} was calibrated on camera '{recorded}', but this is "
            + " or ".join(f"'{name}'" for name in names),
            "calibrate this camera; if it is the same one under another name, say so with "
            f"identity: {recorded} in the station file",
        )
