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
    """What an axis says and spans; `log` spaces it by powers of ten."""

    label: str
    low: float
    high: float
    log: bool = False

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
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            tens = [10.0**power for power in range(first, last + 1)]
            return tens if len(tens) > 1 else [self.low, self.high]
        return [float(value) for value in np.linspace(self.low, self.high, 6)]


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
    x, y = Axis("image score", edges[0], edges[-1]), Axis("images", 0, top)
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
    if threshold is not None:
        at_px = _left(float(x.place(threshold)))
        parts.append(
            f'<line x1="{at_px:.1f}" x2="{at_px:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" '
            f'class="threshold"/><text x="{at_px + 4:.1f}" y="{TOP + 14}">threshold '
            f"{threshold:.4g}</text>"
        )
    return _svg(parts)


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


def _frame(title: str, x: Axis, y: Axis) -> str:
    parts = [f'<text x="{LEFT}" y="18" class="title">{escape(title)}</text>']
    for value in x.ticks():
        at = _left(float(x.place(value)))
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" class="grid"/>'
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:.3g}</text>'
        )
    for value in y.ticks():
        at = _top(float(y.place(value)))
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
            f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x.label)}</text>"
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
