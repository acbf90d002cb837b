"""Take a part's template from one well-placed picture, so that the line can put each part in place.

--box names the part (or a fiducial mark on it) in the picture; --try shows how well it is found in
others.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..engine.images import read_rgb, write_png
from ..engine.spec import Roi
from ..errors import CalibrationError, ConfigError
from .part import PartTemplate, part_template, place_part, store_part
from .scoring import images_in


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", type=Path, required=True, help="picture of a well-placed part")
    parser.add_argument("--box", required=True, metavar="X,Y,W,H", help="the template, in pixels")
    parser.add_argument("--out", type=Path, required=True, help="the part file to write (.npz)")
    parser.add_argument(
        "--largest-angle", type=float, default=10.0, help="how far parts may be turned, degrees"
    )
    parser.add_argument(
        "--smallest-correlation", type=float, default=0.6, help="below it the part counts as absent"
    )
    parser.add_argument("--camera", default="", help="identity of the camera: serial or path")
    parser.add_argument(
        "--try", type=Path, dest="tried", metavar="DIR", help="find the part in these pictures too"
    )
    parser.add_argument(
        "--preview", type=Path, metavar="DIR", help="with --try: write each picture put in place"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Cut, check, try, store. Nothing is stored when a tried picture does not show the part."""
    if arguments.preview is not None and arguments.tried is None:
        raise ConfigError("--preview needs --try DIR", "the pictures to put in place")
    part = part_template(
        read_rgb(arguments.image),
        box_from(arguments.box),
        largest_angle_deg=arguments.largest_angle,
        smallest_correlation=arguments.smallest_correlation,
        camera=arguments.camera,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    rows = [] if arguments.tried is None else try_part(part, arguments.tried, arguments.preview)
    lost = [row for row in rows if "error" in row]
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "tried": rows}))
    for row in rows if not arguments.json else ():
        if "error" in row:
            print(f"  {row['name']:32} {row['error']}")
        else:
            print(
                f"  {row['name']:32} moved {row['shift_px'][0]:+7.2f} {row['shift_px'][1]:+7.2f} px"
                f"  turned {row['angle_deg']:+6.2f} deg  correlation {row['correlation']:.3f}"
            )
    if lost:
        raise CalibrationError(
            f"the part was not found in {len(lost)} of {len(rows)} pictures; nothing was stored",
            "choose another --box, or a smaller --smallest-correlation where these are good parts",
        )
    store_part(arguments.out, part)
    if not arguments.json:
        box = part.facts.template
        print(
            f"{arguments.out}: template of {box.width} x {box.height} pixels at {box.x}, {box.y} "
            f"in {part.facts.image_width} x {part.facts.image_height} pictures"
        )
    return 0


def try_part(part: PartTemplate, folder: Path, preview: Path | None) -> list[dict[str, Any]]:
    """One row for each picture: where the part lay in it, or why it was not found."""
    rows: list[dict[str, Any]] = []
    for path in images_in(folder):
        try:
            placed = place_part(read_rgb(path), part)
        except CalibrationError as error:
            rows.append({"name": path.name, "error": error.sentence})
            continue
        if preview is not None:
            write_png(preview / f"{path.stem}.png", placed.pixels)
        rows.append(
            {
                "name": path.name,
                "shift_px": placed.shift_px,
                "angle_deg": placed.angle_deg,
                "correlation": placed.correlation,
            }
        )
    return rows


def box_from(text: str) -> Roi:
    """ "x,y,width,height" -> Roi. Raises ConfigError."""
    numbers = text.split(",")
    if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
        raise ConfigError(f"--box {text} is not x,y,width,height", "such as 120,80,400,300")
    x, y, width, height = (int(number) for number in numbers)
    return Roi(x=x, y=y, width=width, height=height)
