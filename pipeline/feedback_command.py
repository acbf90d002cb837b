"""Propose a threshold from what operators found (journal), never apply it.

Reads a box's journal, also while the line writes it: every inspected part with its score, and the
operators' marks. Prints what the present threshold and the proposed one do with these parts.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np

from ..built_types import built
from ..calibration.feedback import (
    MARKED_NG,
    MARKED_OK,
    UNMARKED,
    InspectedParts,
    Proposal,
    propose_threshold,
)
from ..engine.plan import load_plan
from ..errors import CalibrationError, ConfigError
from .journal_store import JournalStore

_MARKS = {None: UNMARKED, "ok": MARKED_OK, "ng": MARKED_NG}


class _Model(msgspec.Struct):
    plan: str = ""
    name: str = ""


class _Judged(msgspec.Struct):
    """What a proposal needs of a result's header."""

    thr: float | None = None
    model: _Model = msgspec.field(default_factory=_Model)


@dataclass(frozen=True, slots=True, eq=False)
class JudgedParts:
    """The parts of one plan in the journal, and the threshold that judged the newest of them."""

    parts: InspectedParts
    threshold: float
    plan: str
    model: str
    of_other_plans: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--journal", type=Path, required=True, metavar="FILE", help="the box's")
    parser.add_argument(
        "--plan", type=Path, help="count only parts it judged (default: the newest part's plan)"
    )
    parser.add_argument("--camera", metavar="NAME", help="only this camera's parts")
    parser.add_argument(
        "--since", metavar="TIME", help="only parts since then, such as 2026-05-01T06:00 (UTC)"
    )
    parser.add_argument(
        "--false-reject-rate", type=float, default=0.01, help="target share of good parts rejected"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Read, propose, print. Nothing is changed."""
    digest = load_plan(arguments.plan).digest if arguments.plan is not None else None
    since_ns = 0 if arguments.since is None else utc_ns(arguments.since)
    judged = read_parts(arguments.journal, digest, since_ns, arguments.camera)
    proposal = propose_threshold(judged.parts, judged.threshold, arguments.false_reject_rate)
    if arguments.json:
        origin = {"plan": judged.plan, "model": judged.model, "other": judged.of_other_plans}
        print(json.dumps({**origin, **asdict(proposal)}))
    else:
        print(as_table(judged, proposal))
    return 0


def read_parts(path: Path, plan: str | None, since_ns: int, camera: str | None) -> JudgedParts:
    """The inspected parts of `plan` (a digest; None: that of the newest part) in a journal.

    Raises ConfigError for a file that is no journal, CalibrationError when it holds no such part.
    """
    if not path.is_file():
        raise ConfigError(f"there is no journal {path}", "skrd4ad-stream --journal FILE keeps one")
    decode = msgspec.json.Decoder(built(_Judged)).decode
    try:
        store = JournalStore(path, read_only=True)
        try:
            rows = [(row, decode(row.header)) for row in store.inspected(since_ns, camera)]
        finally:
            store.close()
    except (sqlite3.Error, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a journal: {error}") from error
    if plan is None and rows:
        plan = rows[-1][1].model.plan
    chosen = [(row, header) for row, header in rows if header.model.plan == plan]
    if not chosen:
        raise CalibrationError(
            f"{path} holds no inspected parts of this plan, camera and time",
            f"it has {len(rows)} of other plans" if rows else "let the line run with --journal",
        )
    newest = chosen[-1][1]
    if newest.thr is None:
        raise CalibrationError("the newest part was judged without a threshold of the whole image")
    parts = InspectedParts(
        score=np.array([row.score for row, _ in chosen], np.float64),
        rejected=np.array([row.verdict != "ok" for row, _ in chosen], np.bool_),
        mark=np.array([_MARKS[row.truth] for row, _ in chosen], np.uint8),
    )
    return JudgedParts(
        parts, newest.thr, newest.model.plan, newest.model.name, len(rows) - len(chosen)
    )


def as_table(judged: JudgedParts, proposal: Proposal) -> str:
    """The proposal for the terminal."""
    rate = proposal.target_false_reject_rate
    lines = [
        f"{judged.model} ({judged.plan[:19]}): {proposal.n_parts} inspected parts",
        f"  taken as good   {proposal.n_good} (an operator said so of {proposal.n_good_marked}, "
        "the line passed the others)",
        f"  called defective {proposal.n_bad}",
        f"  rejected, unseen {proposal.n_unseen_rejects} (neither good nor defective here)",
    ]
    if judged.of_other_plans:
        lines.append(f"  of other plans   {judged.of_other_plans} (not counted)")
    lines.append(f"  {'':10} {'threshold':>10}  false rejects (95 %)          escapes (95 %)")
    for row in proposal.outcomes:
        low, high = row.false_reject_interval
        rejects = f"{row.false_rejects:5} {row.false_reject_rate:7.2%} ({low:.2%} - {high:.2%})"
        if row.escape_rate is None:
            escapes = "unknown: nobody marked a defect"
        else:
            low, high = row.escape_interval
            escapes = f"{row.escapes:4} {row.escape_rate:7.2%} ({low:.1%} - {high:.1%})"
        lines.append(f"  {row.name:10} {row.threshold:10.6g}  {rejects:29} {escapes}")
    if not proposal.attained:
        lines.append(
            f"  so few good parts do NOT support {rate:.2%}: the largest score is proposed"
        )
    lines += [
        f"Nothing was changed. To take the proposal ({rate:.2%} false rejects):",
        f"  skrd4ad control threshold {proposal.proposed.threshold:.6g}",
        f"  skrd4ad calibrate threshold --plan F --value {proposal.proposed.threshold:.6g}",
        "Parts that were passed and never looked at count as good: a defect among them that nobody",
        "noticed makes the proposal too high.",
    ]
    unseen = proposal.n_unseen_rejects
    if unseen:
        now, proposed = (
            (row.false_rejects + row.unseen_rejects) / (proposal.n_good + unseen)
            for row in proposal.outcomes[:2]
        )
        lines += [
            f"The {unseen} rejected parts that nobody looked at are left out: a good part among",
            "them makes the proposal too low. Mark them first. If all were good, false rejects",
            f"would be {now:.2%} now and {proposed:.2%} with the proposal.",
        ]
    return "\n".join(lines)


def utc_ns(text: str) -> int:
    """An ISO time, UTC where it names no zone, in nanoseconds since 1970. Raises ConfigError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--since {text} is not a time", "such as 2026-05-01 or 2026-05-01T06:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return int(moment.timestamp()) * 1_000_000_000
