"""How one camera's pictures are seen: corrected, cut out for the network, divided into regions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..calibration.correction import Corrected, Correction
from ..calibration.regions import RegionMask, Regions, check_drawn_size, region_masks
from ..engine.preprocess import map_to_image
from ..engine.spec import InputSpec
from ..errors import ConfigError
from .records import Affine


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One camera as one plan sees it. Line and `inspect` go through the same one."""

    spec: InputSpec
    """The plan's input, with the camera's own region of interest where it has one."""
    correction: Correction | None = None
    regions: Regions | None = None
    _masks: dict[tuple[int, int], tuple[RegionMask, ...]] = field(
        default_factory=dict, init=False, repr=False
    )
    """By picture size. Kept here, so that they go when the plan goes."""

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) that every picture must have; None when the view fits any."""
        if self.regions is not None:
            return self.regions.image_height, self.regions.image_width
        return None if self.correction is None else self.correction.image_size

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Raise ConfigError unless pictures of this (height, width) can be judged."""
        if self.correction is not None:
            self.correction.check_size(image_size)
        self.transform(image_size)
        self.masks(image_size)

    @property
    def region_names(self) -> tuple[str, ...]:
        """Names of the drawn regions."""
        return () if self.regions is None else tuple(one.name for one in self.regions.regions)

    def correct(self, pixels: NDArray[np.uint8]) -> Corrected:
        """The picture that is judged. Raises as Correction.apply."""
        return Corrected(pixels, None) if self.correction is None else self.correction.apply(pixels)

    def transform(self, image_size: tuple[int, int]) -> Affine:
        """Map to picture, as Place has it. Raises ConfigError when the region of interest does
        not lie inside the picture."""
        return map_to_image(self.spec, image_size)

    def masks(self, image_size: tuple[int, int]) -> tuple[RegionMask, ...]:
        """The regions on the map, () without any. Raises ConfigError for another picture size."""
        if self.regions is None:
            return ()
        found = self._masks.get(image_size)
        if found is None:
            # No other size is ever kept: region_masks refuses it.
            found = self._masks[image_size] = self._drawn(self.regions, image_size)
        return found

    def _drawn(self, regions: Regions, image_size: tuple[int, int]) -> tuple[RegionMask, ...]:
        check_drawn_size(regions, image_size)
        size = (self.spec.height, self.spec.width)
        return region_masks(regions, map_to_image(self.spec, image_size), size, image_size)


def check_view(view: View) -> None:
    """Refuse what contradicts itself, before any picture came. Raises ConfigError."""
    regions, correction = view.regions, view.correction
    if regions is None:
        return
    size = (regions.image_height, regions.image_width)
    if correction is not None and correction.image_size not in (None, size):
        what, (height, width) = next(iter(correction.sizes.items()))
        raise ConfigError(
            f"the regions were drawn on {size[1]} x {size[0]} pixels, but {what} is for "
            f"{width} x {height}",
            "draw them again on a picture of this camera",
        )
    in_mm2 = [regions.min_area_mm2, *(one.min_area_mm2 for one in regions.regions)]
    if max(in_mm2) > 0 and (correction is None or not correction.knows_scale):
        raise ConfigError(
            "the regions have areas in mm2, but the camera's scale is not known",
            "calibrate the lens with --plane, or give mm_per_px in the station file",
        )
    view.masks(size)
