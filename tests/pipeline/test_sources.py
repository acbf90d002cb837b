"""Files, folders, rendered parts and devices as cameras."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image
from skrd4ad.errors import CameraError
from skrd4ad.pipeline.capture.base import EndOfStream, Shot, Source
from skrd4ad.pipeline.capture.opencv import DeviceSource, to_rgb
from skrd4ad.pipeline.capture.pace import Pace
from skrd4ad.pipeline.capture.pattern import PatternSource
from skrd4ad.pipeline.capture.still_folder import StillFolderSource
from skrd4ad.pipeline.capture.video_file import VideoFileSource


def play(source: Source) -> list[Shot]:
    source.open()
    source.configure()
    shots = []
    try:
        while True:
            shot = source.grab(1.0)
            assert shot is not None
            shots.append(shot)
    except EndOfStream:
        return shots
    finally:
        source.close()


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 200
    (tmp_path / "b").mkdir()
    Image.fromarray(red).save(tmp_path / "b" / "rgb.png")
    Image.fromarray(red[..., 0]).save(tmp_path / "a_grey.PNG")
    Image.fromarray(red[..., 0].astype(np.uint16) * 256).save(tmp_path / "c_sixteen.png")
    Image.fromarray(np.dstack([red, red[..., 0]])).save(tmp_path / "d_rgba.png")
    Image.fromarray(red[:1, :1]).save(tmp_path / "e_tiny.png")
    (tmp_path / "f_cut.png").write_bytes((tmp_path / "b" / "rgb.png").read_bytes()[:60])
    (tmp_path / "g_empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_every_file_of_a_folder_is_one_part_in_sorted_order(odd_folder: Path) -> None:
    shots = play(StillFolderSource(odd_folder))
    names = ["a_grey.PNG", "b/rgb.png", "c_sixteen.png", "d_rgba.png", "e_tiny.png"]
    assert [shot.name for shot in shots] == [*names, "f_cut.png", "g_empty.jpg"]
    assert [shot.frame_id for shot in shots] == list(range(1, 8))
    for shot in shots[:4]:
        assert shot.pixels is not None
        assert shot.pixels.shape == (20, 30, 3)
        assert shot.pixels[0, 0, 0] == 200
        assert shot.failure is None
    for shot in shots[4:]:
        assert (shot.pixels, shot.failure) == (None, "unreadable")
        assert shot.name is not None
        assert shot.name in shot.detail


def test_missing_and_empty_folders_are_camera_errors(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="does not exist"):
        StillFolderSource(tmp_path / "nowhere").open()
    with pytest.raises(CameraError, match="holds no images"):
        StillFolderSource(tmp_path).open()


def test_a_video_delivers_every_frame_in_rgb(tmp_path: Path) -> None:
    path = tmp_path / "belt.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(5):
        blue = np.zeros((48, 64, 3), np.uint8)
        blue[..., 0] = 255  # OpenCV's order: blue first
        writer.write(blue)
    writer.release()
    shots = play(VideoFileSource(path))
    assert [shot.frame_id for shot in shots] == [1, 2, 3, 4, 5]
    assert shots[0].pixels is not None
    red, _, blue_value = shots[0].pixels[10, 10]
    assert blue_value > 200 > 60 > red


def test_what_is_no_video_is_a_camera_error(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="does not exist"):
        VideoFileSource(tmp_path / "none.mp4").open()
    (tmp_path / "text.mp4").write_text("no video at all")
    with pytest.raises(CameraError, match="cannot be opened as a video"):
        VideoFileSource(tmp_path / "text.mp4").open()


def test_a_missing_device_says_what_is_there() -> None:
    with pytest.raises(CameraError, match="/dev/video97 does not exist") as caught:
        DeviceSource("97").open()
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_device_pixels_become_uint8_rgb() -> None:
    bgr = np.zeros((4, 5, 3), np.uint8)
    bgr[..., 2] = 9
    assert to_rgb(bgr)[0, 0].tolist() == [9, 0, 0]
    assert to_rgb(np.dstack([bgr, bgr[..., :1]]))[0, 0].tolist() == [9, 0, 0]
    assert to_rgb(np.full((4, 5), 7, np.uint8)).shape == (4, 5, 3)
    assert to_rgb(np.full((4, 5), 0x1234, np.uint16))[0, 0].tolist() == [0x12] * 3
    with pytest.raises(CameraError, match="2 channels"):
        to_rgb(np.zeros((4, 5, 2), np.uint8))
    with pytest.raises(CameraError, match="float32"):
        to_rgb(np.zeros((4, 5), np.float32))


def test_the_same_seed_renders_the_same_parts_with_their_truth() -> None:
    one, two = (
        play(PatternSource(seed=5, defect=0.5, count=12, size=64, bank=3)) for _ in range(2)
    )
    other = play(PatternSource(seed=6, defect=0.5, count=12, size=64, bank=3))
    assert [shot.truth for shot in one] == [shot.truth for shot in two]
    for left, right in zip(one, two, strict=True):
        assert np.array_equal(left.pixels, right.pixels)
    assert not all(np.array_equal(a.pixels, b.pixels) for a, b in zip(one, other, strict=True))
    assert {shot.truth == "good" for shot in one} == {True, False}
    assert all(shot.simulated and shot.part.match == "exact" for shot in one)
    assert one[3].part.trigger_seq == 4


def test_the_share_of_defects_is_kept_at_its_ends() -> None:
    good = play(PatternSource(defect=0.0, count=20, size=64, bank=2))
    bad = play(PatternSource(defect=1.0, count=20, size=64, bank=2))
    assert {shot.truth for shot in good} == {"good"}
    assert "good" not in {shot.truth for shot in bad}


def test_a_paced_source_waits_for_the_grid_and_never_bursts(parts: ModuleType) -> None:
    hand = parts.HandClock()
    pace = Pace(10.0, hand.clock)
    assert pace.wait_s() == 0
    pace.advance()
    assert pace.wait_s() == pytest.approx(0.1)
    hand.advance_s(0.15)  # late by half a period: the grid stays
    assert pace.wait_s() == 0
    pace.advance()
    assert pace.wait_s() == pytest.approx(0.05)
    hand.advance_s(5.0)  # a stall of fifty periods: one part is due on the grid, not fifty
    due = 0
    while pace.wait_s() == 0:
        pace.advance()
        due += 1
    assert due <= 2
    assert pace.wait_s() == pytest.approx(0.05)


def test_a_paced_folder_says_nothing_yet(odd_folder: Path, parts: ModuleType) -> None:
    hand = parts.HandClock()
    source = StillFolderSource(odd_folder, hand.clock, pace_hz=0.001)
    source.open()
    source.configure()
    assert source.grab(0.001) is not None
    assert source.grab(0.001) is None
