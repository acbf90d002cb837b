"""Make a plan fit for the line: a threshold with a guaranteed false-reject rate, from good images.

`calibrate threshold` scores held-out good parts through the plan itself and stores the threshold
in it; docs/calibration.md explains the guarantee and how many images it needs.
"""

from __future__ import annotations

import argparse

from . import coverage, regions_command, threshold_command

SUBCOMMANDS = (
    ("threshold", threshold_command),
    ("coverage", coverage),
    ("regions", regions_command),
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
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        module.add_arguments(child)
        child.set_defaults(calibrate=module.run)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen subcommand."""
    return int(arguments.calibrate(arguments))
