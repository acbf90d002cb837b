"""Render a data set of transistor-like parts with defects and masks, or a moving-belt video.

Everything is a function of the seed: the same command writes the same pixels on every run. The
data set has the MVTec-AD folder layout; the video comes with one ground-truth row for each part.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .belt import write_belt_video
from .render_defects import DEFECTS
from .rendering import Rendering, check_arguments, render_part

__all__ = ["DEFECTS", "Rendering", "render_part", "write_belt_video", "write_dataset"]

log = logging.getLogger(__name__)

SEEDS_PER_DATASET = 1_000_000
"""Data set `seed` uses the parts seed·1 000 000 + 0, 1, 2, ...: no two data sets share a part."""


def write_dataset(
    root: Path,
    category: str = "rendered",
    n_train: int = 180,
    n_good: int = 120,
    n_per_defect: int = 20,
    size: int = 256,
    seed: int = 0,
) -> Path:
    """Write `root/category` in MVTec-AD layout and return that folder.

    train/good, test/good, test/<defect> and ground_truth/<defect>/<stem>_mask.png. Every image is
    another part: no part is both in train and in test, nor both good and defective. The folder
    appears when it is complete; a full disk or an interruption leaves nothing.

    Raises:
        ConfigError: a count below zero, no training image, or an impossible size or seed.
        DataError: the folder exists already and is not empty, or cannot be written.
    """
    folder = Path(root) / category
    _check_counts(n_train, n_good, n_per_defect)
    check_arguments(seed, "good", size)
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} exists and is not empty", "choose another --out or remove it")
    jobs = [("train", "good", index) for index in range(n_train)]
    jobs += [("test", "good", index) for index in range(n_good)]
    jobs += [("test", defect, index) for defect in DEFECTS for index in range(n_per_defect)]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{category}.", dir=folder.parent) as beside:
            complete = Path(beside) / category
            for part, (split, defect, index) in enumerate(jobs):
                rendering = render_part(seed * SEEDS_PER_DATASET + part, defect, size)
                name = f"{index:03d}"
                _write_png(complete / split / defect / f"{name}.png", rendering.pixels[..., ::-1])
                if defect != "good":
                    mask = rendering.mask.astype(np.uint8) * 255
                    _write_png(complete / "ground_truth" / defect / f"{name}_mask.png", mask)
            os.replace(complete, folder)
    except OSError as error:
        raise DataError(
            f"cannot write the data set to {folder}: {error.strerror}",
            "nothing of it was left there; check that the folder is writable and has room",
        ) from error
    log.info("%d images in %s", len(jobs), folder)
    return folder


def _check_counts(n_train: int, n_good: int, n_per_defect: int) -> None:
    if n_train < 1 or n_good < 0 or n_per_defect < 0:
        raise ConfigError(
            f"cannot render {n_train} training, {n_good} good and {n_per_defect} defective images",
            "use at least one training image and no negative count",
        )
    total = n_train + n_good + n_per_defect * len(DEFECTS)
    if total > SEEDS_PER_DATASET:
        raise ConfigError(f"{total} images are more than the {SEEDS_PER_DATASET} of one seed")


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Grey or BGR pixels to a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    path.write_bytes(encoded.tobytes())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the data set, or the video file")
    add("--video", action="store_true", help="write a belt video and its ground-truth CSV instead")
    add("--category", default="rendered", help="folder name of the data set inside --out")
    add("--n-train", type=int, default=180, help="good parts to train and calibrate on")
    add("--n-good", type=int, default=120, help="good parts to test on")
    add("--n-per-defect", type=int, default=20, help="defective parts to test on, of each kind")
    add("--size", type=int, default=256, help="pixels on each side of an image (belt: of a part)")
    add("--seed", type=int, default=0, help="another seed gives entirely other parts")
    add("--parts", type=int, default=24, help="parts on the belt (video)")
    add("--fps", type=float, default=30.0, help="frames per second (video)")
    add("--speed", type=int, default=8, help="pixels the belt moves in one frame (video)")
    add("--defect-rate", type=float, default=0.25, help="share of defective parts (video)")


def run(arguments: argparse.Namespace) -> int:
    if arguments.video:
        truth_csv = arguments.out.with_suffix(".csv")
        truth = write_belt_video(
            arguments.out,
            truth_csv,
            parts=arguments.parts,
            fps=arguments.fps,
            size=arguments.size,
            speed_px=arguments.speed,
            defect_rate=arguments.defect_rate,
            seed=arguments.seed,
        )
        defective = sum(row.defect != "good" for row in truth)
        print(f"{arguments.out}: {len(truth)} parts, {defective} defective, truth in {truth_csv}")
        return 0
    folder = write_dataset(
        arguments.out,
        arguments.category,
        arguments.n_train,
        arguments.n_good,
        arguments.n_per_defect,
        arguments.size,
        arguments.seed,
    )
    print(
        f"{folder}: {arguments.n_train} for training, {arguments.n_good} good and "
        f"{arguments.n_per_defect} of each of {len(DEFECTS)} defects for the test"
    )
    return 0
