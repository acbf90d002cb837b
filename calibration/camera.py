"""Lens and scale: from pictures of a printed board to straight lines and millimetres.

Intrinsics by Zhang's method (2000) with radial and tangential distortion (Brown 1966); the plane
the parts lie on by a homography from one picture of the board lying there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from ..built_types import built
from ..engine.atomic import write_atomically
from ..engine.spec import Record
from ..errors import CalibrationError
from .board import Board, Detection

MINIMUM_VIEWS = 5
LARGEST_RMS_PX = 1.0
LARGEST_FOCAL_SD = 0.01
"""A focal length less certain than 1 % means that the views resemble each other too much."""

SMALLEST_TILT_DEG = 10.0
"""At least one board must face away from the camera by this much."""

Float64 = NDArray[np.float64]


class Plane(Record, frozen=True, kw_only=True):
    """The plane the parts lie on, seen through the undistorted camera."""

    homography: tuple[float, ...]
    """3 x 3, row by row: undistorted pixel -> millimetres on the board's own axes."""
    mm_per_px: float
    """At the image centre: the square root of the area of one pixel in mm2."""
    residual_mm: float
    """Root mean square distance between the board's corners and their mapped images."""


class CameraModel(Record, frozen=True, kw_only=True):
    """What `calibrate camera` stores. Pixels have their centres at whole numbers."""

    schema: str = "skrd4ad-camera/1"
    camera: str = ""
    """Identity of the camera (serial or path); empty means any."""
    created: str = ""
    image_width: int
    image_height: int
    focal_px: tuple[float, float]
    focal_sd_px: tuple[float, float]
    centre_px: tuple[float, float]
    distortion: tuple[float, float, float, float]
    """k1, k2, p1, p2."""
    rms_px: float
    n_views: int
    board: Board
    plane: Plane | None = None


def calibrate_camera(
    views: Sequence[tuple[str, Detection]],
    image_size: tuple[int, int],
    board: Board,
    *,
    camera: str = "",
    created: str = "",
) -> CameraModel:
    """Intrinsics from at least five named views; `image_size` is (height, width).

    Raises CalibrationError when there are too few views, the reprojection error exceeds a pixel
    (the worst view is named), or the views do not determine the focal length.
    """
    if len(views) < MINIMUM_VIEWS:
        raise CalibrationError(
            f"the board was found in {len(views)} pictures; at least {MINIMUM_VIEWS} are needed",
            "take 10 to 20, tilted about 30 degrees in different directions, over the whole image",
        )
    # mypy sees OpenCV's stubs ask for starting values that the function itself makes from None.
    calibrate: Any = cv2.calibrateCameraExtended
    rms, matrix, distortion, rotations, _, deviations, _, errors = calibrate(
        [view.board_mm.astype(np.float32) for _, view in views],
        [view.image_px.astype(np.float32) for _, view in views],
        (image_size[1], image_size[0]),
        None,
        None,
        flags=cv2.CALIB_FIX_K3,
    )
    if not math.isfinite(rms) or rms > LARGEST_RMS_PX:
        worst = int(np.argmax(errors))
        raise CalibrationError(
            f"the reprojection error is {rms:.2f} px, worst in {views[worst][0]} "
            f"({float(np.ravel(errors)[worst]):.2f} px)",
            "leave that picture out; check that the board is flat and its measures are right",
        )
    focal = (float(matrix[0, 0]), float(matrix[1, 1]))
    sd = (float(np.ravel(deviations)[0]), float(np.ravel(deviations)[1]))
    # Boards that all face the camera leave focal length and distance interchangeable; the
    # deviations, from a singular matrix, may then look fine, so the tilt is judged as well.
    tilt = max(_tilt_deg(rotation) for rotation in rotations)
    if max(sd[0] / focal[0], sd[1] / focal[1]) > LARGEST_FOCAL_SD or tilt < SMALLEST_TILT_DEG:
        raise CalibrationError(
            f"the pictures do not determine the focal length ({focal[0]:.0f} ± {sd[0]:.0f} px)",
            "tilt the board more (about 30 degrees) and in different directions",
        )
    k1, k2, p1, p2 = (float(value) for value in np.ravel(distortion)[:4])
    return CameraModel(
        camera=camera,
        created=created,
        image_width=image_size[1],
        image_height=image_size[0],
        focal_px=focal,
        focal_sd_px=sd,
        centre_px=(float(matrix[0, 2]), float(matrix[1, 2])),
        distortion=(k1, k2, p1, p2),
        rms_px=float(rms),
        n_views=len(views),
        board=board,
    )


def camera_matrix(model: CameraModel) -> Float64:
    """The 3 x 3 pinhole matrix."""
    (fx, fy), (cx, cy) = model.focal_px, model.centre_px
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def undistort_maps(model: CameraModel) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Maps for cv2.remap in its fastest form: int16 (h, w, 2) and uint16 (h, w).

    The undistorted image keeps size, focal length and centre, so that the scale stays the same.
    """
    matrix = camera_matrix(model)
    fixed, fraction = cv2.initUndistortRectifyMap(
        matrix,
        np.array(model.distortion),
        None,
        matrix,
        (model.image_width, model.image_height),
        cv2.CV_16SC2,
    )
    return np.asarray(fixed, np.int16), np.asarray(fraction, np.uint16)


def undistort(
    pixels: NDArray[np.uint8], maps: tuple[NDArray[np.int16], NDArray[np.uint16]]
) -> NDArray[np.uint8]:
    """The straightened image, bilinear, uint8 (h, w, 3); outside the sensor the edge repeats."""
    if pixels.shape[:2] != maps[1].shape:
        raise CalibrationError(
            f"the camera was calibrated at {maps[1].shape[1]} x {maps[1].shape[0]} pixels, but "
            f"gives {pixels.shape[1]} x {pixels.shape[0]}",
            "calibrate at this resolution",
        )
    straight: Any = cv2.remap(
        pixels, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(straight, np.uint8)


def undistort_points(points: Float64, model: CameraModel) -> Float64:
    """Pixels (n, 2) of the captured image -> pixels (n, 2) of the undistorted one."""
    matrix = camera_matrix(model)
    straight = cv2.undistortPoints(
        points.reshape(-1, 1, 2).astype(np.float64), matrix, np.array(model.distortion), P=matrix
    )
    return np.asarray(straight, np.float64).reshape(-1, 2)


def measure_plane(view: Detection, model: CameraModel) -> Plane:
    """The plane of a board lying where the parts lie. Raises CalibrationError when it cannot be."""
    straight = undistort_points(view.image_px, model)
    board_mm = view.board_mm[:, :2]
    found, _ = cv2.findHomography(straight, board_mm, 0)
    if found is None or not np.isfinite(found).all():
        raise CalibrationError("the corners of the board do not determine the plane")
    homography = np.asarray(found, np.float64)
    mapped = apply_homography(homography, straight)
    return Plane(
        homography=tuple(float(value) for value in np.ravel(homography)),
        mm_per_px=scale_at(homography, model.image_width, model.image_height),
        residual_mm=float(np.sqrt(np.mean(np.sum((mapped - board_mm) ** 2, axis=1)))),
    )


def apply_homography(homography: Float64, points: Float64) -> Float64:
    """Points (n, 2) through a 3 x 3 homography."""
    lifted = np.column_stack([points, np.ones(len(points))]) @ np.asarray(homography).T
    return np.asarray(lifted[:, :2] / lifted[:, 2:], np.float64)


def scale_at(homography: Float64, image_width: int, image_height: int) -> float:
    """mm per pixel at the image centre: sqrt |det J| of the homography (exact derivative)."""
    centre = np.array([(image_width - 1) / 2, (image_height - 1) / 2, 1.0])
    weight = float(np.asarray(homography)[2] @ centre)
    # For a homography the Jacobian's determinant is det(H) / w^3.
    return math.sqrt(abs(float(np.linalg.det(homography)) / weight**3))


def _tilt_deg(rotation_vector: Float64) -> float:
    """Angle between the board's normal and the optical axis, 0 to 90 degrees."""
    rotation = np.asarray(cv2.Rodrigues(rotation_vector)[0], np.float64)
    return math.degrees(math.acos(min(1.0, abs(float(rotation[2, 2])))))


def store_camera(path: Path, model: CameraModel) -> None:
    """Write the camera file (YAML), atomically."""
    write_atomically(path, msgspec.yaml.encode(model))


def load_camera(path: Path) -> CameraModel:
    """Read a camera file. Raises CalibrationError naming the file when it is damaged or foreign."""
    try:
        model = msgspec.yaml.decode(path.read_bytes(), type=built(CameraModel))
    except (OSError, msgspec.DecodeError, yaml.YAMLError) as error:
        raise CalibrationError(
            f"{path} is not a camera file: {error}", "skrd4ad calibrate camera makes one"
        ) from error
    if model.schema != "skrd4ad-camera/1":
        raise CalibrationError(f"{path} has schema '{model.schema}', not skrd4ad-camera/1")
    return model
