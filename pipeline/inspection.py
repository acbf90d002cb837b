"""Inspect image files or folders offline, through the same code path as the line.

The exit code is 0 when every file was inspected, whatever the verdicts were (they are the answer,
not a failure), and 2 when a file could not be: its row says `err` and why.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..engine.atomic import write_atomically
from ..engine.backends.base import BACKEND_CHOICES, Engine, open_engine
from ..engine.images import write_png
from ..engine.plan import load_plan
from ..engine.spec import Threshold
from ..errors import CameraError, ConfigError
from .admission import Ticket
from .capture.base import frame_of
from .capture.still_folder import find_images, read_shot
from .clock import SYSTEM_CLOCK, Clock
from .judge import judge, result_of, warm_up
from .overlay import draw_overlay
from .readiness import plan_threshold, teacher_warning
from .records import Frame, Result, Verdict

log = logging.getLogger(__name__)
EXIT_UNREADABLE = 2
CAMERA = "inspect"
COLUMNS = ("name", "verdict", "score", "threshold", "reasons", "defects", "detail", "overlay")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, required=True, metavar="F", help="the plan")
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGES", help="image files or folders"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write overlays and results.csv")
    parser.add_argument("--backend", choices=BACKEND_CHOICES, default="auto", help="inference")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="a CSV table")


def run(arguments: argparse.Namespace) -> int:
    plan = load_plan(arguments.plan)
    threshold = plan_threshold(plan)
    files = list_files(arguments.images)
    warning = teacher_warning(plan.manifest)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    counts = dict.fromkeys((verdict.value for verdict in Verdict), 0)
    with open_engine(plan, arguments.backend) as engine:
        warm_up(engine, runs=1)
        inspected = inspect_files(engine, threshold, files)
        for row in _report(arguments, _with_overlays(inspected, arguments.out)):
            counts[row["verdict"]] += 1
    if not (arguments.json or arguments.csv):
        total = sum(counts.values())
        print(f"{total} images: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
    return EXIT_UNREADABLE if counts["err"] else 0


def list_files(paths: Iterable[Path]) -> list[tuple[Path, str]]:
    """(file, name in the report) for files and folders, folders searched in sorted order.

    Raises ConfigError for a path that does not exist or a folder without images.
    """
    files: list[tuple[Path, str]] = []
    for path in paths:
        try:
            found = find_images(path)
        except CameraError as error:
            raise ConfigError(error.sentence, error.hint) from error
        base = path if path.is_dir() else path.parent
        files.extend((file, file.relative_to(base).as_posix()) for file in found)
    if len({name for _, name in files}) < len(files):
        # Two folders may hold a 000.png each: then only the whole path tells them apart.
        files = [(file, file.resolve().as_posix().lstrip("/")) for file, _ in files]
    return files


def inspect_files(
    engine: Engine,
    threshold: Threshold,
    files: Iterable[tuple[Path, str]],
    clock: Clock = SYSTEM_CLOCK,
) -> Iterator[tuple[Frame, Result]]:
    """Each file with its one result, in order; an unreadable file gives an `err`."""
    for number, (path, name) in enumerate(files, start=1):
        frame = frame_of(read_shot(path, name, number, clock), CAMERA, number)
        judged = judge(engine, threshold, [Ticket(frame, clock.mono_ns())], clock)[0]
        yield frame, result_of(judged, judged.decision, clock.mono_ns())


def as_row(result: Result, overlay: str = "") -> dict[str, str]:
    """One line of the table; a score that does not exist is empty."""
    return {
        "name": result.name or "",
        "verdict": result.verdict.value,
        "score": f"{result.score:.6f}" if math.isfinite(result.score) else "",
        "threshold": f"{result.threshold:.6f}",
        "reasons": " ".join(result.reasons),
        "defects": str(len(result.defects)),
        "detail": result.detail,
        "overlay": overlay,
    }


def as_json(result: Result, overlay: str = "") -> str:
    """One line of JSON; scores with all their digits, null where there is none."""
    return json.dumps(
        {
            "name": result.name,
            "verdict": result.verdict.value,
            "score": result.score if math.isfinite(result.score) else None,
            "threshold": result.threshold,
            "reasons": result.reasons,
            "defects": [
                {
                    "score": defect.score,
                    "area_px": defect.area_px,
                    "bbox_px": defect.bbox_px,
                    "peak_px": defect.peak_px,
                }
                for defect in result.defects
            ],
            "detail": result.detail,
            "overlay": overlay or None,
            "infer_ms": result.latency.infer_us / 1e3,
        }
    )


def _with_overlays(
    inspected: Iterable[tuple[Frame, Result]], out: Path | None
) -> Iterator[tuple[Result, str]]:
    for frame, result in inspected:
        overlay = ""
        if out is not None and frame.pixels is not None:
            # The suffix stays in the name: a.png and a.jpg are two parts.
            path = out / "overlays" / f"{result.name}.{result.verdict.value}.png"
            write_png(path, draw_overlay(frame.pixels, result))
            overlay = str(path)
        yield result, overlay


def _report(
    arguments: argparse.Namespace, results: Iterable[tuple[Result, str]]
) -> Iterator[dict[str, str]]:
    """Print each result as it comes, collect the table, write it at the end."""
    printed = csv.DictWriter(sys.stdout, COLUMNS) if arguments.csv else None
    if printed:
        printed.writeheader()
    rows = []
    for result, overlay in results:
        row = as_row(result, overlay)
        if printed:
            printed.writerow(row)
        elif arguments.json:
            print(as_json(result, overlay), flush=True)
        else:
            note = row["detail"] or ("" if not row["overlay"] else f"-> {row['overlay']}")
            print(f"{row['verdict']:6} {row['score'] or '-':>10}  {row['name']}  {note}".rstrip())
        rows.append(row)
        yield row
    if arguments.out is not None:
        _write_table(arguments.out / "results.csv", rows)


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
