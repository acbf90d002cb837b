"""From map and score to a verdict with its defects. Pure: the same values give the same verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.spec import Threshold
from .records import Defect, Verdict

Affine = tuple[float, float, float, float, float, float]
OnLate = Literal["err", "reject"]
MAX_DEFECTS = 16
"""An event names at most this many regions, highest peak first: its header has 8 KB."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with its grounds. `evaluated` is False exactly for `err`."""

    verdict: Verdict
    reasons: tuple[str, ...]
    score: float
    threshold: float
    defects: tuple[Defect, ...] = ()
    detail: str = ""
    late: bool = False

    @property
    def evaluated(self) -> bool:
        return self.verdict is not Verdict.ERR


def decide(
    anomaly_map: NDArray[np.float32],
    score: float,
    threshold: Threshold,
    map_to_image: Affine,
    image_size: tuple[int, int],
) -> Decision:
    """Judge one part.

    `anomaly_map` (height, width) and `score` as the engine gave them, `map_to_image` the affine
    (sx, 0, tx, 0, sy, ty) between pixel centres, `image_size` (height, width) of the captured
    image. score > threshold.value rejects (strictly: a score on the threshold passes); with a
    `review_value`, scores up to and including it are `review` instead. A score or map that is not
    finite means the network did not evaluate the part: `err`, never a pass.
    """
    if not math.isfinite(score) or not bool(np.isfinite(anomaly_map).all()):
        detail = "the network returned a score or map that is not finite"
        return uninspected("not_finite", detail, threshold.value)
    if not score > threshold.value:
        return Decision(Verdict.OK, (), score, threshold.value)
    review = threshold.review_value is not None and score <= threshold.review_value
    return Decision(
        verdict=Verdict.REVIEW if review else Verdict.NG,
        reasons=("score",),
        score=score,
        threshold=threshold.value,
        defects=find_defects(anomaly_map, threshold.value, map_to_image, image_size),
    )


def uninspected(reason: str, detail: str = "", threshold: float = math.nan) -> Decision:
    """An `err`: nothing is known about the part, so its score is NaN and not a small number."""
    return Decision(Verdict.ERR, (reason,), math.nan, threshold, detail=detail)


def apply_deadline(decision: Decision, age_ns: int, deadline_ns: int, on_late: OnLate) -> Decision:
    """A verdict that comes after its deadline may belong to another part: it never passes one.

    `age_ns` is the time since capture. `reject` turns ok and review into ng and keeps the score;
    `err` reports the part as uninspected. An `err` or `ng` part stays what it is.
    """
    if age_ns <= deadline_ns:
        return decision
    if decision.verdict is Verdict.ERR:
        return replace(decision, late=True)
    detail = f"the result is {age_ns / 1e6:.1f} ms old, the deadline is {deadline_ns / 1e6:.1f} ms"
    if on_late == "reject":
        return replace(
            decision,
            verdict=Verdict.NG,
            reasons=(*decision.reasons, "late"),
            detail=detail,
            late=True,
        )
    return replace(uninspected("late", detail, decision.threshold), late=True)


def find_defects(
    anomaly_map: NDArray[np.float32],
    threshold: float,
    map_to_image: Affine,
    image_size: tuple[int, int],
    region: str = "image",
) -> tuple[Defect, ...]:
    """Connected regions (8 neighbours) with map > threshold, highest peak first.

    Boxes and peaks are in pixels of the captured image, clipped to it; the area is the number of
    map pixels times the area of one in the image.
    """
    above = (anomaly_map > threshold).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    found = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        window = anomaly_map[y : y + height, x : x + width]
        inside = np.where(labels[y : y + height, x : x + width] == label, window, -np.inf)
        peak_y, peak_x = divmod(int(inside.argmax()), width)
        found.append(
            Defect(
                region=region,
                score=float(inside[peak_y, peak_x]),
                threshold=threshold,
                area_px=max(1, round(area * abs(map_to_image[0] * map_to_image[4]))),
                bbox_px=_box_in_image((x, y, width, height), map_to_image, image_size),
                peak_px=_point_in_image((x + peak_x, y + peak_y), map_to_image, image_size),
            )
        )
    found.sort(key=lambda defect: (-defect.score, defect.peak_px))
    return tuple(found[:MAX_DEFECTS])


def _point_in_image(
    point: tuple[int, int], transform: Affine, image_size: tuple[int, int]
) -> tuple[int, int]:
    sx, _, tx, _, sy, ty = transform
    height, width = image_size
    x, y = round(sx * point[0] + tx), round(sy * point[1] + ty)
    return min(max(x, 0), width - 1), min(max(y, 0), height - 1)


def _box_in_image(
    box: tuple[int, int, int, int], transform: Affine, image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    # The transform joins pixel centres; a box runs between pixel edges, half a pixel further out.
    sx, _, tx, _, sy, ty = transform
    x, y, box_width, box_height = box
    height, width = image_size
    left = min(max(math.floor(sx * (x - 0.5) + tx + 0.5), 0), width - 1)
    top = min(max(math.floor(sy * (y - 0.5) + ty + 0.5), 0), height - 1)
    right = min(max(math.ceil(sx * (x + box_width - 0.5) + tx + 0.5), left + 1), width)
    bottom = min(max(math.ceil(sy * (y + box_height - 0.5) + ty + 0.5), top + 1), height)
    return left, top, right - left, bottom - top
