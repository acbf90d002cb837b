"""`calibrate golden` and `calibrate drift` through a real plan and real image files."""

import json

import numpy as np
import pytest
from skrd4ad.cli import main
from skrd4ad.engine.images import write_png

GREY = np.array((124, 116, 104), np.float64)


def write_line(folder, count, seed, gain=1.0):
    """`count` parts with a patch of random strength and a little noise."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        pixels = np.broadcast_to(GREY, (64, 64, 3)).copy()
        pixels[16:40, 16:40] += generator.uniform(5, 30)
        pixels += generator.normal(0, 2, pixels.shape)
        write_png(folder / f"{number:02}.png", np.clip(pixels * gain, 0, 255).astype(np.uint8))
    return str(folder)


@pytest.fixture
def plan(write_tiny_plan, tmp_path):
    """A plan calibrated on the parts of tmp_path/good."""
    path = write_tiny_plan(tmp_path / "part.plan", batch=4)
    good = write_line(tmp_path / "good", 60, seed=1)
    assert main(["calibrate", "threshold", "--plan", str(path), "--images", good]) == 0
    return str(path)


def test_golden_parts_judged_as_known_are_fine_and_change_nothing(plan, tmp_path, capsys):
    golden = write_line(tmp_path / "golden", 2, seed=1)  # the first two of the calibration
    write_png(tmp_path / "bad" / "burnt.png", np.full((64, 64, 3), 255, np.uint8))
    before = (tmp_path / "part.plan").read_bytes()
    capsys.readouterr()
    arguments = ["calibrate", "golden", "--plan", plan, "--good", golden]
    assert main([*arguments, "--bad", str(tmp_path / "bad"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [part["bad"] for part in facts["parts"]] == [False, False, True]
    assert facts["wrong"] == []
    assert (tmp_path / "part.plan").read_bytes() == before


def test_a_golden_part_judged_wrongly_ends_with_5_and_is_named(plan, tmp_path, capsys):
    golden = write_line(tmp_path / "golden", 2, seed=1)
    write_png(tmp_path / "bad" / "faint.png", np.broadcast_to(GREY, (64, 64, 3)).astype(np.uint8))
    arguments = ["calibrate", "golden", "--plan", plan, "--good", golden]
    assert main([*arguments, "--bad", str(tmp_path / "bad")]) == 5
    error = capsys.readouterr().err
    assert "1 of 3 golden parts are judged wrongly: golden bad part faint.png" in error


def test_a_plan_without_threshold_cannot_be_checked(write_tiny_plan, tmp_path, capsys):
    path = str(write_tiny_plan(tmp_path / "new.plan", threshold=None))
    golden = write_line(tmp_path / "golden", 1, seed=1)
    assert main(["calibrate", "golden", "--plan", path, "--good", golden, "--bad", golden]) == 5
    assert "new.plan has no threshold yet" in capsys.readouterr().err


def test_a_line_that_did_not_move_is_fine(plan, tmp_path, capsys):
    recent = write_line(tmp_path / "recent", 40, seed=2)
    good = str(tmp_path / "good")
    assert main(["calibrate", "drift", "--plan", plan, "--recent", recent, "--baseline", good]) == 0
    assert "median score" in capsys.readouterr().out


def test_a_dimmed_lamp_is_seen(plan, tmp_path, capsys):
    recent = write_line(tmp_path / "recent", 40, seed=2, gain=0.8)
    good = str(tmp_path / "good")
    assert main(["calibrate", "drift", "--plan", plan, "--recent", recent, "--baseline", good]) == 5
    error = capsys.readouterr().err
    assert "brightness" in error
    assert "lie above the calibration's" in error


def test_too_few_recent_parts_are_refused(plan, tmp_path, capsys):
    recent = write_line(tmp_path / "recent", 29, seed=2)
    good = str(tmp_path / "good")
    assert main(["calibrate", "drift", "--plan", plan, "--recent", recent, "--baseline", good]) == 5
    assert "29 parts are too few" in capsys.readouterr().err
