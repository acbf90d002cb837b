"""Measure a plan on this machine: the engine alone, or with --stages the whole line around it.

The last line on stdout is one JSON object with every figure.
"""

from __future__ import annotations

import argparse

from ..engine import bench as engine_bench
from ..errors import ConfigError
from . import bench_stages

ENGINE_CAMERA, LINE_CAMERA = (900, 900), (480, 640)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    engine_bench.add_arguments(parser)
    parser.add_argument(
        "--camera-size", type=int, nargs=2, metavar=("H", "W"),
        help="pixels of the captured image (default: 900 900; with --stages 480 640)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="how long to measure the engine"
    )
    parser.add_argument(
        "--stages",
        action="store_true",
        help="measure the line stage by stage, beside bare inference and a plain OpenCV loop",
    )
    parser.add_argument(
        "--null-engine",
        action="store_true",
        help="with --stages: only what the line costs, without the plan's network",
    )
    bench_stages.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.null_engine and not arguments.stages:
        raise ConfigError("--null-engine measures the line", "add --stages")
    if arguments.stages and (arguments.plan is None or arguments.spinning):
        raise ConfigError("--stages measures the line around a plan", "give --plan F alone")
    default = LINE_CAMERA if arguments.stages else ENGINE_CAMERA
    arguments.camera_size = tuple(arguments.camera_size or default)
    return bench_stages.run(arguments) if arguments.stages else engine_bench.run(arguments)
