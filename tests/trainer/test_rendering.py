"""A rendered part is a function of its seed, and its mask is what the defect changed."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from skrd4ad.errors import ConfigError
from skrd4ad.trainer.rendering import render_part
from skrd4ad.trainer.synthetic import DEFECTS


def digest(seed: int, defect: str) -> str:
    rendering = render_part(seed, defect, 128)
    return hashlib.sha256(rendering.pixels.tobytes() + rendering.mask.tobytes()).hexdigest()


def test_same_arguments_give_the_same_bytes_in_another_process() -> None:
    script = (
        "import hashlib; from skrd4ad.trainer.rendering import render_part\n"
        "for d in ('good', 'stain', 'damaged_case'):\n"
        "    r = render_part(5, d, 128)\n"
        "    print(hashlib.sha256(r.pixels.tobytes() + r.mask.tobytes()).hexdigest())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    np.random.default_rng(99)
    assert other.stdout.split() == [digest(5, d) for d in ("good", "stain", "damaged_case")]


def test_rendering_needs_no_torch() -> None:
    script = "import sys, skrd4ad.trainer.synthetic; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.strip() == "False"


def test_another_seed_is_another_part() -> None:
    assert len({digest(seed, "good") for seed in range(8)}) == 8


@pytest.mark.parametrize("defect", DEFECTS)
def test_mask_is_what_the_defect_changed(defect: str) -> None:
    for seed in range(4):
        good, bad = render_part(seed), render_part(seed, defect)
        changed = np.abs(bad.pixels.astype(int) - good.pixels.astype(int)).max(axis=2)
        assert bad.mask.sum() >= 40
        assert changed[bad.mask].mean() > 15
        # The mask's rule is 6 grey levels before light (at most x1.14 x1.17) and defocus.
        outside = changed[~bad.mask]
        assert np.mean(outside > 8) < 0.003
        assert outside.max() < 60  # defocus carries a little of a bright edge across the border


def test_good_part_has_an_empty_mask_and_plausible_levels() -> None:
    rendering = render_part(3, size=200)
    assert rendering.pixels.shape == (200, 200, 3)
    assert rendering.pixels.dtype == np.uint8
    assert rendering.mask.shape == (200, 200)
    assert not rendering.mask.any()
    body, board = rendering.pixels[60:90, 85:115], rendering.pixels[10:40]
    assert body.mean() < 80 < board.mean()


@pytest.mark.parametrize("size", [64, 160, 512])
def test_defects_stay_inside_the_picture_at_every_size(size: int) -> None:
    for defect in DEFECTS:
        share = render_part(11, defect, size).mask.mean()
        assert 0.0005 < share < 0.5


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((-1, "good", 256), "-1"), ((0, "rust", 256), "rust"), ((0, "good", 8), "8")],
)
def test_impossible_arguments_are_refused(arguments: tuple[int, str, int], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        render_part(*arguments)
