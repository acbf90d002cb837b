"""The report's pictures: the worst decisions, the nearest ones, and one of each defect type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from ..engine.images import read_rgb
from ..engine.preprocess import crop_and_resize
from ..engine.spec import InputSpec, Threshold
from .datasets import read_mask
from .evaluation import Evaluation
from .mask_rule import MaskRule, for_picture, reduce_mask
from .overlays import CLEAR_BELOW, RED_FROM, inline_png, map_picture, overlay
from .scorer import Scored

SHOWN = 6


def gallery_html(evaluation: Evaluation, spec: InputSpec, threshold: Threshold | None) -> str:
    good = sorted(
        (s for s in evaluation.gallery if not s.sample.is_defective), key=lambda s: -s.score
    )
    defective = sorted(
        (s for s in evaluation.gallery if s.sample.is_defective), key=lambda s: s.score
    )
    anchor, meaning = _anchor(good, threshold)
    limit = math.inf if threshold is None else threshold.value
    rejects = [s for s in good if not s.score <= limit]
    escapes = [s for s in defective if s.score <= limit] if threshold is not None else []
    clearest = {s.sample.defect: s for s in defective}  # ascending: the highest score stays
    shown_elsewhere = {id(s) for s in [*escapes, *clearest.values()]}
    nearest = [s for s in defective if id(s) not in shown_elsewhere]
    groups = [
        ("Worst false rejects", rejects, "No good image is rejected."),
        ("Good images nearest to a reject", [s for s in good if s not in rejects], ""),
        ("Worst escapes", escapes, "No defective image is accepted."),
        ("Defective images nearest to an escape", nearest, ""),
        ("The clearest of each defect type", list(clearest.values()), ""),
    ]
    parts = [
        "<h2>Pictures</h2><p class='note'>One colour scale in every picture: "
        f"nothing below {CLEAR_BELOW * anchor:.4g}, amber at {anchor:.4g} ({meaning}), red from "
        f"{RED_FROM * anchor:.4g}. White outline: the map exceeds {anchor:.4g}. Cyan outline: the "
        "labelled defect. Right: the map alone, black at 0 and white just below "
        f"{anchor:.4g}.</p>"
    ]
    for heading, items, nothing in groups:
        if threshold is None and heading.startswith("Worst"):
            continue
        shown = items[:SHOWN] if not heading.startswith("The clearest") else items
        if shown or nothing:
            parts.append(f"<h3>{escape(heading)}</h3>")
        if not shown and nothing:
            parts.append(f"<p class='note'>{escape(nothing)}</p>")
        pictures = "".join(_picture(item, spec, anchor, evaluation.mask_rule) for item in shown)
        parts.append(f"<div class='gallery'>{pictures}</div>")
    return "".join(parts)


def _anchor(good: Sequence[Scored], threshold: Threshold | None) -> tuple[float, str]:
    if threshold is not None and threshold.value > 0:
        return threshold.value, "the threshold"
    finite = [s.score for s in good if np.isfinite(s.score) and s.score > 0]
    if finite:
        return max(finite), "no threshold is known: the highest score of a good image"
    return 1.0, "no threshold and no good image: arbitrary"


def _picture(item: Scored, spec: InputSpec, anchor: float, rule: MaskRule) -> str:
    rgb = crop_and_resize(read_rgb(item.sample.path), spec)
    mask = None
    if item.sample.mask is not None:
        mask = reduce_mask(read_mask(item.sample.mask), spec, for_picture(rule))
    source = inline_png(overlay(rgb, item.map, anchor, mask))
    name = f"{item.sample.defect}/{item.sample.path.name}"
    return (
        f"<figure><img src='{source}' alt='{escape(name, quote=True)}'>"
        f"<img src='{inline_png(rgb)}' alt=''>"
        f"<img src='{inline_png(map_picture(item.map, anchor))}' alt=''>"
        f"<figcaption>{escape(name)}<br>score {item.score:.4f}</figcaption></figure>"
    )
