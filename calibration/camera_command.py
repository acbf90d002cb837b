"""Calibrate lens and scale from pictures of a printed board, into a camera file.

--print-board writes the board to print. Take 10 to 20 pictures of it, tilted about 30 degrees in
different directions, all over the image; --plane adds one of the board lying where the parts lie.
"""

from __future__ import annotations

import argparse
import json
import logging
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from ..engine.images import read_rgb, write_png
from ..errors import CalibrationError, ConfigError
from .board import DICTIONARIES, Board, Detection, check_board, draw_board, find_board
from .camera import CameraModel, calibrate_camera, measure_plane, store_camera
from .scoring import images_in

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, help="folder with pictures of the board")
    parser.add_argument("--out", type=Path, help="the camera file to write (YAML)")
    parser.add_argument("--plane", type=Path, help="picture of the board where the parts lie")
    parser.add_argument("--camera", default="", help="identity of the camera: serial or path")
    parser.add_argument(
        "--board", default="charuco", choices=["charuco", "checkerboard"], help="kind of board"
    )
    parser.add_argument("--squares", default="9x7", help="columns x rows of squares")
    parser.add_argument("--square-mm", type=float, default=20.0, help="side of a square")
    parser.add_argument("--marker-mm", type=float, default=15.0, help="side of a ChArUco marker")
    parser.add_argument(
        "--dictionary", default="5x5_100", choices=list(DICTIONARIES), help="of ChArUco markers"
    )
    parser.add_argument(
        "--print-board", type=Path, metavar="OUT.png", help="write the board for printing and stop"
    )
    parser.add_argument("--px-per-mm", type=float, default=10.0, help="resolution of --print-board")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print a board, or find it in every picture, calibrate, measure the plane, store."""
    board = board_from(arguments)
    if arguments.print_board is not None:
        if arguments.px_per_mm <= 0:
            raise ConfigError("--px-per-mm must be positive")
        pixels = draw_board(board, arguments.px_per_mm)
        write_png(arguments.print_board, pixels)
        dpi = arguments.px_per_mm * 25.4
        print(f"{arguments.print_board}: print at {dpi:.0f} dpi, 100 %, and measure a square")
        return 0
    if arguments.images is None or arguments.out is None:
        raise ConfigError("calibrate camera needs --images and --out", "or --print-board OUT.png")
    views, image_size = detect(images_in(arguments.images), board)
    model = calibrate_camera(
        views,
        image_size,
        board,
        camera=arguments.camera,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    if arguments.plane is not None:
        pixels = read_rgb(arguments.plane)
        view = find_board(pixels, board)
        if view is None or pixels.shape[:2] != image_size:
            raise CalibrationError(
                f"{arguments.plane} does not show the board at {image_size[1]} x {image_size[0]}",
                "the board must lie flat where the parts lie, mostly visible, with even light",
            )
        model = msgspec.structs.replace(model, plane=measure_plane(view, model))
    store_camera(arguments.out, model)
    print(json.dumps(msgspec.to_builtins(model)) if arguments.json else as_table(arguments, model))
    return 0


def board_from(arguments: argparse.Namespace) -> Board:
    """The board that the options describe. Raises ConfigError when it cannot exist."""
    columns, _, rows = arguments.squares.partition("x")
    if not (columns.isdecimal() and rows.isdecimal()):
        raise ConfigError(f"--squares {arguments.squares} is not columns x rows, such as 9x7")
    board = Board(
        kind=arguments.board,
        columns=int(columns),
        rows=int(rows),
        square_mm=arguments.square_mm,
        marker_mm=arguments.marker_mm,
        dictionary=arguments.dictionary,
    )
    check_board(board)
    return board


def detect(paths: list[Path], board: Board) -> tuple[list[tuple[str, Detection]], tuple[int, int]]:
    """The board in every picture where it is seen, and their common (height, width).

    Pictures without it are logged and left out. Raises CalibrationError when sizes differ.
    """
    views: list[tuple[str, Detection]] = []
    size: tuple[int, int] | None = None
    for path in paths:
        pixels = read_rgb(path)
        here = (pixels.shape[0], pixels.shape[1])
        if size is not None and here != size:
            raise CalibrationError(
                f"{path} has {here[1]} x {here[0]} pixels, the pictures before it "
                f"{size[1]} x {size[0]}",
                "calibrate with pictures of one camera at one resolution",
            )
        size = here
        view = find_board(pixels, board)
        if view is None:
            logger.warning("%s: the board was not found; the picture is left out", path.name)
        else:
            views.append((path.name, view))
    assert size is not None, "images_in never returns an empty list"
    return views, size


def as_table(arguments: argparse.Namespace, model: CameraModel) -> str:
    """What was found, for people."""
    focal, sd = model.focal_px, model.focal_sd_px
    rows = [
        ("pictures used", f"{model.n_views}"),
        ("reprojection error", f"{model.rms_px:.3f} px"),
        ("focal length", f"{focal[0]:.1f} ± {sd[0]:.1f}, {focal[1]:.1f} ± {sd[1]:.1f} px"),
        ("image centre", f"{model.centre_px[0]:.1f}, {model.centre_px[1]:.1f} px"),
        ("distortion", "k1 {:.4f}, k2 {:.4f}, p1 {:.5f}, p2 {:.5f}".format(*model.distortion)),
    ]
    if model.plane is not None:
        rows.append(("scale at the centre", f"{model.plane.mm_per_px:.5f} mm per pixel"))
        rows.append(("plane residual", f"{model.plane.residual_mm:.4f} mm"))
    title = f"{arguments.out}: camera {model.camera or '(any)'}, "
    title += f"{model.image_width} x {model.image_height}"
    return "\n".join([title, *(f"  {name:20} {value}" for name, value in rows)])
