"""The schedule is a function of the step alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.errors import DataError
from skrd4ad.trainer.samples import Sample
from skrd4ad.trainer.schedule import (
    averaging_decay,
    batch_indices,
    even_chunks,
    learning_rate,
    steps_per_epoch,
)
from skrd4ad.trainer.split import hold_out, read_split, split_normals, split_rows, write_split


@given(st.integers(1, 70), st.integers(4, 20), st.integers(0, 5))
def test_every_batch_is_full_and_every_image_is_used_equally(n: int, batch: int, seed: int) -> None:
    steps = steps_per_epoch(n, batch)
    assert steps * batch >= n
    seen = np.concatenate([batch_indices(step, n, batch, seed) for step in range(3 * steps)])
    assert len(seen) == 3 * steps * batch
    counts = np.bincount(seen, minlength=n)
    assert counts.max() - counts.min() <= 1
    assert counts.min() >= 3


def test_batches_depend_on_the_seed_and_differ_between_passes() -> None:
    first = batch_indices(0, 32, 16, 0)
    assert not np.array_equal(first, batch_indices(0, 32, 16, 1))
    assert not np.array_equal(first, batch_indices(2, 32, 16, 0))
    assert np.array_equal(first, batch_indices(0, 32, 16, 0))


def test_the_rate_rises_to_its_peak_and_falls_to_its_share() -> None:
    rates = [learning_rate(step, 100, 10, 5e-3, 0.01) for step in range(100)]
    assert rates[0] == pytest.approx(5e-4)
    assert max(rates) == pytest.approx(5e-3)
    assert rates[9] == pytest.approx(5e-3)
    assert rates[-1] == pytest.approx(5e-5)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_the_average_of_a_short_run_is_not_its_initialisation() -> None:
    def share_of_start(steps: int) -> float:
        return float(np.prod([averaging_decay(step, 0.999) for step in range(steps)]))

    assert share_of_start(20) < 1e-5
    assert averaging_decay(10**6, 0.999) == 0.999


@given(st.integers(1, 100), st.integers(4, 32))
def test_chunks_cover_everything_once_and_none_is_a_crumb(n: int, batch: int) -> None:
    chunks = even_chunks(n, batch)
    assert np.concatenate(chunks).tolist() == list(range(n))
    assert max(map(len, chunks)) <= 1.5 * batch
    assert len(chunks) == 1 or min(map(len, chunks)) >= batch // 2


def samples(count: int, group_size: int = 0) -> list[Sample]:
    return [
        Sample(Path(f"{i}.png"), "train", group=f"lot{i // group_size}" if group_size else None)
        for i in range(count)
    ]


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (12, 6), (40, 20), (100, 20), (213, 43)])
def test_a_fifth_is_held_out_and_at_least_twenty_when_possible(count: int, held_out: int) -> None:
    fit, calibration = split_normals(samples(count), seed=0)
    assert len(calibration) == held_out
    assert len(fit) == count - held_out
    assert not set(fit) & set(calibration)
    assert split_normals(samples(count), seed=0) == (fit, calibration)


def test_a_group_is_never_on_both_sides() -> None:
    fit, calibration = split_normals(samples(100, group_size=7), seed=1)
    assert not {s.group for s in fit} & {s.group for s in calibration}
    assert len(calibration) >= 20
    with pytest.raises(DataError, match="1 group"):
        split_normals(samples(30, group_size=30), seed=0)


def test_a_validation_folder_is_what_is_held_out_except_when_cross_fitting() -> None:
    normals, aside = samples(30), [Sample(Path("v.png"), "validation")]
    options = {"share": 0.2, "fold": 1, "folds": 0}
    assert hold_out(normals, aside, 0, **options) == (normals, aside)
    assert hold_out(normals, [], 0, **options) == split_normals(normals, 0, 0.2)
    fit, held_out = hold_out(normals, aside, 0, **options | {"folds": 3})
    assert (len(fit), len(held_out)) == (20, 10)


def test_a_split_survives_the_file_and_a_foreign_file_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / "a, b.png", tmp_path / "ü.png"]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]))
    rows = split_rows([Sample(paths[0], "train")], [Sample(paths[1], "train")])
    assert read_split(write_split(rows), "split.csv") == rows
    for text in ("", "path,role\n", write_split(rows) + "x,y\n", write_split(rows) + "x,y,test\n"):
        with pytest.raises(DataError, match=r"split\.csv"):
            read_split(text, "split.csv")
