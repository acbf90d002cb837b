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
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ..engine.atomic import write_atomically
from ..engine.backends.base import BACKEND_CHOICES, Engine, open_engine
from ..engine.images import write_png
from ..engine.plan import Plan, load_plan
from ..errors import CameraError, ConfigError
from .admission import Ticket
from .capture.base import frame_of
from .capture.still_folder import find_images, read_shot
from .clock import SYSTEM_CLOCK, Clock
from .judge import judge, result_of, warm_up
from .overlay import draw_overlay
from .readiness import teacher_warning
from .records import Frame, Result, Verdict
from .rulebook import Rulebook
from .station import Station, StationCamera, camera_names, host_name, load_station
from .station_plans import station_plans
from .view import View

log = logging.getLogger(__name__)
EXIT_UNREADABLE = 2
CAMERA = "inspect"
COLUMNS = ("name", "verdict", "score", "threshold", "reasons", "defects", "detail", "overlay")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, metavar="F", help="the plan (or the station's)")
    parser.add_argument(
        "--station", type=Path, metavar="F", help="see the files as a camera of this station does"
    )
    parser.add_argument("--camera", metavar="NAME", help="which camera's regions and correction")
    parser.add_argument(
        "--corrected",
        action="store_true",
        help="the files come from the archive: corrected already, do not do it twice",
    )
    parser.add_argument(
        "images", type=Path, nargs="+", metavar="IMAGES", help="image files or folders"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write overlays and results.csv")
    parser.add_argument("--backend", choices=BACKEND_CHOICES, default="auto", help="inference")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", help="a CSV table")


def run(arguments: argparse.Namespace) -> int:
    plan, seen = seen_by(arguments)
    files = list_files(arguments.images)
    warning = teacher_warning(plan.manifest)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    counts = dict.fromkeys((verdict.value for verdict in Verdict), 0)
    with open_engine(plan, arguments.backend) as engine:
        warm_up(engine, runs=1)
        inspected = inspect_files(engine, seen, files)
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


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """As which camera the files are seen, and by what they are judged."""

    camera: str
    view: View
    rulebook: Rulebook


def seen_by(arguments: argparse.Namespace) -> tuple[Plan, Seen]:
    """The plan and the camera that the options name, as `stream` would have them.

    Raises what is wrong with either, as `stream` does.
    """
    station = load_station(arguments.station) if arguments.station else Station()
    if arguments.plan is not None:
        station = msgspec.structs.replace(station, plan=str(arguments.plan))
    if arguments.station is None:
        name = arguments.camera or CAMERA
        whose = None if arguments.plan is None or arguments.camera else _only_camera(arguments.plan)
        camera = StationCamera(uri="dir:.", name=name, identity=whose)
    else:
        name, camera = _station_camera(station, arguments.camera)
    if arguments.plan is not None:
        camera = msgspec.structs.replace(camera, plan=None)
    one = msgspec.structs.replace(station, cameras=(camera,), backend=arguments.backend)
    (plan,), (line_plan,) = station_plans(one, station.box or host_name())
    assert line_plan.views is not None, "a station's plans have a view of each camera"
    view = line_plan.views[name]
    if arguments.corrected and view.correction is not None:
        view = replace(view, correction=view.correction.scale_only())
    return plan, Seen(name, view, Rulebook(line_plan.threshold, line_plan.model))


def _only_camera(path: Path) -> str | None:
    """Files name no camera: they are taken for those of the only one that the plan is for."""
    manifest = load_plan(path).manifest
    named = {one.camera for one in manifest.regions}
    named |= set() if manifest.threshold is None else {manifest.threshold.camera}
    cameras = sorted(named - {""})
    if len(cameras) > 1:
        raise ConfigError(
            f"{path} is for several cameras", f"--camera, one of {', '.join(cameras)}"
        )
    return cameras[0] if cameras else None


def _station_camera(station: Station, wanted: str | None) -> tuple[str, StationCamera]:
    named = dict(zip(camera_names(station), station.cameras, strict=True))
    if wanted is None and len(named) == 1:
        return next(iter(named.items()))
    if wanted not in named:
        raise ConfigError(
            f"the station has no camera '{wanted}'" if wanted else "which camera is meant?",
            f"--camera, one of {', '.join(named)}",
        )
    return wanted, msgspec.structs.replace(named[wanted], name=wanted)


def inspect_files(
    engine: Engine,
    seen: Seen,
    files: Iterable[tuple[Path, str]],
    clock: Clock = SYSTEM_CLOCK,
) -> Iterator[tuple[Frame, Result]]:
    """Each file with its one result, in order; an unreadable file gives an `err`."""
    for number, (path, name) in enumerate(files, start=1):
        frame = frame_of(read_shot(path, name, number, clock), seen.camera, number)
        ticket = Ticket(frame, clock.mono_ns())
        judged = judge(engine, seen.rulebook, lambda camera: seen.view, [ticket], clock)[0]
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
                    "region": defect.region,
                    "score": defect.score,
                    "threshold": defect.threshold,
                    "area_px": defect.area_px,
                    "area_mm2": defect.area_mm2,
                    "bbox_px": defect.bbox_px,
                    "peak_px": defect.peak_px,
                    "contour_px": defect.contour_px,
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
    for _, result in inspected:
        overlay = ""
        if out is not None and result.pixels is not None:
            # The suffix stays in the name: a.png and a.jpg are two parts.
            path = out / "overlays" / f"{result.name}.{result.verdict.value}.png"
            write_png(path, draw_overlay(result.pixels, result))
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
    # A file's name need not be UTF-8: its bytes go into the table as they are.
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))
