"""A synthetic camera photographs a printed board; its lens and scale come back."""

from functools import lru_cache

import cv2
import msgspec
import numpy as np
import pytest
from skrd4ad.calibration.board import Board, Detection, check_board, draw_board, find_board
from skrd4ad.calibration.camera import (
    apply_homography,
    calibrate_camera,
    load_camera,
    measure_plane,
    store_camera,
    undistort,
    undistort_maps,
    undistort_points,
)
from skrd4ad.errors import CalibrationError, ConfigError

HEIGHT, WIDTH = 480, 640
FOCAL, CENTRE = 760.0, (325.0, 234.0)
MATRIX = np.array([[FOCAL, 0, CENTRE[0]], [0, FOCAL, CENTRE[1]], [0, 0, 1]])
DISTORTION = np.array([-0.18, 0.06, 0.0008, -0.0005])
CHARUCO = Board(columns=9, rows=7, square_mm=20.0, marker_mm=15.0)
CHECKER = Board(kind="checkerboard", columns=9, rows=7, square_mm=20.0)
PX_PER_MM = 3.0
FINE = 2


def pose(tilt_x, tilt_y, roll, shift, distance):
    """Rotation and translation of a board whose middle sits near the optical axis."""
    rotation = cv2.Rodrigues(np.radians([tilt_x, tilt_y, roll]))[0]
    middle = np.array([9 * 20 / 2, 7 * 20 / 2, 0.0])
    return rotation, np.array([*shift, distance]) - rotation @ middle


POSES = [
    pose(0, 0, 0, (0, 0), 300), pose(30, 0, 3, (20, 0), 320), pose(-30, 5, 0, (-25, 10), 330),
    pose(0, 32, 5, (10, -20), 320), pose(5, -31, -4, (0, 15), 330),
    pose(25, 22, 8, (-20, -15), 340),
    pose(-24, 25, -10, (30, 20), 340), pose(22, -26, 15, (-40, 20), 350),
]  # fmt: skip


@lru_cache(maxsize=1)
def rays():
    """Where each of the 2 x 2 samples of a pixel looks: undistorted (u, v), one row a sample."""
    y, x = np.mgrid[: HEIGHT * FINE, : WIDTH * FINE].astype(np.float64)
    pixels = np.stack([(x + 0.5) / FINE - 0.5, (y + 0.5) / FINE - 0.5], axis=-1).reshape(-1, 1, 2)
    return cv2.undistortPoints(pixels, MATRIX, DISTORTION).reshape(-1, 2)


def photograph(board, rotation, translation, noise=2.0, seed=0):
    """RGB picture of the board by the synthetic camera: supersampled, with sensor noise."""
    printed = draw_board(board, PX_PER_MM)
    side = round(board.square_mm * PX_PER_MM)
    # Ray (u, v, 1) meets the plane z_board = 0: solve [r1 r2 t] (X, Y, 1)^T ~ (u, v, 1)^T.
    to_board = np.linalg.inv(np.column_stack([rotation[:, 0], rotation[:, 1], translation]))
    on_board = apply_homography(to_board, rays()) * (side / board.square_mm) + side - 0.5
    maps = on_board.reshape(HEIGHT * FINE, WIDTH * FINE, 2).astype(np.float32)
    picture = cv2.remap(printed, maps, None, cv2.INTER_LINEAR, borderValue=255)
    small = picture.reshape(HEIGHT, FINE, WIDTH, FINE).mean(axis=(1, 3))
    small = 20 + 0.8 * small + np.random.default_rng(seed).normal(0, noise, small.shape)
    return np.repeat(np.clip(np.round(small), 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def views_of(board, poses):
    views = []
    for index, (rotation, translation) in enumerate(poses):
        found = find_board(photograph(board, rotation, translation, seed=index), board)
        assert found is not None, f"board not found in pose {index}"
        views.append((f"view {index}", found))
    return views


@pytest.fixture(scope="module")
def views():
    return views_of(CHARUCO, POSES)


@pytest.fixture(scope="module")
def model(views):
    return calibrate_camera(views, (HEIGHT, WIDTH), CHARUCO, camera="usb-1")


def test_charuco_recovers_focal_length_and_centre(model):
    assert model.focal_px == pytest.approx((FOCAL, FOCAL), rel=0.005)
    assert model.centre_px == pytest.approx(CENTRE, abs=4)
    assert model.rms_px < 0.3
    assert model.n_views == len(POSES)


def test_checkerboard_recovers_focal_length():
    model = calibrate_camera(views_of(CHECKER, POSES[1:6]), (HEIGHT, WIDTH), CHECKER)
    assert model.focal_px == pytest.approx((FOCAL, FOCAL), rel=0.005)
    assert model.rms_px < 0.3


def test_straight_lines_become_straight(model):
    rotation, translation = POSES[0]
    corners = np.array([[x * 20.0, 20.0, 0.0] for x in range(1, 9)])
    bent = cv2.projectPoints(corners, cv2.Rodrigues(rotation)[0], translation, MATRIX, DISTORTION)
    bent = bent[0].reshape(-1, 2)
    straight = undistort_points(bent, model)

    def sagitta(points):
        line = np.polynomial.Polynomial.fit(points[:, 0], points[:, 1], 1)
        return np.abs(points[:, 1] - line(points[:, 0])).max()

    assert sagitta(bent) > 0.5
    assert sagitta(straight) < 0.1


def test_the_undistorted_picture_agrees_with_the_undistorted_points(model):
    rotation, translation = POSES[3]
    picture = photograph(CHARUCO, rotation, translation)
    maps = undistort_maps(model)
    assert maps[0].dtype == np.int16
    assert maps[0].shape == (HEIGHT, WIDTH, 2)
    found = find_board(undistort(picture, maps), CHARUCO)
    ideal = cv2.projectPoints(
        found.board_mm, cv2.Rodrigues(rotation)[0], translation, MATRIX, np.zeros(4)
    )[0].reshape(-1, 2)
    assert np.abs(found.image_px - ideal).mean() < 0.3
    with pytest.raises(CalibrationError, match="calibrated at 640 x 480 pixels, but gives 80 x 60"):
        undistort(np.zeros((60, 80, 3), np.uint8), maps)


def test_the_plane_gives_millimetres_per_pixel(model):
    rotation, translation = pose(3, -2, 12, (5, -8), 310)
    view = find_board(photograph(CHARUCO, rotation, translation, seed=77), CHARUCO)
    plane = measure_plane(view, model)
    # Truth: two pixels a hundredth apart round the centre, back-projected onto the board's plane.
    to_board = np.linalg.inv(
        MATRIX @ np.column_stack([rotation[:, 0], rotation[:, 1], translation])
    )
    x, y, step = (WIDTH - 1) / 2, (HEIGHT - 1) / 2, 0.01
    near = apply_homography(to_board, np.array([[x, y], [x + step, y], [x, y + step]]))
    (ux, uy), (vx, vy) = (near[1] - near[0]) / step, (near[2] - near[0]) / step
    truth = np.sqrt(abs(ux * vy - uy * vx))
    assert plane.mm_per_px == pytest.approx(truth, rel=0.005)
    assert plane.residual_mm < 0.1
    # A distance on the part, measured through the stored homography.
    ends_mm = np.array([[40.0, 60.0, 0.0], [140.0, 60.0, 0.0]])
    ends = cv2.projectPoints(ends_mm, cv2.Rodrigues(rotation)[0], translation, MATRIX, DISTORTION)
    straight = undistort_points(ends[0].reshape(-1, 2), model)
    measured = apply_homography(np.reshape(plane.homography, (3, 3)), straight)
    assert np.linalg.norm(measured[1] - measured[0]) == pytest.approx(100.0, rel=0.005)


def test_too_few_views_are_refused(views):
    with pytest.raises(CalibrationError, match="found in 4 pictures; at least 5"):
        calibrate_camera(views[:4], (HEIGHT, WIDTH), CHARUCO)


def test_views_that_do_not_determine_the_focal_length_are_refused():
    corners = np.array([[x * 20.0, y * 20.0, 0.0] for y in range(1, 7) for x in range(1, 9)])
    noise = np.random.default_rng(6).normal(0, 0.05, (5, 48, 2))
    flat = []
    for index in range(5):
        rotation, translation = pose(0, 0, 5 * index, (3 * index, 0), 300)
        seen = cv2.projectPoints(
            corners, cv2.Rodrigues(rotation)[0], translation, MATRIX, DISTORTION
        )[0].reshape(-1, 2)
        flat.append((f"view {index}", Detection(seen + noise[index], corners)))
    with pytest.raises(CalibrationError, match="do not determine the focal length"):
        calibrate_camera(flat, (HEIGHT, WIDTH), CHARUCO)


def test_a_wrong_view_is_named(views):
    name, found = views[4]
    generator = np.random.default_rng(0)
    wrong = type(found)(
        found.image_px + generator.normal(0, 25, found.image_px.shape), found.board_mm
    )
    with pytest.raises(CalibrationError, match="worst in view 4"):
        calibrate_camera([*views[:4], (name, wrong), *views[5:]], (HEIGHT, WIDTH), CHARUCO)


def test_a_picture_without_a_board_finds_none():
    assert find_board(np.full((200, 300, 3), 128, np.uint8), CHARUCO) is None
    assert find_board(np.full((200, 300, 3), 128, np.uint8), CHECKER) is None


@pytest.mark.parametrize("board", [CHARUCO, CHECKER])
def test_the_printed_board_is_found_where_it_was_drawn(board):
    found = find_board(draw_board(board, 2.0), board)
    assert len(found.image_px) == 8 * 6
    expected = found.board_mm[:, :2] * 2.0 + 40 - 0.5
    assert np.abs(found.image_px - expected).max() < 0.2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"columns": 2}, "too small"),
        ({"square_mm": 0.0}, "do not exist"),
        ({"marker_mm": 25.0}, "do not fit"),
        ({"dictionary": "9x9"}, "unknown"),
        ({"columns": 20, "rows": 20}, "200 markers, the dictionary 5x5_100 only 100"),
    ],
)
def test_boards_that_cannot_exist_are_refused(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_board(msgspec.structs.replace(CHARUCO, **change))


def test_a_camera_file_comes_back_and_a_foreign_one_is_refused(tmp_path, model):
    path = tmp_path / "camera.yaml"
    store_camera(path, model)
    assert load_camera(path) == model
    path.write_text("schema: other\n")
    with pytest.raises(CalibrationError, match=r"camera\.yaml is not a camera file"):
        load_camera(path)
