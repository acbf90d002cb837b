"""`calibrate camera` and `calibrate flatfield` as the command line runs them."""

import json

import cv2
import numpy as np
import pytest
from skrd4ad.calibration.board import Board, draw_board
from skrd4ad.calibration.camera import load_camera
from skrd4ad.calibration.flatfield import load_flat_field
from skrd4ad.cli import main
from skrd4ad.engine.images import read_rgb, write_png

BOARD = Board(columns=7, rows=5, square_mm=20.0, marker_mm=15.0)
SHAPE = ["--squares", "7x5", "--square-mm", "20", "--marker-mm", "15"]


def photograph(tilt_x, tilt_y, distance=260.0, focal=600.0):
    """The board through a pinhole camera of 400 x 300 pixels."""
    printed = draw_board(BOARD, 3.0)
    rotation = cv2.Rodrigues(np.radians([tilt_x, tilt_y, 4.0]))[0]
    translation = np.array([0, 0, distance]) - rotation @ np.array([70.0, 50.0, 0.0])
    matrix = np.array([[focal, 0, 199.5], [0, focal, 149.5], [0, 0, 1]])
    to_image = matrix @ np.column_stack([rotation[:, 0], rotation[:, 1], translation])
    to_mm = np.array([[1 / 3, 0, (0.5 - 60) / 3], [0, 1 / 3, (0.5 - 60) / 3], [0, 0, 1]])
    fine = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    picture = cv2.warpPerspective(
        printed,
        fine @ to_image @ to_mm,
        (800, 600),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=255,
    )
    grey = picture.reshape(300, 2, 400, 2).mean(axis=(1, 3)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "boards"
    for index, tilt in enumerate([(0, 0), (30, 0), (-30, 5), (0, 30), (5, -30), (22, 22)]):
        write_png(folder / f"{index}.png", photograph(*tilt))
    return folder


def test_a_folder_of_boards_becomes_a_camera_file(tmp_path, pictures, capsys):
    write_png(pictures / "empty.png", np.full((300, 400, 3), 90, np.uint8))
    plane, out = tmp_path / "plane.png", tmp_path / "camera.yaml"
    write_png(plane, photograph(0, 0, distance=300.0))
    arguments = ["calibrate", "camera", "--images", str(pictures), "--out", str(out), *SHAPE]
    assert main([*arguments, "--plane", str(plane), "--camera", "usb-7", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    model = load_camera(out)
    assert model.camera == "usb-7"
    assert model.n_views == facts["n_views"] == 6
    assert model.focal_px == pytest.approx((600, 600), rel=0.01)
    assert model.plane.mm_per_px == pytest.approx(300 / 600, rel=0.01)


def test_pictures_that_cannot_be_used_are_one_sentence_and_no_file(tmp_path, pictures, capsys):
    out = tmp_path / "camera.yaml"
    arguments = ["calibrate", "camera", "--images", str(pictures), "--out", str(out)]
    (pictures / "5.png").write_bytes(b"half a picture")
    assert main([*arguments, *SHAPE]) == 2
    assert "5.png cannot be read" in capsys.readouterr().err
    write_png(pictures / "5.png", np.full((30, 40, 3), 90, np.uint8))
    assert main([*arguments, *SHAPE]) == 5
    assert "5.png has 40 x 30 pixels" in capsys.readouterr().err
    (pictures / "5.png").unlink()
    assert main([*arguments, "--squares", "4x4", "--square-mm", "9"]) == 2
    assert "markers of 15.0 mm do not fit" in capsys.readouterr().err
    plane = tmp_path / "plane.png"
    write_png(plane, np.full((300, 400, 3), 90, np.uint8))
    assert main([*arguments, *SHAPE, "--plane", str(plane)]) == 5
    assert "plane.png does not show the board" in capsys.readouterr().err
    assert main([*arguments, "--squares", "nine"]) == 2
    assert main(["calibrate", "camera"]) == 2
    assert not out.exists()


def test_the_board_for_printing_has_its_size(tmp_path, capsys):
    out = tmp_path / "board.png"
    assert main(["calibrate", "camera", "--print-board", str(out), *SHAPE, "--px-per-mm", "4"]) == 0
    assert "print at 102 dpi" in capsys.readouterr().out
    assert read_rgb(out).shape == ((5 + 2) * 80, (7 + 2) * 80, 3)


def test_a_folder_of_cards_becomes_a_flat_field(tmp_path, capsys):
    x = np.linspace(0.75, 1, 320)[None, :, None]
    card = np.broadcast_to(np.round(x * (200, 180, 150)), (240, 320, 3)).astype(np.uint8)
    write_png(tmp_path / "cards" / "1.png", card)
    write_png(tmp_path / "cards" / "2.png", card)
    out = tmp_path / "flat.npz"
    arguments = ["calibrate", "flatfield", "--images", str(tmp_path / "cards"), "--out", str(out)]
    assert main([*arguments, "--camera", "usb-7"]) == 0
    assert "2 pictures" in capsys.readouterr().out
    facts = load_flat_field(out).facts
    assert facts.camera == "usb-7"
    assert facts.unevenness_before > 0.2
    assert facts.unevenness_after < 0.02
    before = out.read_bytes()
    write_png(tmp_path / "cards" / "2.png", np.full((240, 320, 3), 255, np.uint8))
    write_png(tmp_path / "cards" / "1.png", np.full((240, 320, 3), 255, np.uint8))
    assert main(arguments) == 5
    assert "overexposed" in capsys.readouterr().err
    assert out.read_bytes() == before
