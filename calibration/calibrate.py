"""Good images -> a threshold with a guaranteed false-reject rate; boards and cards -> optics.

Each subcommand is a module of its own; docs/calibration.md explains them and the guarantee.
"""

from __future__ import annotations

import argparse

from . import (
    camera_command,
    coverage,
    drift_command,
    flatfield_command,
    golden_command,
    part_command,
    regions_command,
    threshold_command,
)

SUBCOMMANDS = (
    ("threshold", threshold_command),
    ("coverage", coverage),
    ("regions", regions_command),
    ("camera", camera_command),
    ("flatfield", flatfield_command),
    ("part", part_command),
    ("golden", golden_command),
    ("drift", drift_command),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per thing that can be calibrated."""
    subcommands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for name, module in SUBCOMMANDS:
        text = (module.__doc__ or "").partition("\n\n")[0]
        child = subcommands.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=parser.formatter_class,
        )
        module.add_arguments(child)
        child.set_defaults(calibrate=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    return int(arguments.calibrate(arguments))
