"""Examine a plan in the field: hashes, parity with its stored reference, negative controls.

Needs neither torch nor the run folder. Exit code 4 when anything fails.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import EngineError
from .backends.base import BACKEND_CHOICES, BackendChoice, open_engine
from .check_set import read_check_set
from .plan import Plan, load_plan
from .proof import Examination, Finding, examine, quantisation_text, table_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `skrd4ad verify`."""
    parser.add_argument("--plan", type=Path, required=True, help="plan file")
    parser.add_argument(
        "--backend", choices=BACKEND_CHOICES, default="auto", help="auto: the plan's own"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def run(arguments: argparse.Namespace) -> int:
    """Examine and print; 0 when every finding passed, 4 otherwise."""
    plan = load_plan(arguments.plan)
    examination, description = verify_plan(plan, arguments.backend)
    if arguments.json:
        print(json.dumps(report(plan, examination, description)))
    else:
        _print_report(plan, examination, description)
    return EngineError.exit_code if examination.failed else 0


def verify_plan(plan: Plan, backend: BackendChoice = "auto") -> tuple[Examination, str]:
    """Examine `plan` on this machine; also returns the engine's description.

    Raises PlanError when the plan carries no proof or check images, EngineError when its backend
    cannot run here.
    """
    findings = [_member_hash(plan, name) for name in plan.members()]
    check = read_check_set(plan)
    if not plan.manifest.proof.parity:
        raise EngineError(
            f"{plan.path} carries no proof: it names no reference and no tolerance",
            "compile the plan again",
        )
    with open_engine(plan, backend) as engine:
        found = examine(plan, plan.data, engine, check, plan.manifest.proof.parity[0])
        description = engine.description
    examination = Examination(
        findings=(*findings, *found.findings),
        parity=found.parity,
        negative_controls=found.negative_controls,
        latency_ms_p50=found.latency_ms_p50,
        latency_ms_p99=found.latency_ms_p99,
    )
    return examination, description


def report(plan: Plan, examination: Examination, description: str) -> dict[str, object]:
    """The examination as plain values, for --json."""
    return {
        "plan": str(plan.path),
        "digest": plan.digest,
        "name": plan.manifest.name,
        "engine": description,
        "passed": not examination.failed,
        "findings": [finding._asdict() for finding in examination.findings],
        "latency_ms_p50": examination.latency_ms_p50,
        "latency_ms_p99": examination.latency_ms_p99,
    }


def _member_hash(plan: Plan, name: str) -> Finding:
    size = len(plan.read(name))  # raises when the hash differs
    return Finding(f"hash of {name}", f"{size} bytes intact", "intact", True)


def _print_report(plan: Plan, examination: Examination, description: str) -> None:
    manifest = plan.manifest
    threshold = manifest.threshold
    at_compile = manifest.proof.latency_ms_p50
    print(f"plan       {manifest.name}  {plan.digest[:19]}  made {manifest.created}")
    print(f"network    {manifest.network.backbone}, fusion {manifest.network.fusion}")
    print(f"teacher    {manifest.teacher.kind}: {manifest.teacher.detail}")
    print(f"engine     {description}")
    print(
        f"threshold  {threshold.value:.6g} ({threshold.method}, {threshold.n_normals} good parts)"
        if threshold is not None
        else "threshold  none yet: skrd4ad calibrate threshold --plan ..."
    )
    print(
        f"latency    p50 {examination.latency_ms_p50:.1f} ms, p99"
        f" {examination.latency_ms_p99:.1f} ms (p50 at compile: {at_compile:.1f} ms)"
    )
    print(table_text(examination.findings))
    if manifest.quantisation is not None:
        print(f"{quantisation_text(manifest.quantisation)} (as measured by compile)")
    print("verified" if not examination.failed else f"FAILED: {len(examination.failed)} check(s)")
