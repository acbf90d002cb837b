"""What a file's pixels are: every kind of image file, and the refusals that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skrd4ad.engine.images import read_rgb, write_png
from skrd4ad.errors import ConfigError, DataError

RGB = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]


def saved(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_files_give_their_pixels(tmp_path: Path, suffix: str) -> None:
    pixels = read_rgb(saved(tmp_path / f"a{suffix}", RGB))
    np.testing.assert_array_equal(pixels, RGB)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


def test_grey_is_repeated_over_the_channels(tmp_path: Path) -> None:
    pixels = read_rgb(saved(tmp_path / "a.png", GREY))
    np.testing.assert_array_equal(pixels, np.repeat(GREY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_keep_their_upper_byte_whatever_the_exposure(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(0, 9999, 20 * 24).reshape(20, 24).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    pixels = read_rgb(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(pixels[:, :, 1], (values >> 8).astype(np.uint8))


def test_alpha_is_dropped_without_blending(tmp_path: Path) -> None:
    alpha = np.full((20, 24, 1), 7, np.uint8)
    np.testing.assert_array_equal(
        read_rgb(saved(tmp_path / "a.png", np.concatenate([RGB, alpha], axis=2))), RGB
    )


def test_palette_and_bilevel_images_are_converted(tmp_path: Path) -> None:
    few = (RGB // 128 * 255).astype(np.uint8)
    pixels = read_rgb(saved(tmp_path / "p.png", few, "P"))
    assert pixels.shape == few.shape
    expected = Image.open(tmp_path / "p.png").convert("RGB")
    np.testing.assert_array_equal(pixels, np.asarray(expected))
    bilevel = read_rgb(saved(tmp_path / "b.png", GREY, "1"))
    assert set(np.unique(bilevel)) <= {0, 255}


@pytest.mark.parametrize("shape", [(1, 1, 3), (15, 400, 3), (400, 15, 3)])
def test_too_small_an_image_is_refused_by_name(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = saved(tmp_path / "small.png", np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=r"small\.png is .* at least 16 x 16"):
        read_rgb(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Truncated File Read")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_every_truncation_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    whole = saved(tmp_path / f"whole{suffix}", RGB).read_bytes()
    path = tmp_path / f"cut{suffix}"
    # The last bytes of some formats carry nothing (padding, an end mark), so half is the limit.
    for length in range(0, len(whole) // 2, max(1, len(whole) // 40)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cut"):
            read_rgb(path)


def test_a_text_file_and_a_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png cannot be read as an image"):
        read_rgb(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        read_rgb(tmp_path / "gone.png")
    with pytest.raises(DataError, match="cannot be read"):
        read_rgb(tmp_path)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match="floating-point"):
        read_rgb(tmp_path / "float.tif")


def test_a_picture_bomb_is_refused_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(DataError, match="too large"):
        read_rgb(saved(tmp_path / "bomb.png", RGB))


def test_png_round_trip_and_no_temporary_file_left(tmp_path: Path) -> None:
    write_png(tmp_path / "new" / "a.png", RGB)
    np.testing.assert_array_equal(read_rgb(tmp_path / "new" / "a.png"), RGB)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_writing_where_a_file_is_a_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_png(tmp_path / "a" / "b.png", RGB)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
