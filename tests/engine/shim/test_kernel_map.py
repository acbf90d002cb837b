"""Cosine and map kernels against the float64 reference, on the same fp16 features."""

from __future__ import annotations

import numpy as np
import pytest
from skrd4ad.engine.gpu_launch import PARAMETER_BYTES, read_results
from skrd4ad.engine.score_map import combine, cosine_distance, image_score
from skrd4ad.engine.spec import ScoreContract
from skrd4ad.errors import EngineError

CONTRACT = ScoreContract()
TOLERANCE = 1e-6
RESNET18, WIDE50 = (64, 128, 256), (256, 512, 1024)
LAYOUTS = ("hwc8", "linear")


def reference(teacher, student, size, contract=CONTRACT):
    distances = [cosine_distance(t, s) for t, s in zip(teacher, student, strict=True)]
    maps = combine(distances, contract, size)
    return maps, image_score(maps, contract)


def assert_agrees(computed, maps, scores):
    assert np.abs(computed.maps - maps).max() <= TOLERANCE
    assert np.abs(computed.scores - scores).max() <= TOLERANCE
    flat = computed.maps.reshape(len(scores), -1)
    np.testing.assert_array_equal(computed.peaks, flat.argmax(axis=1))
    np.testing.assert_array_equal(computed.scores, flat.max(axis=1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [RESNET18, WIDE50])
@pytest.mark.parametrize(
    ("size", "images"), [((32, 32), 1), ((64, 96), 1), ((96, 32), 3), ((32, 64), 8)]
)
def test_map_and_score_match_float64(shim, kernels, layout, channels, size, images):
    teacher, student = shim.features(3, channels, size, images)
    computed = shim.run_frame(kernels, teacher, student, CONTRACT, size, layout)
    assert_agrees(computed, *reference(teacher, student, size))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_size_frame_matches_float64(shim, kernels, layout):
    teacher, student = shim.features(4, RESNET18, (256, 256), 1)
    computed = shim.run_frame(kernels, teacher, student, CONTRACT, (256, 256), layout)
    assert_agrees(computed, *reference(teacher, student, (256, 256)))


@pytest.mark.parametrize("noise", [0.003, 3.0])
@pytest.mark.parametrize("scale", [1e-3, 200.0])
def test_weak_and_strong_features_keep_the_tolerance(shim, kernels, noise, scale):
    teacher, student = shim.features(5, RESNET18, (64, 64), 1, noise)
    teacher = [(t * np.float32(scale)).astype(np.float16) for t in teacher]
    student = [(s * np.float32(scale)).astype(np.float16) for s in student]
    computed = shim.run_frame(kernels, teacher, student, CONTRACT, (64, 64), "hwc8")
    assert_agrees(computed, *reference(teacher, student, (64, 64)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_one_pixel_defect_at_each_border_is_found_where_it_is(shim, kernels, layout, level):
    size, images = (64, 96), 8
    teacher, _ = shim.features(6, RESNET18, size, images)
    student = [t.copy() for t in teacher]
    height, width = teacher[level].shape[2:]
    places = [
        *((0, 0), (0, width // 2), (0, width - 1), (height // 2, 0)),
        *((height // 2, width - 1), (height - 1, 0), (height - 1, width // 2)),
        (height - 1, width - 1),
    ]
    for image, (row, column) in enumerate(places):
        student[level][image, :, row, column] = teacher[level][image, ::-1, row, column]
    computed = shim.run_frame(kernels, teacher, student, CONTRACT, size, layout)
    assert_agrees(computed, *reference(teacher, student, size))
    assert (computed.scores > 1e-3).all()
    for image, (row, column) in enumerate(places):
        peak_row, peak_column = divmod(int(computed.peaks[image]), size[1])
        assert abs(peak_row - row * (size[0] - 1) / (height - 1)) <= size[0] / height
        assert abs(peak_column - column * (size[1] - 1) / (width - 1)) <= size[1] / width


@pytest.mark.parametrize("contract", [ScoreContract(sigma_px=2.0, radius_px=8),
                                      ScoreContract(sigma_px=6.0, radius_px=24),
                                      ScoreContract(sigma_px=1.0, radius_px=0)])  # fmt: skip
def test_another_blur_is_other_tables_and_the_same_kernel(shim, kernels, contract):
    teacher, student = shim.features(7, RESNET18, (64, 32), 2)
    computed = shim.run_frame(kernels, teacher, student, contract, (64, 32), "hwc8")
    assert_agrees(computed, *reference(teacher, student, (64, 32), contract))


def test_a_blur_too_wide_for_the_kernel_is_refused_in_words(shim, kernels):
    contract = ScoreContract(sigma_px=40.0, radius_px=160)
    teacher, student = shim.features(7, RESNET18, (512, 32), 1)
    with pytest.raises(EngineError, match="radius 160 px"):
        shim.run_frame(kernels, teacher, student, contract, (512, 32), "hwc8")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [(8, 8, 8), (24, 40, 72), (32, 256, 512)])
def test_any_multiple_of_eight_channels_works(shim, kernels, layout, channels):
    teacher, student = shim.features(8, channels, (32, 32), 2)
    computed = shim.run_frame(kernels, teacher, student, CONTRACT, (32, 32), layout)
    assert_agrees(computed, *reference(teacher, student, (32, 32)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["teacher", "student"])
def test_one_feature_that_is_not_finite_rejects_that_image_only(shim, kernels, layout, bad, side):
    teacher, student = shim.features(9, RESNET18, (32, 64), 3)
    {"teacher": teacher, "student": student}[side][1][1, 77, 2, 5] = bad
    computed = shim.run_frame(kernels, teacher, student, CONTRACT, (32, 64), layout)
    maps, scores = reference(teacher, student, (32, 64))
    np.testing.assert_array_equal(np.isinf(computed.maps), np.isinf(maps))
    assert computed.scores[1] == np.inf
    assert not np.isnan(computed.maps).any()
    for image in (0, 2):
        assert abs(computed.scores[image] - scores[image]) <= TOLERANCE


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_zero_vectors_agree_and_one_does_not(shim, kernels, layout):
    teacher, student = shim.features(10, RESNET18, (32, 32), 2)
    teacher[0][0, :, 3, 3] = 0
    student[0][0, :, 3, 3] = 0
    student[0][1, :, 3, 3] = 0
    computed = shim.run_frame(kernels, teacher, student, CONTRACT, (32, 32), layout)
    assert computed.levels[0, 3 * 8 + 3] == 0.0
    assert computed.levels[1, 3 * 8 + 3] == 1.0
    assert_agrees(computed, *reference(teacher, student, (32, 32)))


def test_the_poison_of_one_frame_does_not_reach_the_next(shim, kernels):
    teacher, student = shim.features(11, RESNET18, (32, 32), 1)
    spoilt = [t.copy() for t in teacher]
    spoilt[2][0, 0, 0, 0] = np.nan
    word = np.zeros(1, np.uint32)
    arguments = (student, CONTRACT, (32, 32), "hwc8")
    bad = shim.run_frame(kernels, spoilt, *arguments, frame=7, poisoned=word)
    assert bad.scores[0] == np.inf
    assert word[0] == 7
    good = shim.run_frame(kernels, teacher, *arguments, frame=8, poisoned=word)
    assert_agrees(good, *reference(teacher, student, (32, 32)))


def test_a_result_of_another_frame_or_with_missing_tiles_is_refused(shim):
    results = np.zeros(1, dtype=[("best", "<u8"), ("frame", "<u4"), ("tiles", "<u4")])
    results["frame"], results["tiles"] = 5, 4
    read_results(results, 5, (64, 64))
    with pytest.raises(EngineError, match="stale"):
        read_results(results, 6, (64, 64))
    results["tiles"] = 3
    with pytest.raises(EngineError, match="stale"):
        read_results(results, 5, (64, 64))


@pytest.mark.parametrize("kernel", sorted(PARAMETER_BYTES))
def test_python_and_c_agree_on_the_size_of_every_parameter_block(kernels, kernel):
    assert kernels.parameter_bytes(kernel) == PARAMETER_BYTES[kernel]
