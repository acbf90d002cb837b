"""Every figure against a brute-force definition and against scikit-learn."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from sklearn.metrics import average_precision_score, roc_auc_score
from skrd4ad.trainer import bootstrap, metrics, pixel_scores
from skrd4ad.trainer.pixel_scores import PixelScores
from skrd4ad.trainer.ranking import auroc, pro_curve

SMALL = settings(max_examples=60)


def labelled_scores() -> st.SearchStrategy[tuple[list[bool], list[float]]]:
    """Both classes present, scores from a small set so that ties are common."""
    pair = st.tuples(st.booleans(), st.integers(-4, 4).map(lambda v: v / 3))
    return (
        st.lists(pair, min_size=2, max_size=40)
        .filter(lambda pairs: len({label for label, _ in pairs}) == 2)
        .map(lambda pairs: ([p[0] for p in pairs], [p[1] for p in pairs]))
    )


def brute_aupro(masks: list[np.ndarray], maps: list[np.ndarray], limit: float) -> float:
    """The definition word by word: all distinct scores, all regions, trapezoids, interpolation."""
    regions = []
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(index, labels == number) for number in range(1, count + 1)]
    normal = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)]).astype(np.float64)
    points = [(0.0, 0.0)]
    for threshold in sorted({float(v) for m in maps for v in m.ravel()}, reverse=True):
        pro = np.mean([(maps[i][region] >= threshold).mean() for i, region in regions])
        points.append((float((normal >= threshold).mean()), float(pro)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            y = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + y) / 2
    return area / limit


def blobs(
    seed: int, n: int = 4, size: int = 12, levels: int | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(seed)
    masks = [ndimage.gaussian_filter(random.normal(size=(size, size)), 1) > 0.25 for _ in range(n)]
    masks[0][:] = False  # a good image counts towards the false-positive rate
    masks[1][2, 3] = True
    maps = [random.normal(size=(size, size)) + 1.2 * mask for mask in masks]
    if levels:
        maps = [np.round(scores * levels) / levels for scores in maps]
    return masks, [scores.astype(np.float32) for scores in maps]


@SMALL
@given(labelled_scores())
def test_image_figures_agree_with_scikit_learn(data: tuple[list[bool], list[float]]) -> None:
    labels, scores = data
    assert metrics.image_auroc(labels, scores) == pytest.approx(
        roc_auc_score(labels, scores), abs=1e-12
    )
    assert metrics.image_ap(labels, scores) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )


@SMALL
@given(labelled_scores())
def test_auroc_is_the_probability_of_outranking(data: tuple[list[bool], list[float]]) -> None:
    labels, scores = np.array(data[0]), np.array(data[1])
    gaps = scores[labels][:, None] - scores[~labels][None, :]
    brute = float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))
    assert metrics.image_auroc(labels, scores) == pytest.approx(brute, abs=1e-12)


@SMALL
@given(labelled_scores())
def test_best_f1_is_the_best_of_all_thresholds(data: tuple[list[bool], list[float]]) -> None:
    labels, scores = np.array(data[0]), np.array(data[1])
    by_hand = []
    for threshold in np.unique(scores):
        flagged = scores >= threshold
        by_hand.append(2 * (flagged & labels).sum() / (flagged.sum() + labels.sum()))
    value, threshold = metrics.best_f1(labels, scores)
    assert value == pytest.approx(max(by_hand), abs=1e-12)
    flagged = scores >= threshold
    assert 2 * (flagged & labels).sum() / (flagged.sum() + labels.sum()) == pytest.approx(value)


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_figures_agree_with_scikit_learn(seed: int, levels: int | None) -> None:
    masks, maps = blobs(seed, levels=levels)
    flat = np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps])
    assert metrics.pixel_auroc(masks, maps) == pytest.approx(roc_auc_score(*flat), abs=1e-9)
    assert metrics.pixel_ap(masks, maps) == pytest.approx(average_precision_score(*flat), abs=1e-9)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_aupro_is_the_definition_word_by_word(seed: int, levels: int | None, limit: float) -> None:
    masks, maps = blobs(seed, levels=levels)
    assert metrics.aupro(masks, maps, limit) == pytest.approx(
        brute_aupro(masks, maps, limit), abs=1e-12
    )


def test_perfect_maps_score_one_and_constant_maps_chance() -> None:
    masks, _ = blobs(0)
    perfect = [mask.astype(np.float32) for mask in masks]
    flat = [np.full(mask.shape, 0.7, np.float32) for mask in masks]
    assert metrics.aupro(masks, perfect) == pytest.approx(1.0)
    assert metrics.pixel_auroc(masks, perfect) == 1.0
    assert metrics.aupro(masks, flat) == pytest.approx(0.15)  # the diagonal: limit / 2
    assert metrics.pixel_auroc(masks, flat) == 0.5


def test_one_hot_outlier_pixel_leaves_aupro_exact() -> None:
    """200 linear thresholds between the extremes would put nearly all of them on the outlier."""
    masks, maps = blobs(5, n=6, size=24)
    before = metrics.aupro(masks, maps)
    hot = [scores.copy() for scores in maps]
    hot[0][0, 0] = 1e4
    after = metrics.aupro(masks, hot)
    assert after == pytest.approx(brute_aupro(masks, hot, 0.3), abs=1e-12)
    assert after == pytest.approx(before, abs=2e-3)
    coarse = linear_threshold_aupro(masks, hot)
    assert coarse < before - 0.1  # the trap is real on these data


def linear_threshold_aupro(masks: list[np.ndarray], maps: list[np.ndarray]) -> float:
    """The inexact variant with 200 equally spaced thresholds over the data set."""
    every = np.concatenate([scores.ravel() for scores in maps]).astype(np.float64)
    normal = np.concatenate([m[~k] for m, k in zip(maps, masks, strict=True)])
    points = []
    for threshold in np.linspace(every.max(), every.min(), 200):
        recalls = []
        for mask, scores in zip(masks, maps, strict=True):
            labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
            recalls += [(scores[labels == i] > threshold).mean() for i in range(1, count + 1)]
        points.append(((normal > threshold).mean(), np.mean(recalls)))
    x, y = np.array(points).T
    keep = x <= 0.3
    return float(np.trapezoid(y[keep], x[keep]) / 0.3)


def test_offsets_between_images_lower_exact_aupro_and_not_the_legacy_one() -> None:
    masks, maps = blobs(6, n=12, size=24)
    random = np.random.default_rng(0)
    shifted = [scores + np.float32(random.normal(0, 2.0)) for scores in maps]
    assert metrics.aupro(masks, shifted) < metrics.aupro(masks, maps) - 0.1
    assert metrics.aupro_rd4ad(masks, shifted) == pytest.approx(
        metrics.aupro_rd4ad(masks, maps), abs=5e-3
    )


def legacy_aupro(mask: np.ndarray, scores: np.ndarray) -> float:
    """RD4AD's per-image loop, written out."""
    scores = scores.astype(np.float64)
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    points = []
    for step in range(200):
        above = scores > scores.min() + (scores.max() - scores.min()) / 200 * step
        pro = np.mean([above[labels == i].mean() for i in range(1, count + 1)])
        points.append((above[~mask].mean(), pro))
    kept = sorted(p for p in points if p[0] < 0.3)
    x = np.array([p[0] for p in kept])
    return float(np.trapezoid([p[1] for p in kept], x / x.max()))


@pytest.mark.parametrize("seed", range(3))
def test_legacy_aupro_is_the_loop_of_rd4ad(seed: int) -> None:
    masks, maps = blobs(seed, size=20)
    expected = np.mean([legacy_aupro(k, m) for k, m in zip(masks, maps, strict=True) if k.any()])
    assert metrics.aupro_rd4ad(masks, maps) == pytest.approx(expected, abs=1e-9)


def test_counts_stay_exact_beyond_the_float32_integers() -> None:
    """A float32 running sum of ones stops at 16 777 216; ours must count 20 million pixels."""
    n = 20_000_000
    assert np.cumsum(np.ones(n, np.float32))[-1] < n  # the trap
    scores = np.zeros((4000, 5000), np.float32)
    mask = np.zeros(scores.shape, bool)
    mask[0, :2] = True
    scores[0, 0], scores[0, 1] = 1.0, -1.0
    pixels = PixelScores()
    pixels.add(scores, mask)
    ranked = pixels.ranking()
    assert ranked.n_negatives == n - 2
    assert list(ranked.reached) == [0, n - 2]
    assert auroc(ranked) == 0.5


def test_raw_scores_outside_zero_to_one_are_not_squashed() -> None:
    """Scores of summed levels lie in [0, 3]; a sigmoid per batch would scramble them."""
    labels = [0, 0, 0, 1, 1, 1]
    scores = [0.2, 0.9, 1.4, 1.5, 2.0, 2.9]
    assert metrics.image_auroc(labels, scores) == 1.0
    assert metrics.image_auroc(labels, [v * 1e6 for v in scores]) == 1.0


def test_nan_and_infinite_scores_rank_highest() -> None:
    assert metrics.image_auroc([0, 1], [0.5, math.nan]) == 1.0
    assert metrics.image_auroc([1, 0], [0.5, math.nan]) == 0.0
    masks = [np.array([[True, False]])]
    assert metrics.pixel_auroc(masks, [np.array([[np.nan, 3.0]], np.float32)]) == 1.0
    assert metrics.pixel_auroc(masks, [np.array([[np.inf, np.nan]], np.float32)]) == 0.5


def test_figures_without_both_classes_are_nan() -> None:
    assert math.isnan(metrics.image_auroc([0, 0], [1.0, 2.0]))
    assert math.isnan(metrics.image_ap([1, 1], [1.0, 2.0]))
    good = [np.zeros((4, 4), bool)]
    assert math.isnan(metrics.aupro(good, [np.zeros((4, 4), np.float32)]))
    assert math.isnan(metrics.aupro_rd4ad(good, [np.zeros((4, 4), np.float32)]))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        metrics.image_auroc([0, 1], [0.1])
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.pixel_auroc([np.zeros((3, 3), bool)], [np.zeros((4, 4))])
    with pytest.raises(ValueError, match="limit"):
        metrics.aupro(*blobs(0), limit=0.0)


@SMALL
@given(labelled_scores(), st.integers(-4, 4).map(lambda v: v / 3))
def test_deployed_rates_count_strict_excess(
    data: tuple[list[bool], list[float]], threshold: float
) -> None:
    labels, scores = np.array(data[0]), np.array(data[1])
    rates = metrics.deployed_rates(labels, scores, threshold)
    assert rates.false_reject.count == ((scores > threshold) & ~labels).sum()
    assert rates.escape.count == ((scores <= threshold) & labels).sum()
    assert rates.false_reject.total + rates.escape.total == len(labels)
    for rate in (rates.false_reject, rates.escape):
        exact = stats.binomtest(int(rate.count), int(rate.total)).proportion_ci(0.95, "exact")
        assert rate.interval.low == pytest.approx(exact.low, abs=1e-9)
        assert rate.interval.high == pytest.approx(exact.high, abs=1e-9)


def test_a_score_that_is_not_finite_never_passes() -> None:
    rates = metrics.deployed_rates([1, 0], [math.nan, -math.inf], threshold=math.inf)
    assert rates.escape.count == 0
    assert rates.false_reject.count == 1


@pytest.mark.parametrize("memory_bytes", [1 << 30, 0])
def test_spilled_and_unspilled_pixels_give_identical_counts(
    memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_scores, "CHUNK_VALUES", 37)
    masks, maps = blobs(9, n=5)
    pixels = PixelScores(memory_bytes)
    for mask, scores in zip(masks, maps, strict=True):
        pixels.add(scores, mask)
    fpr, recall = pro_curve(pixels.ranking())
    pixels.close()
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(recall) >= -1e-15).all()
    monkeypatch.undo()
    assert metrics.aupro(masks, maps) == pytest.approx(brute_aupro(masks, maps, 0.3), abs=1e-12)
    whole = PixelScores()
    for mask, scores in zip(masks, maps, strict=True):
        whole.add(scores, mask)
    np.testing.assert_array_equal(fpr, pro_curve(whole.ranking())[0])


def test_the_bootstrap_interval_covers_like_its_name_says() -> None:
    """Over many drawn test sets, about 95 % of the intervals hold the true AUROC."""
    random = np.random.default_rng(0)
    true = float(stats.norm.cdf(1.0 / np.sqrt(2)))  # two unit normals one apart
    labels = np.arange(80) >= 40

    def fast_auroc(where: np.ndarray, values: np.ndarray) -> float:
        gaps = values[where][:, None] - values[~where][None, :]
        return float((gaps > 0).mean())

    held = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "RESAMPLES", 200)
        for _ in range(60):
            scores = random.normal(size=80) + labels
            low, high = bootstrap.bootstrap_interval(labels, scores, fast_auroc)
            held += low <= true <= high
    assert 50 <= held <= 60


def test_the_bootstrap_interval_repeats_and_needs_two_of_each() -> None:
    labels, scores = np.array([0, 0, 0, 1, 1], bool), np.array([0.1, 0.5, 0.3, 0.4, 0.9])
    first = bootstrap.bootstrap_interval(labels, scores, metrics.image_auroc)
    assert first == bootstrap.bootstrap_interval(labels, scores, metrics.image_auroc)
    assert first.low <= metrics.image_auroc(labels, scores) <= first.high
    alone = bootstrap.bootstrap_interval(labels[:4], scores[:4], metrics.image_auroc)
    assert math.isnan(alone.low)


@pytest.mark.soak
def test_a_thousand_maps_fit_in_memory_and_ten_seconds() -> None:
    """1,000 maps of 256 x 256 in under 1.5 GB and 10 s; a process of its own, for its peak.

    The work runs on one core, so its CPU time is its time on a machine that is not shared.
    """
    program = (
        "import resource, sys, time; import numpy as np;"
        "from skrd4ad.trainer.aupro import aupro_of;"
        "from skrd4ad.trainer.pixel_scores import PixelScores;"
        "from skrd4ad.trainer.ranking import auroc, average_precision;"
        "base = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32);"
        "mask = np.zeros((256, 256), bool); mask[40:80, 50:90] = True;"
        "start = time.process_time(); pixels = PixelScores();\n"
        "for i in range(1000):\n"
        "    defect = mask if i % 3 == 0 else None\n"
        "    pixels.add(np.roll(base, 7 * i) + np.float32(i * 1e-4), defect)\n"
        "ranking = pixels.ranking(); assert ranking.n_negatives == 65536000 - 334 * 1600;"
        "figures = auroc(ranking), average_precision(ranking), aupro_of(ranking, 0.3);"
        "seconds = time.process_time() - start;"
        "print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, *figures)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=True
    )
    seconds, gigabytes, *figures = map(float, done.stdout.split())
    assert seconds < 10.0
    assert gigabytes < 1.5
    assert figures[0] == pytest.approx(0.5, abs=0.02)
