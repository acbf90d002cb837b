"""The compiled resize gives Pillow's bits for every size and keeps to its arrays; or is absent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from skrd4ad.engine import native_resize, resize
from skrd4ad.engine.native_resize import resize_natively

SOURCE = Path(native_resize.__file__).with_name("kernels") / "resize.c"
COMPILER = shutil.which("gcc")
GUARDED_SIZE = (64, 32)
SIDE = st.integers(1, 700)
OUT = st.integers(1, 12).map(lambda blocks: 32 * blocks)
GUARDED = """
#include <stdio.h>
#include <stdlib.h>
#include "resize.c"
/* Sizes, tables and pixels come in, the resized ones go out; every array is as long as said. */
#ifndef MISSING
#define MISSING 0
#endif
static void *take(size_t bytes) {
    void *array = malloc(bytes);
    if (fread(array, 1, bytes, stdin) != bytes) exit(9);
    return array;
}
int main(void) {
    int64_t n[6]; /* height, width, to_height, to_width, taps across, taps down */
    if (fread(n, 8, 6, stdin) != 6) return 8;
    int32_t *fa = take(4 * n[3]), *ca = take(4 * n[3]), *wa = take(4 * n[3] * n[4]);
    int32_t *fd = take(4 * n[2]), *cd = take(4 * n[2]), *wd = take(4 * n[2] * n[5]);
    uint8_t *source = take(3 * n[0] * n[1]);
    uint8_t *between = malloc(3 * n[0] * n[3]), *out = malloc(3 * n[2] * n[3]);
    int32_t *wide = malloc(4 * (3 * n[1] + 1 - MISSING)), *sums = malloc(4 * (3 * n[3] + 1));
    skrd4ad_resize_across(source, n[0], n[1], between, n[3], fa, ca, wa, n[4], wide, sums);
    skrd4ad_resize_down(between, 3 * n[3], out, n[2], fd, cd, wd, n[5], sums);
    fwrite(out, 1, 3 * n[2] * n[3], stdout);
    return 0;
}
"""


def picture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Noise, and in every third picture black and white only: the sums' extremes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return pixels if seed % 3 else np.where(pixels > 127, 255, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def functions() -> object:
    found = native_resize.library()
    if found is None and not os.environ.get("CI") and COMPILER is None:
        pytest.skip("there was no C compiler when skrd4ad was installed")
    assert found is not None, "a compiler is here, but engine/kernels/resize.c was not compiled"
    return found


@given(height=SIDE, width=SIDE, to_height=OUT, to_width=OUT, seed=st.integers(0, 99))
def test_the_compiled_resize_gives_pillow_s_bits(
    functions: object, height: int, width: int, to_height: int, to_width: int, seed: int
) -> None:
    pixels = picture(height, width, seed)
    found = resize_natively(functions, pixels, to_height, to_width)  # type: ignore[arg-type]
    assert np.array_equal(found, resize.resize_by_pillow(pixels, to_height, to_width))


@pytest.mark.parametrize("size", [(480, 640), (900, 900), (1944, 2592), (3000, 40), (40, 3000)])
@pytest.mark.parametrize("value", [0, 255])
def test_camera_sizes_and_plain_pictures(
    functions: object, size: tuple[int, int], value: int
) -> None:
    for pixels in (picture(*size, 1), np.full((*size, 3), value, np.uint8)):
        found = resize_natively(functions, pixels, 256, 256)  # type: ignore[arg-type]
        assert np.array_equal(found, resize.resize_by_pillow(pixels, 256, 256))


def test_resize_takes_pictures_that_are_not_contiguous(functions: object) -> None:
    pixels = picture(90, 120, 5)[::2, ::-1]
    assert np.array_equal(
        resize.resize(pixels, 32, 64), resize.resize_by_pillow(pixels.copy(), 32, 64)
    )
    assert resize.resize(pixels, 45, 120) is pixels


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Programs around the same source that end at the first byte beyond any array: as it is, and
    with an array that is one value too short."""
    if COMPILER is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "main.c").write_text(GUARDED)
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    programs = {missing: folder / f"main{missing}" for missing in (0, 1)}
    for missing, program in programs.items():
        words = [COMPILER, *flags, f"-DMISSING={missing}", f"-I{SOURCE.parent}", "-o", program]
        subprocess.run([*words, folder / "main.c"], check=True, capture_output=True, timeout=60)
    return programs


def run_guarded(program: Path, size: tuple[int, int]) -> subprocess.CompletedProcess[bytes]:
    to_height, to_width = GUARDED_SIZE
    pixels = picture(*size, 7)
    across, down = (
        native_resize._Table(*pair) for pair in zip(size[::-1], (to_width, to_height), strict=True)
    )
    numbers = np.array([*size, to_height, to_width, across.taps, down.taps], np.int64)
    arrays = [numbers, *across._kept, *down._kept, pixels]
    return subprocess.run(
        [program],
        input=b"".join(array.tobytes() for array in arrays),
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (48, 64), (33, 200), (301, 7), (96, 32)])
def test_no_byte_beyond_an_array_is_read_or_written(
    guarded: dict[int, Path], size: tuple[int, int]
) -> None:
    done = run_guarded(guarded[0], size)
    assert done.returncode == 0, done.stderr.decode()[:2000]
    found = np.frombuffer(done.stdout, np.uint8).reshape(*GUARDED_SIZE, 3)
    assert np.array_equal(found, resize.resize_by_pillow(picture(*size, 7), *GUARDED_SIZE))
    assert b"heap-buffer-overflow" in run_guarded(guarded[1], size).stderr


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the module looks for its library, empty."""
    monkeypatch.setattr(native_resize, "__file__", str(tmp_path / "native_resize.py"))
    native_resize.library.cache_clear()
    yield tmp_path / f"_resize{EXTENSION_SUFFIXES[0]}"
    native_resize.library.cache_clear()


def test_without_a_library_pillow_resizes(elsewhere: Path) -> None:
    assert native_resize.library() is None
    pixels = picture(48, 64, 1)
    assert np.array_equal(resize.resize(pixels, 32, 32), resize.resize_by_pillow(pixels, 32, 32))


@pytest.mark.skipif(COMPILER is None, reason="gcc is not installed")
def test_a_library_of_another_version_or_a_broken_one_is_not_used(elsewhere: Path) -> None:
    assert COMPILER is not None
    elsewhere.write_bytes(b"no library")
    assert native_resize.library() is None
    native_resize.library.cache_clear()
    elsewhere.unlink()
    older = elsewhere.with_name("older.c")
    older.write_text("const int skrd4ad_resize_version = 0;\n")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", elsewhere, older], check=True, timeout=60)
    assert native_resize.library() is None


def test_doctor_says_which_resize_runs(elsewhere: Path) -> None:
    program = "from skrd4ad import cli; cli.main(['doctor'])"
    here = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    from skrd4ad.engine import doctor

    assert "Pillow's" in doctor._resize()
    assert "\nresize     " in here.stdout
