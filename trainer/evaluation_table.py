"""An evaluation as text for the terminal."""

from __future__ import annotations

import math

from .evaluation import Evaluation
from .metrics import Rate


def text_table(evaluation: Evaluation) -> str:
    """Figures over all images, then one line per defect type."""
    labels = evaluation.labels
    low, high = evaluation.image_auroc_interval
    lines = [
        f"{int((~labels).sum())} good and {int(labels.sum())} defective images",
        f"image  AUROC {_share(evaluation.image_auroc)} "
        f"(95 % interval {_share(low)}-{_share(high)})   AP {_share(evaluation.image_ap)}",
    ]
    pixel = evaluation.pixel
    if pixel is None:
        lines.append("pixel  no usable masks: no pixel figures")
    else:
        lines.append(
            f"pixel  AUROC {_share(pixel.auroc)}   AP {_share(pixel.ap)}   "
            f"AUPRO@0.3 {_share(pixel.aupro_30)}   AUPRO@0.05 {_share(pixel.aupro_05)}   "
            f"(mask rule: {evaluation.mask_rule})"
        )
        lines.append(
            f"       aupro_rd4ad {_share(pixel.aupro_rd4ad)} "
            "(per image, legacy: only to compare with published tables)"
        )
    deployed = evaluation.deployed
    if deployed is None:
        lines.append("line   no threshold: no false-reject and escape rates")
    else:
        lines.append(
            f"line   at threshold {deployed.threshold:.4f}: false rejects "
            f"{rate_text(deployed.false_reject)}, escapes {rate_text(deployed.escape)}"
        )
    lines.append(
        f"oracle F1 {_share(evaluation.oracle_f1)} at score {evaluation.oracle_f1_score:.4f} "
        "(threshold chosen on these labels: an upper bound, not a result)"
    )
    if evaluation.by_defect:
        width = max(12, *(len(row.label) for row in evaluation.by_defect))
        head = ("images", "image AUROC", "pixel AUROC", "AUPRO@0.3", "median score", "escapes")
        lines += ["", f"{'defect':{width}}  " + "  ".join(f"{name:>12}" for name in head)]
        for row in evaluation.by_defect:
            escapes = "-" if row.escape is None else f"{row.escape.count}/{row.escape.total}"
            cells = (
                str(row.n_images),
                _share(row.image_auroc),
                _share(row.pixel.auroc if row.pixel else math.nan),
                _share(row.pixel.aupro_30 if row.pixel else math.nan),
                f"{row.median_score:.4f}",
                escapes,
            )
            lines.append(f"{row.label:{width}}  " + "  ".join(f"{cell:>12}" for cell in cells))
    lines += [f"note: {problem}" for problem in evaluation.problems]
    return "\n".join(lines)


def rate_text(rate: Rate) -> str:
    """`3/60 (5.0 %, 95 % interval 1.0-13.9 %)`."""
    if not rate.total:
        return "none to count"
    low, high = (100 * end for end in rate.interval)
    return (
        f"{rate.count}/{rate.total} ({100 * rate.rate:.1f} %, 95 % interval {low:.1f}-{high:.1f} %)"
    )


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
