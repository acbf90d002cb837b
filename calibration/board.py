"""Printed calibration boards: what they are, how to print one, and how to find one in a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.spec import Record
from ..errors import ConfigError

MINIMUM_CORNERS = 6
DICTIONARIES = {
    "4x4_50": cv2.aruco.DICT_4X4_50,
    "4x4_100": cv2.aruco.DICT_4X4_100,
    "5x5_100": cv2.aruco.DICT_5X5_100,
    "6x6_250": cv2.aruco.DICT_6X6_250,
}


class Board(Record, frozen=True, kw_only=True):
    """A board of `columns` x `rows` squares. ChArUco boards carry a marker in every white one."""

    kind: Literal["charuco", "checkerboard"] = "charuco"
    columns: int = 9
    rows: int = 7
    square_mm: float = 20.0
    marker_mm: float = 15.0
    dictionary: str = "5x5_100"


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """Corners found in one picture."""

    image_px: NDArray[np.float64]
    """(n, 2), x and y, whole numbers are pixel centres."""
    board_mm: NDArray[np.float64]
    """(n, 3) on the board, z = 0."""


def check_board(board: Board) -> None:
    """Raise ConfigError for a board that cannot exist."""
    if min(board.columns, board.rows) < 3:
        raise ConfigError(f"a board of {board.columns} x {board.rows} squares is too small")
    if board.square_mm <= 0:
        raise ConfigError(f"squares of {board.square_mm} mm do not exist")
    if board.kind == "checkerboard":
        return
    if not 0 < board.marker_mm < board.square_mm:
        raise ConfigError(
            f"markers of {board.marker_mm} mm do not fit squares of {board.square_mm} mm"
        )
    if board.dictionary not in DICTIONARIES:
        raise ConfigError(
            f"the marker dictionary '{board.dictionary}' is unknown",
            f"one of {', '.join(DICTIONARIES)}",
        )
    markers = board.columns * board.rows // 2
    available = int(_dictionary(board).bytesList.shape[0])
    if markers > available:
        raise ConfigError(
            f"the board has {markers} markers, the dictionary {board.dictionary} only {available}"
        )


def draw_board(board: Board, px_per_mm: float) -> NDArray[np.uint8]:
    """The board for printing: grey (h, w), one white square of margin on every side.

    With s = round(square_mm * px_per_mm), the board's outer corner lies between the pixels
    s - 1 and s, and its inner corner (i, j) at pixel s * (i + 1) - 0.5, s * (j + 1) - 0.5.
    """
    check_board(board)
    side = round(board.square_mm * px_per_mm)
    if board.kind == "charuco":
        inner = _charuco(board).generateImage((board.columns * side, board.rows * side))
    else:
        y, x = np.mgrid[: board.rows * side, : board.columns * side] // side
        inner = np.where((x + y) % 2 == 0, 0, 255)
    return np.pad(np.asarray(inner, np.uint8), side, constant_values=255)


def find_board(pixels: NDArray[np.uint8], board: Board) -> Detection | None:
    """The board's inner corners in an RGB or grey picture; None when it is not there.

    A ChArUco board may be partly hidden; a checkerboard must be seen whole.
    """
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    found = _find_charuco(grey, board) if board.kind == "charuco" else _find_checker(grey, board)
    if found is None or len(found.image_px) < MINIMUM_CORNERS:
        return None
    # Corners on one line determine neither a plane nor a camera.
    centred = found.board_mm[:, :2] - found.board_mm[:, :2].mean(axis=0)
    if np.linalg.matrix_rank(centred, tol=board.square_mm / 2) < 2:
        return None
    return found


def _find_charuco(grey: Any, board: Board) -> Detection | None:
    charuco = _charuco(board)
    corners, ids, _, _ = cv2.aruco.CharucoDetector(charuco).detectBoard(grey)
    if corners is None or ids is None or len(ids) < MINIMUM_CORNERS:
        return None
    board_mm = np.asarray(charuco.getChessboardCorners(), np.float64)[np.ravel(ids)]
    return Detection(np.asarray(corners, np.float64).reshape(-1, 2), board_mm)


def _find_checker(grey: Any, board: Board) -> Detection | None:
    size = (board.columns - 1, board.rows - 1)
    found, corners = cv2.findChessboardCornersSB(
        grey, size, flags=cv2.CALIB_CB_ACCURACY | cv2.CALIB_CB_EXHAUSTIVE
    )
    if not found:
        return None
    j, i = np.mgrid[1 : board.rows, 1 : board.columns]
    flat = np.stack([i.ravel(), j.ravel(), np.zeros(i.size)], axis=1) * board.square_mm
    return Detection(np.asarray(corners, np.float64).reshape(-1, 2), flat)


def _dictionary(board: Board) -> Any:
    return cv2.aruco.getPredefinedDictionary(DICTIONARIES[board.dictionary])


def _charuco(board: Board) -> Any:
    return cv2.aruco.CharucoBoard(
        (board.columns, board.rows), board.square_mm, board.marker_mm, _dictionary(board)
    )
