"""Line charts and histograms as SVG text: no drawing library, no script, any browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 48, 46
PALETTE = ("#1f6feb", "#d1242f", "#8250df", "#1a7f37", "#bf8700", "#57606a")
POINTS = 400


@dataclass(frozen=True)
class Line:
    """A named curve, x and y (n,)."""

    label: str
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Axis:
    """What an axis says and spans; `log` spaces it by powers of ten, `whole` counts things."""

    label: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def place(self, value: Floats | float) -> Floats:
        """0 at `low`, 1 at `high`; values beyond are pinned to the frame."""
        raw = np.asarray(value, dtype=np.float64)
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            raw = np.log10(np.maximum(raw, self.low))
        else:
            low, high = self.low, self.high
        placed: Floats = np.clip((raw - low) / ((high - low) or 1.0), 0.0, 1.0)
        return placed

    def ticks(self) -> list[float]:
        """Round values inside the axis: a reader can name them."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
                values = [step * 10.0**power for power in powers for step in steps]
                inside = [value for value in values if self.low <= value <= self.high]
                if len(inside) >= 3:
                    break
            return inside
        step = self._step()
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def _step(self) -> float:
        """1, 2, 2.5 or 5 times a power of ten: three to six steps between the ends."""
        rough = (self.high - self.low) / 6 or 1.0
        power = 10.0 ** math.floor(math.log10(rough))
        wide = next(factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= rough)
        return max(1.0, float(round(wide * power))) if self.whole else wide * power


def line_chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """An SVG with one polyline per line and a legend when there is more than one."""
    parts = [_frame(title, x, y)]
    for index, line in enumerate(lines):
        kept = _thin(x.place(line.x), y.place(line.y))
        points = " ".join(f"{_left(a):.1f},{_top(b):.1f}" for a, b in zip(*kept, strict=True))
        colour = PALETTE[index % len(PALETTE)]
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    if len(lines) > 1:
        parts.append(
            _legend([(line.label, PALETTE[i % len(PALETTE)]) for i, line in enumerate(lines)])
        )
    return _svg(parts)


def score_histogram(
    title: str, good: Floats, defective: Floats, threshold: float | None, bins: int = 40
) -> str:
    """Counts of finite scores of good (blue) and defective (red) images, threshold as a line."""
    finite = [values[np.isfinite(values)] for values in (good, defective)]
    every = np.concatenate([*finite, np.array([] if threshold is None else [threshold])])
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    margin = (high - low) * 0.05 or 0.5
    edges = np.linspace(low - margin, high + margin, bins + 1)
    counts = [np.histogram(values, edges)[0] for values in finite]
    top = max(1, *(int(count.max(initial=0)) for count in counts))
    x, y = Axis("image score", edges[0], edges[-1]), Axis("images", 0, top, whole=True)
    parts = [_frame(title, x, y)]
    entries = []
    for index, (label, count) in enumerate(zip(("good", "defective"), counts, strict=True)):
        colour = PALETTE[index]
        for at in np.flatnonzero(count):
            a, b = _left(float(x.place(edges[at]))), _left(float(x.place(edges[at + 1])))
            height = float(y.place(float(count[at])))
            parts.append(
                f'<rect x="{a:.1f}" y="{_top(height):.1f}" width="{b - a:.1f}" '
                f'height="{_top(0) - _top(height):.1f}" fill="{colour}" fill-opacity="0.55"/>'
            )
        entries.append((f"{label} ({len(finite[index])})", colour))
    parts.append(_legend(entries))
    parts += _threshold(x, threshold)
    return _svg(parts)


def score_strips(title: str, rows: Sequence[tuple[str, Floats]], threshold: float | None) -> str:
    """One line of dots per kind of image: which kinds the threshold parts, and which not.

    Dots of a row are spread up and down by their order, so that equal scores stay visible.
    """
    finite = [values[np.isfinite(values)] for _, values in rows]
    every = np.concatenate([*finite, np.array([] if threshold is None else [threshold])])
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    margin = (high - low) * 0.05 or 0.5
    x = Axis("image score", low - margin, high + margin)
    parts = [_frame(title, x, None)]
    pitch = (HEIGHT - TOP - BOTTOM) / max(1, len(rows))
    for index, ((label, _), values) in enumerate(zip(rows, finite, strict=True)):
        middle = TOP + (index + 0.5) * pitch
        colour = PALETTE[min(index, 1)]
        for order, value in enumerate(np.sort(values)):
            at = middle + pitch * (0.25 + (order % 4 - 1.5) * 0.12)
            parts.append(
                f'<circle cx="{_left(float(x.place(value))):.1f}" cy="{at:.1f}" r="3" '
                f'fill="{colour}" fill-opacity="0.6"/>'
            )
        parts.append(
            f'<text x="{LEFT + 4}" y="{middle - 0.14 * pitch:.1f}">'
            f"{escape(label)} ({len(values)})</text>"
        )
    parts += _threshold(x, threshold)
    return _svg(parts)


def _threshold(x: Axis, value: float | None) -> list[str]:
    """A dashed line across the frame with its value, on the side where there is room."""
    if value is None:
        return []
    share = float(x.place(value))
    at, (shift, anchor) = _left(share), (4, "start") if share < 0.7 else (-4, "end")
    return [
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="threshold"/>'
        f'<text x="{at + shift:.1f}" y="{TOP + 12}" text-anchor="{anchor}">threshold '
        f"{value:.4g}</text>"
    ]


def _left(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _top(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _thin(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most POINTS points, even along the curve, so that steps keep their corners."""
    if len(x) <= POINTS:
        return x, y
    travelled = np.cumsum(np.abs(np.diff(x, prepend=x[0])) + np.abs(np.diff(y, prepend=y[0])))
    kept = np.searchsorted(travelled, np.linspace(0, travelled[-1], POINTS))
    kept = np.unique(np.concatenate(([0], np.minimum(kept, len(x) - 1), [len(x) - 1])))
    return x[kept], y[kept]


def _frame(title: str, x: Axis, y: Axis | None) -> str:
    """Title, grid and axis labels; without `y` the height of a mark means nothing."""
    parts = [f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>']
    for value in x.ticks():
        at = _left(float(x.place(value)))
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>'
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:.3g}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x.label)}</text>"
    )
    if y is None:
        return "".join(parts)
    for value in y.ticks():
        at = _top(float(y.place(value)))
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    parts.append(
        f'<text x="14" y="{(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle" '
        f'transform="rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2})">{escape(y.label)}</text>'
    )
    return "".join(parts)


def _legend(entries: Sequence[tuple[str, str]]) -> str:
    """(label, colour) side by side between title and frame, where no curve can run."""
    parts, at = [], float(LEFT)
    for label, colour in entries:
        parts.append(
            f'<rect x="{at:.1f}" y="28" width="10" height="10" fill="{colour}"/>'
            f'<text x="{at + 14:.1f}" y="37">{escape(label)}</text>'
        )
        at += 26 + 5.8 * len(label)
    return "".join(parts)


def _svg(parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'
