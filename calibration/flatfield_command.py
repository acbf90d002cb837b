"""Compute flat field and white balance from pictures of an evenly lit grey card.

Fill the image with the card, out of focus, brightest part at about grey level 200, 5 to 20 times.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from ..engine.images import read_rgb
from .flatfield import estimate_flat_field, store_flat_field
from .scoring import images_in


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, required=True, help="folder with card pictures")
    parser.add_argument("--out", type=Path, required=True, help="the flat field to write (.npz)")
    parser.add_argument("--dark", type=Path, help="picture with the lens covered, subtracted first")
    parser.add_argument("--camera", default="", help="identity of the camera: serial or path")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Read every picture, estimate, store, report."""
    field = estimate_flat_field(
        [read_rgb(path) for path in images_in(arguments.images)],
        dark=None if arguments.dark is None else read_rgb(arguments.dark),
        camera=arguments.camera,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    store_flat_field(arguments.out, field)
    facts = field.facts
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(facts)))
        return 0
    red, _, blue = facts.white_balance
    print(f"{arguments.out}: camera {facts.camera or '(any)'}, {facts.n_images} pictures")
    print(f"  {'unevenness before':20} {facts.unevenness_before:.1%}")
    print(f"  {'unevenness after':20} {facts.unevenness_after:.1%}")
    print(f"  {'white balance':20} red x {red:.3f}, blue x {blue:.3f}")
    return 0
