"""Measure a plan on this machine: percentiles per stage, and how near they are to its limits.

The last line on stdout is one JSON object with every figure.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .backends.base import Engine, open_engine
from .backends.onnxruntime_cpu import INPUT, MAP, MODEL, SCORE, open_session
from .bench_spinning import measure_spinning
from .limits import Limits, measure_limits
from .plan import Plan, load_plan
from .preprocess import to_network_input
from .spec import Backbone, InputSpec
from .threads import machine_threads

PERCENTILES = (50, 90, 99)
WARM_UP = 5


@dataclass(frozen=True, slots=True)
class Stage:
    """Milliseconds of one step, many times."""

    name: str
    samples_ms: NDArray[np.float64]

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.samples_ms, percent))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is measured: a plan or an untrained network. The rest is in pipeline/bench.py."""
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--plan", type=Path, metavar="F", help="plan file")
    subject.add_argument(
        "--untrained",
        choices=get_args(Backbone),
        metavar="BACKBONE",
        help=f"time a network without training one: {', '.join(get_args(Backbone))}",
    )
    parser.add_argument(
        "--image-size",
        type=int,
        nargs=2,
        default=(256, 256),
        metavar=("H", "W"),
        help="input of the untrained network",
    )
    parser.add_argument("--batch", type=int, default=1, help="batch of the untrained network")
    parser.add_argument(
        "--spinning",
        action="store_true",
        help="compare sleeping with spinning idle threads of onnxruntime instead",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print: what `skrd4ad bench` does without --stages."""
    if not arguments.seconds > 0 or min(arguments.camera_size) < 1:
        raise ConfigError("--seconds and --camera-size must be positive")
    plan = _subject(arguments)
    print(f"measuring {plan.manifest.name} for about {arguments.seconds:.0f} s ...", flush=True)
    if arguments.spinning:
        return _compare_spinning(plan, arguments.seconds)
    height, width = arguments.camera_size
    before = measure_limits()
    with open_engine(plan) as engine:
        description = engine.description
        stages = measure_stages(plan, engine, (height, width), arguments.seconds)
    figures = summary(plan, description, stages, before.or_better(measure_limits()))
    _print_table(stages, figures)
    print(json.dumps(figures))
    return 0


def _subject(arguments: argparse.Namespace) -> Plan:
    if arguments.plan is not None:
        return load_plan(arguments.plan)
    if not 1 <= arguments.batch <= 8:
        raise ConfigError(f"--batch {arguments.batch} is not in 1 ... 8")
    from .untrained import untrained_plan

    height, width = arguments.image_size
    print(f"{arguments.untrained} with untrained weights: for timing only", flush=True)
    return untrained_plan(arguments.untrained, (height, width), arguments.batch)


def _compare_spinning(plan: Plan, seconds: float) -> int:
    if plan.manifest.backend != "onnxruntime":
        raise ConfigError(
            f"--spinning is about onnxruntime; the plan is for {plan.manifest.backend}"
        )
    found = measure_spinning(plan, seconds)
    print("\n".join(found.lines()))
    print(json.dumps({"plan": plan.manifest.name, "threads": machine_threads(), **asdict(found)}))
    return 0


def measure_stages(
    plan: Plan, engine: Engine, camera_size: tuple[int, int], seconds: float
) -> tuple[Stage, ...]:
    """Preprocess, infer, both together, and the bare session where the plan has one.

    The stages take turns, so that a busy moment of the machine falls on all of them alike, in an
    order that reverses each time: what runs second finds the threads awake and the cache warm.
    """
    spec = plan.manifest.input
    pixels = _camera_image(spec, camera_size)
    batch = np.repeat(to_network_input(pixels, spec)[None], plan.manifest.batch, axis=0)
    work: dict[str, Callable[[], object]] = {"infer": lambda: engine.infer(batch)}
    # In the middle of the three, so that the two sessions trade places around it.
    work["preprocess"] = lambda: to_network_input(pixels, spec)
    if plan.manifest.backend == "onnxruntime":
        session = open_session(plan.read(MODEL), machine_threads())
        work["bare session"] = lambda: session.run((MAP, SCORE), {INPUT: batch})
    samples: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(WARM_UP):
        for step in work.values():
            step()
    order = list(work)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples["infer"]) < WARM_UP:
        order.reverse()
        for name in order:
            step = work[name]
            start = time.perf_counter()
            step()
            samples[name].append((time.perf_counter() - start) * 1e3)
    return tuple(Stage(name, np.array(values)) for name, values in samples.items())


def summary(
    plan: Plan, description: str, stages: tuple[Stage, ...], limits: Limits
) -> dict[str, object]:
    """Every figure by name; ratios of medians."""
    manifest = plan.manifest
    by_name = {stage.name: stage for stage in stages}
    infer_s = by_name["infer"].percentile(50) / 1e3
    sgemm, copy = limits.sgemm_gflops, limits.copy_gbytes_per_s
    figures: dict[str, object] = {
        "plan": manifest.name,
        "digest": plan.digest,
        "engine": description,
        "backbone": manifest.network.backbone,
        "input": [manifest.batch, 3, manifest.input.height, manifest.input.width],
        "runs": len(by_name["infer"].samples_ms),
        "images_per_s": manifest.batch / infer_s,
        "sgemm_gflops": sgemm,
        "copy_gbytes_per_s": copy,
    }
    for stage in stages:
        key = stage.name.replace(" ", "_")
        for percent in PERCENTILES:
            figures[f"{key}_ms_p{percent}"] = stage.percentile(percent)
    if "bare session" in by_name:
        bare = by_name["bare session"].percentile(50)
        figures["infer_to_bare_session"] = by_name["infer"].percentile(50) / bare
    if "multiply_adds" in manifest.build:
        gflops = 2.0 * int(manifest.build["multiply_adds"]) / infer_s / 1e9
        figures["infer_gflops"] = gflops
    if manifest.backend != "onnxruntime":
        return figures  # the limits are this CPU's and say nothing about a GPU
    if "infer_gflops" in figures:
        figures["infer_to_sgemm"] = gflops / sgemm
    if MODEL in manifest.members:
        # Every weight is read once per inference; the rest of the traffic stays in the caches.
        read = manifest.members[MODEL].size / infer_s / 1e9
        figures["weights_gbytes_per_s"] = read
        figures["weights_to_copy"] = read / copy
    return figures


def _camera_image(spec: InputSpec, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Noise of the camera's size, at least as large as the plan's region of interest."""
    height, width = size
    if spec.roi is not None:
        height = max(height, spec.roi.y + spec.roi.height)
        width = max(width, spec.roi.x + spec.roi.width)
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _print_table(stages: tuple[Stage, ...], figures: dict[str, object]) -> None:
    print(f"engine     {figures['engine']}")
    print(f"{'stage':<14}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'runs':>7}")
    for stage in stages:
        cells = "".join(f"{stage.percentile(percent):9.2f}" for percent in PERCENTILES)
        print(f"{stage.name:<14}{cells}{len(stage.samples_ms):7d}")
    for key, words in (
        ("images_per_s", "images/s of infer alone"),
        ("infer_to_bare_session", "x the bare session (median against median)"),
        ("infer_gflops", "GFLOP/s in infer"),
        ("sgemm_gflops", "GFLOP/s of SGEMM on this machine"),
        ("infer_to_sgemm", "of the SGEMM rate"),
        ("copy_gbytes_per_s", "GB/s of copying memory"),
        ("weights_to_copy", "of the copy rate spent on reading weights"),
    ):
        if key in figures:
            print(f"{figures[key]:>10.3f} {words}")
