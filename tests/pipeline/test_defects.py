"""Defects: which pixels belong to one, how large it is, where it lies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from skrd4ad.engine.preprocess import map_to_image
from skrd4ad.engine.spec import InputSpec, Roi
from skrd4ad.pipeline.defects import (
    MAX_CONTOUR_POINTS,
    MAX_DEFECTS,
    Place,
    areas_mm2,
    areas_px,
    describe,
    grow_areas,
    outer_contour,
    simplified,
)
from skrd4ad.pipeline.records import Defect

SAME = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
HEIGHT, WIDTH = 12, 9
PLACE = Place(SAME, (HEIGHT, WIDTH))
TILTED = (0.05, 0.001, 2.0, -0.002, 0.06, 1.0, 1e-3, -5e-4, 1.0)
MAPS = stn.arrays(np.float32, (HEIGHT, WIDTH), elements=st.floats(0, 4, width=32))
LEVELS = st.floats(0.1, 3.9)


def found(
    values: np.ndarray, threshold: float, place: Place = PLACE, grow: float | None = None
) -> tuple[Defect, ...]:
    areas = grow_areas(values, threshold, threshold if grow is None else grow)
    return describe(areas, np.ones(len(areas), bool), values, place, "image", threshold)


@settings(max_examples=100)
@given(values=MAPS, threshold=LEVELS)
def test_without_growth_defects_are_exactly_what_is_above_the_threshold(
    values: np.ndarray, threshold: float
) -> None:
    defects, above = found(values, threshold), values > threshold
    assert bool(defects) == bool(above.any())
    if len(defects) < MAX_DEFECTS:
        assert sum(defect.area_px for defect in defects) == int(above.sum())
        covered = np.zeros_like(above)
        for defect in defects:
            x, y, width, height = defect.bbox_px
            covered[y : y + height, x : x + width] = True
        assert not (above & ~covered).any()
    for defect in defects:
        x, y = defect.peak_px
        assert values[y, x] == np.float32(defect.score) > threshold
    if defects:
        assert defects[0].score == float(values.max())
        assert [d.score for d in defects] == sorted((d.score for d in defects), reverse=True)


@settings(max_examples=200)
@given(values=MAPS, levels=st.lists(LEVELS, min_size=3, max_size=3))
def test_growth_adds_only_connected_pixels_and_more_of_it_only_adds(
    values: np.ndarray, levels: list[float]
) -> None:
    faint, low, high = sorted(levels)
    seeds = values > high
    grown = grow_areas(values, high, low).labels > 0
    wider = grow_areas(values, high, faint).labels > 0
    assert not (seeds & ~grown).any()
    assert not (grown & ~(values > low)).any()
    assert not (grown & ~wider).any()
    lower_seed = grow_areas(values, low, low).labels > 0
    assert not (grown & ~lower_seed).any()
    # Every area holds a seed, and each connected piece of what is above `low` is in or out whole.
    count, pieces = cv2.connectedComponents((values > low).astype(np.uint8), connectivity=8)
    for piece in range(1, count):
        assert grown[pieces == piece].all() == seeds[pieces == piece].any()
        assert grown[pieces == piece].any() == seeds[pieces == piece].any()


@settings(max_examples=100)
@given(values=MAPS, threshold=LEVELS, grow=LEVELS, mask=stn.arrays(np.bool_, (HEIGHT, WIDTH)))
def test_areas_add_up_to_their_pixels_in_both_units(
    values: np.ndarray, threshold: float, grow: float, mask: np.ndarray
) -> None:
    place = Place((4.0, 0.0, 10.0, 0.0, 2.0, 5.0), (200, 200), TILTED)
    areas = grow_areas(values, threshold, grow, mask)
    inside = areas.labels > 0
    assert not (inside & ~mask).any()
    assert areas_px(areas, place).sum() == pytest.approx(8 * inside.sum())
    millimetres = areas_mm2(areas, place)
    assert millimetres is not None
    assert (millimetres > 0).all()
    # A pixel's area in mm2 from its four corners through the homography (shoelace).
    total = 0.0
    matrix = np.array(TILTED).reshape(3, 3)
    for y, x in np.argwhere(inside):
        corners = np.array(
            [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5)]
        )
        lifted = np.column_stack([corners * (4.0, 2.0) + (10.0, 5.0), np.ones(4)]) @ matrix.T
        total += cv2.contourArea((lifted[:, :2] / lifted[:, 2:]).astype(np.float32))
    assert millimetres.sum() == pytest.approx(total, rel=1e-2, abs=1e-6)


@settings(max_examples=150)
@given(values=MAPS, threshold=LEVELS)
def test_a_contour_encloses_its_defect_and_stays_in_its_box(
    values: np.ndarray, threshold: float
) -> None:
    areas = grow_areas(values, threshold, threshold)
    for number in range(len(areas)):
        window = areas.labels == number + 1
        contour = outer_contour(window)
        ys, xs = np.nonzero(window)
        for x, y in zip(xs, ys, strict=True):
            assert cv2.pointPolygonTest(contour.astype(np.float32), (float(x), float(y)), False) > 0
        assert contour.min(axis=0).tolist() == [xs.min() - 0.5, ys.min() - 0.5]
        assert contour.max(axis=0).tolist() == [xs.max() + 0.5, ys.max() + 0.5]
        area = cv2.contourArea(contour.astype(np.float32))
        assert len(xs) <= area <= (np.ptp(xs) + 1) * (np.ptp(ys) + 1)
        assert len(simplified(contour, MAX_CONTOUR_POINTS)) <= MAX_CONTOUR_POINTS


def test_a_round_defect_keeps_its_shape_in_sixteen_corners() -> None:
    y, x = np.mgrid[:64, :64]
    values = np.where((x - 30) ** 2 + (y - 33) ** 2 < 20**2, 2.0, 0.0).astype(np.float32)
    (defect,) = found(values, 1.0, Place(SAME, (64, 64)))
    outline = np.array(defect.contour_px)
    assert 6 <= len(outline) <= MAX_CONTOUR_POINTS
    assert np.allclose(np.hypot(outline[:, 0] - 30, outline[:, 1] - 33), 20, atol=1.5)
    drawn = cv2.fillPoly(np.zeros((64, 64), np.uint8), [outline.astype(np.int32)], 1) > 0
    common = (drawn & (values > 1)).sum() / (drawn | (values > 1)).sum()
    assert common > 0.9


def test_touching_corners_are_one_defect() -> None:
    values = np.zeros((8, 8), np.float32)
    values[2, 2] = values[3, 3] = 5.0
    (defect,) = found(values, 1.0, Place(SAME, (8, 8)))
    assert defect.area_px == 2
    assert defect.area_mm2 is None


def test_a_box_lies_over_the_defect_in_the_picture() -> None:
    # A 64 x 32 map of a region of interest of 256 x 64 pixels at (100, 40): 4 x 2 pixels each.
    spec = InputSpec(height=32, width=64, roi=Roi(x=100, y=40, width=256, height=64))
    values = np.zeros((32, 64), np.float32)
    values[10:14, 20:30] = 2.0
    values[12, 25] = 3.0
    half_mm = (0.5, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0)
    (defect,) = found(values, 1.0, Place(map_to_image(spec, (480, 640)), (480, 640), half_mm))
    assert defect.bbox_px == (100 + 20 * 4, 40 + 10 * 2, 10 * 4, 4 * 2)
    assert defect.area_px == 40 * 8
    assert defect.area_mm2 == pytest.approx(40 * 8 * 0.25)
    # The centre of the peak's 4 x 2 pixel cell (a half rounds to the even pixel).
    assert defect.peak_px == (100 + 25 * 4 + 2, 40 + 12 * 2)
    # From the first pixel's outer edge to the last one's, rounded to whole pixels.
    assert {x for x, _ in defect.contour_px} == {180, 220}
    assert {y for _, y in defect.contour_px} == {60, 68}


def test_boxes_peaks_and_outlines_are_clipped_to_the_picture() -> None:
    values = np.full((4, 4), 2.0, np.float32)
    stretched = Place((3.0, 0.0, -4.0, 0.0, 3.0, -4.0), (5, 5))
    (defect,) = found(values, 1.0, stretched)
    x, y, width, height = defect.bbox_px
    assert 0 <= x < x + width <= 5
    assert 0 <= y < y + height <= 5
    assert all(0 <= value < 5 for point in (defect.peak_px, *defect.contour_px) for value in point)


def test_a_map_full_of_noise_names_the_sixteen_worst() -> None:
    values = np.random.default_rng(2).random((128, 128)).astype(np.float32)
    values[::2], values[:, ::2] = 0, 0
    defects = found(values, 0.5, Place(SAME, (128, 128)))
    assert len(defects) == MAX_DEFECTS
    assert [d.score for d in defects] == sorted(values.ravel().tolist())[: -MAX_DEFECTS - 1 : -1]
