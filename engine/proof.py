"""The examination of a plan: what `compile` must see before it writes, and `verify` sees again.

Every finding is measured on the plan's own bytes through `open_engine`, the product path, and each
comparison has a negative control that shows it can fail.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import PlanError
from .backends.base import Engine
from .check_set import CheckSet, resize_fingerprint
from .plan import Plan, parse_plan
from .spec import Parity, Quantisation

Maps = NDArray[np.float32]
Scores = NDArray[np.float32]

FP32_TOLERANCE = 1e-4
"""Allowed difference of map and score between two float32 implementations (map range 0 ... 3)."""

N_FLIPS = 8
N_LATENCY_RUNS = 30
LATENCY_BUDGET_S = 6.0


class Finding(NamedTuple):
    """One row of the parity table."""

    name: str
    found: str
    wanted: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Examination:
    """All findings about one plan on this machine."""

    findings: tuple[Finding, ...]
    parity: Parity
    negative_controls: dict[str, str]
    latency_ms_p50: float
    latency_ms_p99: float

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.passed)


def examine(
    plan: Plan, plan_data: bytes, engine: Engine, check: CheckSet, reference: Parity
) -> Examination:
    """Run everything on `engine`, opened from `plan`, whose file's bytes are `plan_data`.

    `reference` gives the name of the reference and the tolerances; its measured part is replaced.
    """
    inputs = check.pictures.network_input(plan.manifest.input)
    maps, scores = run_all(engine, inputs)
    parity = measure_parity(check, maps, scores, reference)
    positive = [
        *_parity_findings(parity),
        _within("all maps finite", float(np.count_nonzero(~np.isfinite(maps))), 0.0),
        _repeats(engine, inputs, maps),
        _resizes_alike(check),
    ]
    if plan.manifest.batch > 1:
        positive.append(_rows_alike(engine, inputs, maps, reference.map_tolerance))
    if plan.manifest.threshold is not None:
        positive.append(_no_flips(check.scores, scores, plan.manifest.threshold.value))
    negative = [
        _nan_scores_infinity(engine, inputs),
        _wrong_reference_noticed(check, maps, scores, reference),
        _patch_noticed(check, maps, reference.map_tolerance),
        _damage_refused(plan_data, plan.path),
    ]
    p50, p99 = measure_latency(engine, inputs)
    return Examination(
        findings=(*positive, *negative),
        parity=parity,
        negative_controls={finding.name: finding.found for finding in negative},
        latency_ms_p50=p50,
        latency_ms_p99=p99,
    )


def run_all(engine: Engine, inputs: NDArray[np.float32]) -> tuple[Maps, Scores]:
    """float32 (n, 3, H, W) in batches of the plan's size -> maps (n, H, W), scores (n,)."""
    size = engine.manifest.batch
    results = [engine.infer(inputs[start : start + size]) for start in range(0, len(inputs), size)]
    return np.concatenate([r[0] for r in results]), np.concatenate([r[1] for r in results])


def measure_parity(check: CheckSet, maps: Maps, scores: Scores, reference: Parity) -> Parity:
    """Largest absolute differences to the stored reference; non-finite ones count as infinite."""
    return Parity(
        reference=reference.reference,
        n_images=len(maps),
        map_max_abs=_max_abs(maps, check.maps),
        map_tolerance=reference.map_tolerance,
        score_max_abs=_max_abs(scores, check.scores),
        score_tolerance=reference.score_tolerance,
    )


def measure_latency(engine: Engine, inputs: NDArray[np.float32]) -> tuple[float, float]:
    """p50 and p99 in milliseconds of one `infer` of the plan's batch, after warm-up."""
    batch = np.resize(inputs, (engine.manifest.batch, *inputs.shape[1:]))
    for _ in range(3):
        engine.infer(batch)
    samples: list[float] = []
    end = time.perf_counter() + LATENCY_BUDGET_S
    while len(samples) < 5 or (len(samples) < N_LATENCY_RUNS and time.perf_counter() < end):
        start = time.perf_counter()
        engine.infer(batch)
        samples.append((time.perf_counter() - start) * 1e3)
    return float(np.percentile(samples, 50)), float(np.percentile(samples, 99))


def table_text(findings: tuple[Finding, ...]) -> str:
    """The findings as aligned text, one line each, failures marked."""
    rows = [("check", "found", "wanted", ""), *((*f[:3], _mark(f.passed)) for f in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True))
        + f"  {row[3]}"
        for row in rows
    )


def quantisation_text(found: Quantisation) -> str:
    """What int8 changed, in one line."""
    judged = found.judged_good + found.judged_defective
    ranking = ""
    if found.float32_auroc is not None and found.int8_auroc is not None:
        ranking = f", image AUROC {found.float32_auroc:.3f} -> {found.int8_auroc:.3f}"
    return (
        f"int8 against float32: {found.verdict_flips} of {judged} verdicts changed"
        f" ({found.judged_defective} defective parts), score within {found.score_max_abs:.2g}, map"
        f" within {found.map_max_abs:.2g}{ranking}; {found.speed_ratio:.2f} times as fast"
    )


def _parity_findings(parity: Parity) -> list[Finding]:
    against = f"against {parity.reference}"
    return [
        _within(f"map {against}", parity.map_max_abs, parity.map_tolerance),
        _within(f"score {against}", parity.score_max_abs, parity.score_tolerance),
    ]


def _repeats(engine: Engine, inputs: NDArray[np.float32], maps: Maps) -> Finding:
    """The same part must get the same map: run the first images once more."""
    count = min(4, len(inputs))
    again, _ = run_all(engine, inputs[:count])
    return _within("second run", _max_abs(again, maps[:count]), 0.0)


def _rows_alike(
    engine: Engine, inputs: NDArray[np.float32], maps: Maps, tolerance: float
) -> Finding:
    """A part's map must not depend on its neighbours in the batch."""
    alone = np.concatenate([engine.infer(inputs[index : index + 1])[0] for index in range(4)])
    return _within("alone against in a batch", _max_abs(alone, maps[:4]), tolerance)


def _resizes_alike(check: CheckSet) -> Finding:
    same = resize_fingerprint() == check.resize_sha256
    return Finding("resize", "same bits" if same else "other bits", "same bits", same)


def _no_flips(reference: Scores, scores: Scores, threshold: float) -> Finding:
    flips = np.count_nonzero((reference > threshold) != (scores > threshold))
    return _within("verdicts that differ", float(flips), 0.0)


def _nan_scores_infinity(engine: Engine, inputs: NDArray[np.float32]) -> Finding:
    poisoned = inputs[:1].copy()
    poisoned[0, :, poisoned.shape[2] // 2, poisoned.shape[3] // 2] = np.nan
    maps, scores = engine.infer(poisoned)
    right = bool(scores[0] == np.inf) and not np.isnan(maps).any()
    return Finding("NaN input scores", str(float(scores[0])), "inf", right)


def _wrong_reference_noticed(
    check: CheckSet, maps: Maps, scores: Scores, reference: Parity
) -> Finding:
    """Against the reference of another image the comparison has to fail, or it proves nothing."""
    other = CheckSet(
        check.pictures, np.roll(check.maps, 1, 0), np.roll(check.scores, 1), check.resize_sha256
    )
    wrong = measure_parity(other, maps, scores, reference)
    noticed = wrong.map_max_abs > wrong.map_tolerance
    return Finding(
        "another image's map", f"{wrong.map_max_abs:.1e}", f"> {wrong.map_tolerance:.1e}", noticed
    )


def _patch_noticed(check: CheckSet, maps: Maps, tolerance: float) -> Finding:
    """A patch on a check image must change its map by more than the tolerance."""
    sources = check.pictures.sources
    changes = [
        _max_abs(maps[sources.index(source.removesuffix(", patched"))], maps[index])
        for index, source in enumerate(sources)
        if source.endswith(", patched")
    ]
    smallest = min(changes, default=0.0)
    return Finding(
        "patched image's map", f"{smallest:.1e}", f"> {tolerance:.1e}", smallest > tolerance
    )


def _damage_refused(plan_data: bytes, path: Path) -> Finding:
    """Flip single bits all over the file and cut it short; every such file must be refused."""
    accepted = 0
    attempts = 0
    damaged = bytearray(plan_data)
    for position in np.linspace(0, len(plan_data) - 1, N_FLIPS).astype(int):
        damaged[position] ^= 1 << (attempts % 8)
        accepted += _accepts(bytes(damaged), path)
        damaged[position] ^= 1 << (attempts % 8)
        attempts += 1
    for length in (0, 100, len(plan_data) // 2, len(plan_data) - 1):
        accepted += _accepts(plan_data[:length], path)
        attempts += 1
    return Finding(
        "damaged copies refused", f"{attempts - accepted} of {attempts}", "all", accepted == 0
    )


def _accepts(data: bytes, path: Path) -> bool:
    try:
        parse_plan(data, path)
    except PlanError:
        return False
    return True


def _max_abs(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    return float(np.where(np.isnan(difference), np.inf, difference).max())


def _within(name: str, value: float, limit: float) -> Finding:
    counted = float(value).is_integer() and limit == 0
    text = f"{value:.0f}" if counted else f"{value:.1e}"
    return Finding(name, text, f"<= {limit:.1e}" if limit else "0", value <= limit)


def _mark(passed: bool) -> str:
    return "ok" if passed else "FAILED"
