"""What calibration found, as a table for the terminal and a page to file (one HTML file, no links).

The page shows every held-out score against the threshold, so that a person can see whether a
guarantee rests on two hundred parts or on eleven.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.spec import Threshold
from .threshold import (
    QUANTILE_LEVELS,
    escape_interval,
    images_needed,
    is_attained,
    realised_rate_interval,
)

CONFIDENCE = 0.95
_WIDTH, _HEIGHT, _MARGIN = 860, 300, 40
_BINS = 40


def threshold_facts(
    threshold: Threshold, scores: NDArray[np.float64], defect_scores: NDArray[np.float64]
) -> dict[str, Any]:
    """Everything the table shows, as plain values for --json."""
    interval = realised_rate_interval(threshold, CONFIDENCE)
    facts: dict[str, Any] = {
        "revision": threshold.revision,
        "method": threshold.method,
        "n_normals": threshold.n_normals,
        "source": threshold.source,
        "created": threshold.created,
        "target_false_reject_rate": threshold.target_false_reject_rate,
        "attainable_rate": threshold.attainable_rate,
        "attained": is_attained(threshold),
        "images_needed": images_needed(threshold.target_false_reject_rate),
        "threshold": threshold.value,
        "review_value": threshold.review_value,
        "rejected_normals": int(np.count_nonzero(scores > threshold.value)),
        "score_quantiles": list(threshold.score_quantiles),
        "false_reject_interval": [interval.low, interval.high],
        "confidence": CONFIDENCE,
    }
    if defect_scores.size:
        rate, escapes = escape_interval(threshold.value, defect_scores, CONFIDENCE)
        facts |= {
            "n_defects": int(defect_scores.size),
            "escape_rate": rate,
            "escape_interval": [escapes.low, escapes.high],
        }
    return facts


def table_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What people read, as (name, value). Score quantiles are those of the good images."""
    low, high = facts["false_reject_interval"]
    attainable = f"{facts['attainable_rate']:.2%}"
    if not facts["attained"]:
        attainable += "  NOT the target: "
        if facts["method"] in ("escape", "manual"):
            asked = "the escape rate" if facts["method"] == "escape" else "--value"
            attainable += f"{asked} asks for a lower threshold"
        else:
            attainable += f"that needs {facts['images_needed']} images"
    rows = [
        ("good images", f"{facts['n_normals']} ({facts['source']})"),
        ("target false rejects", f"{facts['target_false_reject_rate']:.2%}"),
        ("attainable", attainable),
        ("threshold", f"{facts['threshold']:.6g}  (score > threshold is a reject)"),
        ("false-reject rate", f"between {low:.2%} and {high:.2%}, {facts['confidence']:.0%} sure"),
        ("good images above it", f"{facts['rejected_normals']}"),
    ]
    if facts["score_quantiles"]:
        rows.append(("score quantiles", _quantile_text(facts["score_quantiles"])))
    if facts["review_value"] is not None:
        rows.insert(4, ("review up to", f"{facts['review_value']:.6g}"))
    if "n_defects" in facts:
        low, high = facts["escape_interval"]
        text = f"{facts['escape_rate']:.2%} of {facts['n_defects']}"
        rows.append(("defects that escape", f"{text}, between {low:.2%} and {high:.2%}"))
    return rows


def as_table(facts: dict[str, Any]) -> str:
    """The report for the terminal."""
    rows = (f"  {name:22} {value}" for name, value in table_rows(facts))
    return "\n".join([_title(facts), *rows])


def as_html(
    facts: dict[str, Any], scores: NDArray[np.float64], defect_scores: NDArray[np.float64]
) -> str:
    """The report as one self-contained HTML page with a histogram of the scores (SVG)."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in table_rows(facts)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(_title(facts))}</title>
<style>
:root {{ color-scheme: light dark; --good: #2a7fa5; --bad: #c0392b; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; }}
th {{ text-align: left; padding-right: 2rem; font-weight: 600; vertical-align: top; }}
svg {{ width: 100%; height: auto; }} text {{ fill: currentColor; font-size: 13px; }}
</style></head><body>
<h1>{html.escape(_title(facts))}</h1>
{histogram_svg(facts, scores, defect_scores)}
<table>{rows}</table>
<p>A part is rejected when its score is above the threshold. The rule and what it guarantees:
docs/calibration.md. Created {html.escape(facts["created"])}.<br>
Plan before: {html.escape(facts["digest"])}</p>
</body></html>
"""


def histogram_svg(
    facts: dict[str, Any], scores: NDArray[np.float64], defect_scores: NDArray[np.float64]
) -> str:
    """Counts of good parts upwards (blue) and of labelled defects downwards (red)."""
    marks = [value for value in (facts["threshold"], facts["review_value"]) if value is not None]
    everything = np.concatenate([scores, defect_scores, marks])
    low, high = float(everything.min()), float(everything.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    good, bad = (np.histogram(values, edges)[0] for values in (scores, defect_scores))
    tallest = max(int(good.max()), 1) + int(bad.max())
    unit = (_HEIGHT - 2 * _MARGIN) / tallest
    base = _MARGIN + unit * max(int(good.max()), 1)
    step = (_WIDTH - 2 * _MARGIN) / _BINS

    def x(value: float) -> float:
        return _MARGIN + (value - low) / (high - low) * (_WIDTH - 2 * _MARGIN)

    bars = []
    for index in range(_BINS):
        left = _MARGIN + index * step
        for count, top, colour in (
            (int(good[index]), base - unit * int(good[index]), "--good"),
            (int(bad[index]), base, "--bad"),
        ):
            if count:
                bars.append(
                    f'<rect x="{left:.1f}" y="{top:.1f}" width="{step - 1:.1f}" '
                    f'height="{unit * count:.1f}" style="fill: var({colour})">'
                    f"<title>{count}</title></rect>"
                )
    lines = [
        f'<line x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_MARGIN / 2}" '
        f'y2="{_HEIGHT - _MARGIN / 2}" stroke="currentColor" stroke-dasharray="5 4"/>'
        f'<text x="{x(value):.1f}" y="14" text-anchor="middle">{name} {value:.4g}</text>'
        for name, value in zip(("threshold", "review"), marks, strict=False)
    ]
    ends = (
        f'<text x="{_MARGIN}" y="{_HEIGHT - 4}">{low:.4g}</text>'
        f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - 4}" text-anchor="end">score {high:.4g}</text>'
    )
    legend = (
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle">{scores.size} good parts '
        f"above the axis, {defect_scores.size} labelled defects below</text>"
    )
    axis = (
        f'<line x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{base:.1f}" y2="{base:.1f}" '
        'stroke="currentColor"/>'
    )
    said = f"{scores.size} good parts above the axis, {defect_scores.size} defects below"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{said}">'
        f"{''.join(bars)}{axis}{''.join(lines)}{ends}{legend}</svg>"
    )


def _title(facts: dict[str, Any]) -> str:
    before = "" if facts["previous"] is None else f", was {facts['previous']:.6g}"
    return f"{facts['plan']}: {facts['method']} threshold, revision {facts['revision']}{before}"


def _quantile_text(quantiles: Sequence[float]) -> str:
    return "  ".join(
        f"{level:.0%} {value:.4g}" for level, value in zip(QUANTILE_LEVELS, quantiles, strict=True)
    )
