"""All figures of one model on one labelled test set, from a single pass over its images.

Image labels are the folders' (a defect whose mask vanishes stays a defect). Pixel figures use the
images whose pixels are labelled: good ones, and defective ones whose mask survives the mask rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..calibration.intervals import Interval
from ..engine.spec import InputSpec
from ..errors import DataError
from . import metrics
from .aupro import aupro_of, aupro_rd4ad_image
from .bootstrap import bootstrap_interval
from .datasets import read_mask
from .gallery import Gallery
from .mask_rule import MaskRule, match
from .pixel_scores import PixelScores, ranking_of
from .ranking import Ranking, auroc, average_precision
from .samples import GOOD
from .scorer import Scored


@dataclass(frozen=True)
class ImageScore:
    path: Path
    defect: str
    score: float
    group: str | None = None


@dataclass(frozen=True)
class PixelFigures:
    """Figures over pixels; NaN where a class of pixels is missing."""

    n_images: int
    auroc: float
    ap: float
    aupro_30: float
    aupro_05: float
    aupro_rd4ad: float
    """Per-image legacy variant, only to compare with published tables of RD4AD's lineage."""


@dataclass(frozen=True)
class DefectFigures:
    """One defect type against all good images."""

    defect: str
    n_images: int
    image_auroc: float
    median_score: float
    escape: metrics.Rate | None
    pixel: PixelFigures | None
    group: str | None = None
    """What the layout says of the type as a whole: VAD's "seen" and "unseen"."""

    @property
    def label(self) -> str:
        return f"{self.defect} ({self.group})" if self.group else self.defect


@dataclass(frozen=True)
class Evaluation:
    """Everything measured, and what the report needs to draw it."""

    scores: tuple[ImageScore, ...]
    image_auroc: float
    image_auroc_interval: Interval
    """95 % percentile interval over resampled test images."""
    image_ap: float
    oracle_f1: float
    oracle_f1_score: float
    deployed: metrics.DeployedRates | None
    pixel: PixelFigures | None
    by_defect: tuple[DefectFigures, ...]
    mask_rule: MaskRule
    problems: tuple[str, ...]
    image_ranking: Ranking
    pixel_ranking: Ranking | None
    gallery: tuple[Scored, ...] = field(repr=False)
    """Highest good and lowest defective images with their maps, and the clearest of each type."""

    @property
    def labels(self) -> NDArray[np.bool_]:
        return np.array([entry.defect != GOOD for entry in self.scores], dtype=bool)

    @property
    def values(self) -> NDArray[np.float64]:
        return np.array([entry.score for entry in self.scores], dtype=np.float64)


def evaluate_scored(
    scored: Iterable[Scored], spec: InputSpec, threshold: float | None, mask_rule: MaskRule
) -> Evaluation:
    """Consume scored images once, keeping scores, pixel counts and a few maps.

    `threshold` is the shipped one (reject when score > threshold), None when there is none.
    """
    entries: list[ImageScore] = []
    pixels: dict[str, PixelScores] = {}
    legacy: dict[str, list[float]] = {}
    gallery = Gallery()
    vanished, unmasked = 0, 0
    try:
        for item in scored:
            sample = item.sample
            entries.append(ImageScore(sample.path, sample.defect, item.score, sample.group))
            gallery.offer(item)
            mask = None
            if sample.is_defective:
                if sample.mask is None:
                    unmasked += 1
                    continue
                full = read_mask(sample.mask)
                if full.shape != item.image_size:
                    raise DataError(
                        f"{sample.mask} is {full.shape[1]} x {full.shape[0]} but its image is "
                        f"{item.image_size[1]} x {item.image_size[0]}",
                        "`skrd4ad data` lists every such file",
                    )
                mask = full
            scores, mask = match(item.map, mask, item.image_size, spec, mask_rule)
            if mask is not None:
                if not mask.any():
                    vanished += 1
                    continue
                legacy.setdefault(sample.defect, []).append(aupro_rd4ad_image(mask, scores))
            pixels.setdefault(sample.defect, PixelScores()).add(scores, mask)
        overall = _pixel_figures(pixels, legacy)
        labels = [entry.defect != GOOD for entry in entries]
        values = [entry.score for entry in entries]
        image_ranking = metrics.image_ranking(labels, values)
        f1, f1_score = metrics.best_f1(labels, values)
        return Evaluation(
            scores=tuple(entries),
            image_auroc=auroc(image_ranking),
            image_auroc_interval=bootstrap_interval(
                np.array(labels, bool), np.array(values, np.float64), metrics.image_auroc
            ),
            image_ap=average_precision(image_ranking),
            oracle_f1=f1,
            oracle_f1_score=f1_score,
            deployed=None
            if threshold is None
            else metrics.deployed_rates(labels, values, threshold),
            pixel=overall,
            by_defect=tuple(_by_defect(entries, threshold, pixels, legacy)),
            mask_rule=mask_rule,
            problems=tuple(_problems(vanished, unmasked, spec, mask_rule)),
            image_ranking=image_ranking,
            pixel_ranking=None if overall is None else ranking_of(*pixels.values()),
            gallery=gallery.chosen(),
        )
    finally:
        for part in pixels.values():
            part.close()


def _by_defect(
    entries: list[ImageScore],
    threshold: float | None,
    pixels: dict[str, PixelScores],
    legacy: dict[str, list[float]],
) -> Iterable[DefectFigures]:
    good = [entry.score for entry in entries if entry.defect == GOOD]
    for defect in sorted({entry.defect for entry in entries} - {GOOD}):
        mine = [entry for entry in entries if entry.defect == defect]
        scores, groups = [entry.score for entry in mine], {entry.group for entry in mine}
        labels = [False] * len(good) + [True] * len(scores)
        rates = (
            None if threshold is None else metrics.deployed_rates(labels, good + scores, threshold)
        )
        parts = {name: pixels[name] for name in (GOOD, defect) if name in pixels}
        yield DefectFigures(
            defect=defect,
            n_images=len(scores),
            image_auroc=metrics.image_auroc(labels, good + scores),
            median_score=float(np.median(np.nan_to_num(scores, nan=np.inf))),
            escape=None if rates is None else rates.escape,
            pixel=_pixel_figures(parts, legacy) if defect in pixels else None,
            group=groups.pop() if len(groups) == 1 else None,
        )


def _pixel_figures(
    pixels: dict[str, PixelScores], legacy: dict[str, list[float]]
) -> PixelFigures | None:
    """None when no defect pixel is labelled."""
    if not any(name != GOOD for name in pixels):
        return None
    ranked = ranking_of(*pixels.values())
    per_image = [
        value for name in pixels for value in legacy.get(name, []) if not math.isnan(value)
    ]
    return PixelFigures(
        n_images=sum(part.n_images for part in pixels.values()),
        auroc=auroc(ranked),
        ap=average_precision(ranked),
        aupro_30=aupro_of(ranked, 0.3),
        aupro_05=aupro_of(ranked, 0.05),
        aupro_rd4ad=float(np.mean(per_image)) if per_image else float("nan"),
    )


def _problems(vanished: int, unmasked: int, spec: InputSpec, rule: MaskRule) -> Iterable[str]:
    if vanished:
        yield (
            f"{vanished} masks vanish at {spec.height} x {spec.width} under mask rule '{rule}': "
            "these images count for image figures only (--mask-rule any or native keeps them)"
        )
    if unmasked:
        yield f"{unmasked} defective images have no mask and count for image figures only"
