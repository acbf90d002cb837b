"""Give the regions of a regions file thresholds of their own, from held-out good images.

Each region's threshold is conformal at the target rate divided by the number of regions, so that a
good part is rejected by any of them at most that often. --into-plan keeps the regions in the plan
too, where the line finds them. --preview draws the regions on a picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from ..engine.backends.base import BACKEND_CHOICES, open_engine
from ..engine.images import read_rgb, write_png
from ..engine.plan import load_plan, replace_regions
from ..engine.preprocess import map_to_image
from ..errors import CalibrationError, ConfigError
from .regions import (
    REST,
    Regions,
    check_drawn_size,
    check_regions,
    load_regions,
    region_masks,
    region_scores,
    region_thresholds,
    store_regions,
)
from .scoring import infer_images
from .threshold import check_rate
from .threshold_command import held_out_images

COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66))
IGNORED = (213, 94, 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--regions", type=Path, required=True, help="regions file (YAML)")
    parser.add_argument("--plan", type=Path, help="the plan that scores the images")
    parser.add_argument("--run", type=Path, help="run folder: its calibration images")
    parser.add_argument("--images", type=Path, help="folder of good images training did not see")
    parser.add_argument(
        "--false-reject-rate", type=float, default=0.01, help="target, over all regions together"
    )
    parser.add_argument(
        "--preview",
        type=Path,
        nargs=2,
        metavar=("IMAGE", "OUT.png"),
        help="draw the regions on IMAGE and stop",
    )
    parser.add_argument(
        "--into-plan",
        action="store_true",
        help="keep the regions in the plan too, for their camera (any, where they name none)",
    )
    parser.add_argument("--camera", help="identity of the camera they are for: serial or path")
    parser.add_argument("--backend", default="auto", choices=BACKEND_CHOICES, help="what scores")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Preview, or score good images and write each region's threshold into the regions file."""
    regions = load_regions(arguments.regions)
    if arguments.camera is not None:
        regions = msgspec.structs.replace(regions, camera=arguments.camera)
    if arguments.preview:
        image, out = arguments.preview
        write_png(out, draw_regions(read_rgb(image), regions))
        print(f"{out}: {len(regions.regions)} regions, {len(regions.ignore)} ignored areas")
        return 0
    if arguments.plan is None:
        raise ConfigError("thresholds for regions need --plan", "or draw them with --preview")
    check_rate(arguments.false_reject_rate)
    thresholds, n = threshold_regions(arguments, regions)
    changed = tuple(
        msgspec.structs.replace(region, threshold=thresholds[region.name])
        for region in regions.regions
    )
    regions = msgspec.structs.replace(regions, regions=changed)
    check_regions(regions)
    if arguments.into_plan:
        replace_regions(arguments.plan, regions)
    store_regions(arguments.regions, regions)
    facts = {
        "regions": str(arguments.regions),
        "n_normals": n,
        "target_false_reject_rate": arguments.false_reject_rate,
        "thresholds": thresholds,
        "into_plan": arguments.into_plan,
        "camera": regions.camera,
    }
    if arguments.json:
        print(json.dumps(facts))
        return 0
    also = f" and {arguments.plan}" if arguments.into_plan else ""
    print(f"{arguments.regions}{also}: {n} good images, {arguments.false_reject_rate:.2%} over all")
    for name, value in thresholds.items():
        note = "  (the rest; the plan's own threshold judges it)" if name == REST else ""
        print(f"  {name:24} {value:.6g}{note}")
    return 0


def threshold_regions(
    arguments: argparse.Namespace, regions: Regions
) -> tuple[dict[str, float], int]:
    """Thresholds by name and the number of good images. The regions file is not touched."""
    if not regions.regions:
        raise CalibrationError(f"{arguments.regions} names no regions to calibrate")
    plan = load_plan(arguments.plan)
    paths, _ = held_out_images(arguments.run, arguments.images, plan)
    rows: list[NDArray[np.float64]] = []
    names: tuple[str, ...] = ()
    with open_engine(plan, arguments.backend) as engine:
        contract, spec = engine.manifest.score, engine.manifest.input
        for scored in infer_images(paths, engine):
            to_image = map_to_image(spec, scored.image_size)
            size = (spec.height, spec.width)
            try:
                masks = region_masks(regions, to_image, size, scored.image_size)
            except ConfigError as error:
                raise ConfigError(f"{scored.path}: {error.sentence}", error.hint) from error
            names = tuple(mask.name for mask in masks)
            rows.append(region_scores(scored.anomaly_map, masks, contract))
    thresholds = region_thresholds(np.stack(rows), names, arguments.false_reject_rate)
    return thresholds, len(paths)


def draw_regions(pixels: NDArray[np.uint8], regions: Regions) -> NDArray[np.uint8]:
    """A copy of RGB `pixels` (h, w, 3) with outlines and names; ignored areas are crossed out."""
    check_drawn_size(regions, (pixels.shape[0], pixels.shape[1]))
    drawn: NDArray[np.uint8] = pixels.copy()
    width = max(1, round(max(pixels.shape[:2]) / 400))
    for polygon in regions.ignore:
        corners = np.round(np.array(polygon)).astype(np.int32)
        cv2.polylines(drawn, [corners], True, IGNORED, width, cv2.LINE_AA)
        x, y, w, h = cv2.boundingRect(corners)
        cv2.line(drawn, (x, y), (x + w - 1, y + h - 1), IGNORED, width, cv2.LINE_AA)
        cv2.line(drawn, (x, y + h - 1), (x + w - 1, y), IGNORED, width, cv2.LINE_AA)
    for index, region in enumerate(regions.regions):
        colour = COLOURS[index % len(COLOURS)]
        corners = np.round(np.array(region.polygon)).astype(np.int32)
        cv2.polylines(drawn, [corners], True, colour, width, cv2.LINE_AA)
        label = (int(corners[:, 0].min()), int(corners[:, 1].min()) - 2 * width)
        cv2.putText(drawn, region.name, label, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * width, colour, width)
    return drawn
