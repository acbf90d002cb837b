"""A part put in place lies where it lay in the reference; what is not there is refused."""

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.calibration.part import load_part, part_template, place_part, store_part
from skrd4ad.cli import main
from skrd4ad.engine.images import read_rgb, write_png
from skrd4ad.engine.spec import Roi
from skrd4ad.errors import CalibrationError, ConfigError

WIDTH, HEIGHT = 280, 220
BOX = Roi(x=80, y=50, width=110, height=120)


def reference():
    generator = np.random.default_rng(3)
    grey = cv2.GaussianBlur(
        generator.normal(120, 50, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 3
    )
    cv2.rectangle(grey, (95, 65), (165, 120), 30.0, -1)
    for x in (105, 125, 145):
        cv2.rectangle(grey, (x, 120), (x + 8, 165), 210.0, -1)
    cv2.circle(grey, (110, 80), 6, 170.0, -1)
    grey = cv2.GaussianBlur(grey, (0, 0), 1.2)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def disturbed(pixels, angle_deg, shift):
    turn = math.radians(angle_deg)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    middle = np.array([BOX.x + (BOX.width - 1) / 2, BOX.y + (BOX.height - 1) / 2])
    matrix = np.column_stack([rotation, middle - rotation @ middle + shift])
    return cv2.warpAffine(
        pixels, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


@settings(max_examples=12)
@given(st.floats(-8, 8), st.floats(-25, 25), st.floats(-20, 20))
def test_the_part_comes_to_lie_where_it_lay_in_the_reference(angle, dx, dy):
    clean = reference()
    part = part_template(clean, BOX)
    placed = place_part(disturbed(clean, angle, np.array([dx, dy])), part)
    assert placed.shift_px == pytest.approx((dx, dy), abs=0.5)
    assert placed.angle_deg == pytest.approx(angle, abs=0.3)
    inside = (slice(BOX.y, BOX.y + BOX.height), slice(BOX.x, BOX.x + BOX.width))
    assert placed.pixels.shape == clean.shape
    assert np.abs(placed.pixels[inside].astype(int) - clean[inside]).mean() < 4.0


def test_boxes_and_pictures_that_cannot_work_are_refused():
    clean = reference()
    with pytest.raises(ConfigError, match="does not lie inside the 280 x 220 picture"):
        part_template(clean, Roi(x=200, y=50, width=110, height=120))
    with pytest.raises(ConfigError, match="at least 16"):
        part_template(clean, Roi(x=20, y=50, width=8, height=120))
    with pytest.raises(ConfigError, match="largest angle"):
        part_template(clean, BOX, largest_angle_deg=90.0)
    striped = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    striped[:, ::4] = 200
    with pytest.raises(CalibrationError):
        part_template(striped, BOX)
    part = part_template(clean, BOX)
    with pytest.raises(ConfigError, match="280 x 220 pictures, but this one has 100 x 220"):
        place_part(clean[:, :100], part)
    empty = np.random.default_rng(5).integers(90, 150, clean.shape, np.uint8)
    with pytest.raises(CalibrationError, match="the part was not found"):
        place_part(empty, part)


def test_a_part_file_is_kept_with_its_camera_and_refused_when_damaged(tmp_path):
    path = tmp_path / "part.npz"
    part = part_template(reference(), BOX, camera="usb-7", created="2026-11-26T00:00:00+00:00")
    store_part(path, part)
    again = load_part(path)
    assert again.facts == part.facts
    assert np.array_equal(again.pixels, part.pixels)
    content = path.read_bytes()
    for cut in (0, 10, len(content) // 2, len(content) - 5):
        path.write_bytes(content[:cut])
        with pytest.raises(CalibrationError, match="is not a part file"):
            load_part(path)


def test_calibrate_part_tries_a_folder_before_it_stores(tmp_path, capsys):
    clean, good, out = reference(), tmp_path / "good", tmp_path / "part.npz"
    write_png(tmp_path / "first.png", clean)
    write_png(good / "a.png", disturbed(clean, 3.0, np.array([6.0, -4.0])))
    arguments = ["calibrate", "part", "--image", str(tmp_path / "first.png"), "--out", str(out)]
    arguments += ["--box", "80,50,110,120", "--try", str(good), "--camera", "usb-7", "--json"]
    assert main([*arguments, "--preview", str(tmp_path / "placed")]) == 0
    (row,) = json.loads(capsys.readouterr().out)["tried"]
    assert row["shift_px"] == pytest.approx([6.0, -4.0], abs=0.5)
    assert load_part(out).facts.camera == "usb-7"
    assert read_rgb(tmp_path / "placed" / "a.png").shape == clean.shape

    out.unlink()
    write_png(good / "b.png", np.random.default_rng(5).integers(90, 150, clean.shape, np.uint8))
    assert main(arguments) == 5
    assert "not found in 1 of 2 pictures; nothing was stored" in capsys.readouterr().err
    assert not out.exists()
    assert main([*arguments, "--box", "80,50"]) == 2
    assert "--box 80,50 is not x,y,width,height" in capsys.readouterr().err
