"""`report.html`: one file with every figure, curve and telling picture of an evaluation.

Pictures and charts are inline, there is no script and nothing is fetched, so the file can be
archived with the part's records and opened anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..engine.spec import Threshold
from .aggregate import FIGURES, Group, figures_of, spread_text
from .charts import Axis, Line, line_chart, score_histogram, score_strips
from .evaluation import Evaluation
from .evaluation_table import rate_text
from .ranking import precision_recall, pro_curve, roc_curve
from .report_pictures import gallery_html
from .report_style import STYLE
from .samples import Dataset
from .scorer import Scorer
from .training_log import convergence_chart, read_log

UNIT = Axis("recall", 0.0, 1.0)
TEACHER_WARNINGS = {
    "random": "The teacher's weights are random: it was never trained. These figures show that the "
    "program works; they say nothing about the method's accuracy.",
}


def report_html(
    evaluation: Evaluation,
    scorer: Scorer,
    dataset: Dataset,
    threshold: Threshold | None,
    log: Path | None,
    seeds: str = "",
) -> str:
    """The report as a string; reads the pictured images again from their files.

    `seeds` is the section that compares this run with others of its kind (`seeds_html`).
    """
    title = f"{dataset.name}: {scorer.name}"
    convergence = convergence_chart(read_log(log)) if log is not None else None
    charts = _charts(evaluation, threshold)
    charts.append(
        convergence
        or "<p class='note'>No training log beside this model: no convergence curve "
        "(give --run as well).</p>"
    )
    sections = [
        f"<h1>{escape(title)}</h1>",
        _warning(scorer),
        _tiles(evaluation),
        _facts(evaluation, scorer, dataset, threshold),
        seeds,
        "<h2>By defect type</h2>",
        _defect_table(evaluation),
        "<h2>Curves</h2>",
        "<div class='charts'>",
        *(f"<figure>{chart}</figure>" for chart in charts),
        "</div>",
        gallery_html(evaluation, scorer.input, threshold),
        _notes([*dataset.problems, *evaluation.problems]),
        f"<footer>skrd4ad {escape(__version__)}. Definitions: docs/metrics.md.</footer>",
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"{''.join(sections)}</main></body></html>\n"
    )


def _warning(scorer: Scorer) -> str:
    warning = TEACHER_WARNINGS.get(scorer.teacher.kind)
    if warning is None:
        return ""
    return f"<p class='warning'><b>{escape(scorer.teacher.kind)} teacher.</b> {escape(warning)}</p>"


def _tiles(evaluation: Evaluation) -> str:
    pixel, deployed = evaluation.pixel, evaluation.deployed
    interval = "-".join(number(end) for end in evaluation.image_auroc_interval)
    tiles = [
        ("image AUROC", f"{number(evaluation.image_auroc)} (95 % interval {interval})"),
        ("pixel AUROC", number(pixel.auroc) if pixel else "-"),
        ("AUPRO@0.3", number(pixel.aupro_30) if pixel else "-"),
        ("false rejects", rate_text(deployed.false_reject) if deployed else "no threshold"),
        ("escapes", rate_text(deployed.escape) if deployed else "no threshold"),
    ]
    cells = "".join(
        f"<div><span>{escape(name)}</span><b>{escape(value.partition(' (')[0])}</b>"
        f"<i>{escape(value.partition(' (')[2].removesuffix(')'))}</i></div>"
        for name, value in tiles
    )
    return f"<div class='tiles'>{cells}</div>"


def _facts(
    evaluation: Evaluation, scorer: Scorer, dataset: Dataset, threshold: Threshold | None
) -> str:
    labels, pixel = evaluation.labels, evaluation.pixel
    rows = [
        ("scored with", scorer.description),
        ("teacher", f"{scorer.teacher.kind}: {scorer.teacher.detail}"),
        (
            "network",
            f"{scorer.network.backbone}, fusion {scorer.network.fusion}, preset "
            f"{scorer.origin.preset or '-'}, seed {scorer.origin.seed}, {scorer.origin.epochs} "
            f"epochs, {scorer.origin.n_fit} images learned from, "
            f"{scorer.origin.n_calibration} held out",
        ),
        (
            "test images",
            f"{int((~labels).sum())} good, {int(labels.sum())} defective ({dataset.layout} layout)",
        ),
        ("image AP", number(evaluation.image_ap)),
        (
            "oracle F1",
            f"{number(evaluation.oracle_f1)} (threshold chosen on these labels: an upper bound)",
        ),
    ]
    if pixel is not None:
        rows += [
            ("pixel AP", number(pixel.ap)),
            ("AUPRO@0.05", number(pixel.aupro_05)),
            ("aupro_rd4ad", f"{number(pixel.aupro_rd4ad)} (per image, legacy, for tables only)"),
            (
                "mask rule",
                f"{evaluation.mask_rule}; maps are {scorer.input.height} x {scorer.input.width}",
            ),
        ]
    if threshold is not None:
        rows.append(
            (
                "threshold",
                f"{threshold.value:.6g}, {threshold.method}, from {threshold.n_normals} held-out "
                f"good images, target false-reject rate {threshold.target_false_reject_rate:.3g}, "
                f"attainable {threshold.attainable_rate:.3g}",
            )
        )
    if evaluation.deployed is not None:
        rows.append(("F1 at the threshold", number(evaluation.deployed.f1)))
    body = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows)
    return f"<table class='facts'>{body}</table>"


def _defect_table(evaluation: Evaluation) -> str:
    head = (
        "defect",
        "images",
        "image AUROC",
        "pixel AUROC",
        "AUPRO@0.3",
        "median score",
        "escapes",
    )
    rows = [
        (
            row.label,
            str(row.n_images),
            number(row.image_auroc),
            number(row.pixel.auroc) if row.pixel else "-",
            number(row.pixel.aupro_30) if row.pixel else "-",
            f"{row.median_score:.4f}",
            rate_text(row.escape) if row.escape else "-",
        )
        for row in evaluation.by_defect
    ]
    return table(head, rows)


def seeds_html(documents: Sequence[dict[str, Any]], groups: Sequence[Group]) -> str:
    """Every run's figures, then mean and deviation of those that differ in the seed alone."""
    rows = [
        (f"{one['name']}, seed {one['origin']['seed']}", *_percent(figures_of(one)))
        for one in documents
    ]
    for group in groups:
        means = {name: spread_text(value) for name, value in group.figures.items()}
        rows.append(
            (
                f"{group.kind.recipe}: mean ± sd, n = {len(group.seeds)}",
                *(means.get(name, "-") for name in FIGURES),
            )
        )
    return (
        "<h2>Over seeds</h2><p class='note'>In percent. Everything else on this page is of the "
        f"first run.</p>{table(('run', *FIGURES), rows)}"
    )


def _percent(figures: dict[str, float]) -> list[str]:
    return [f"{100 * figures[name]:.2f}" if name in figures else "-" for name in FIGURES]


def _charts(evaluation: Evaluation, threshold: Threshold | None) -> list[str]:
    labels, values = evaluation.labels, evaluation.values
    limit = None if threshold is None else threshold.value
    charts = [
        score_histogram(
            "Image scores",
            values[~labels],
            values[labels],
            limit,
        )
    ]
    if evaluation.by_defect:
        by_kind = [("good", values[~labels])] + [
            (row.label, np.array([s.score for s in evaluation.scores if s.defect == row.defect]))
            for row in evaluation.by_defect
        ]
        charts.append(score_strips("Image scores by defect type", by_kind, limit))
    rankings = {"image": evaluation.image_ranking, "pixel": evaluation.pixel_ranking}
    defined = {name: r for name, r in rankings.items() if r is not None and r.is_defined}
    if defined:
        false_positives = Axis("false-positive rate", 0.0, 1.0)
        roc = [Line(name, *roc_curve(ranking)) for name, ranking in defined.items()]
        charts.append(line_chart("ROC", false_positives, UNIT, roc))
        pr = [Line(name, *precision_recall(ranking)) for name, ranking in defined.items()]
        charts.append(line_chart("Precision and recall", UNIT, Axis("precision", 0.0, 1.0), pr))
    if "pixel" in defined:
        x, y = pro_curve(defined["pixel"])
        inside = x <= 0.3
        axis = Axis("false-positive rate of defect-free pixels", 0.0, 0.3)
        overlap = Axis("mean overlap of regions", 0.0, 1.0)
        charts.append(
            line_chart("PRO up to 0.3", axis, overlap, [Line("PRO", x[inside], y[inside])])
        )
    return charts


def _notes(problems: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return f"<h2>Notes on the data</h2><ul>{items}</ul>" if items else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of escaped cells; the first column is a heading."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th>{escape(row[0])}</th>{''.join(f'<td>{escape(c)}</td>' for c in row[1:])}</tr>"
        for row in rows
    )
    return f"<div class='wide'><table><tr>{top}</tr>{body}</table></div>"


def number(value: float) -> str:
    """Four decimals, a dash for an undefined figure."""
    return "-" if math.isnan(value) else f"{value:.4f}"
