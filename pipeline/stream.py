"""The line: capture, inspect and publish one verdict for every part, until stopped.

SIGTERM and Ctrl-C stop capture, finish what was captured, publish it and say BYE, within three
seconds; SIGTERM then exits with 0 (it was asked to stop), Ctrl-C with 130.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .. import logs
from ..engine.backends.base import BACKEND_CHOICES, Engine
from ..engine.plan import Plan
from .control_port import LineControl
from .interpreter import keep_freed_memory, prefer_short_waits, settle_memory
from .line import run_line
from .line_records import LineSummary
from .publish import Publisher
from .readiness import plan_threshold, teacher_warning
from .station import (
    Station,
    as_yaml,
    camera_settings,
    host_name,
    line_settings,
    load_station,
    with_options,
)
from .station_plans import plan_loader, region_names, station_plans
from .station_taps import health_url, station_taps
from .stopping import notify_systemd, stop_on_signals
from .taps import Tap, TappedOutlet

log = logging.getLogger(__name__)
EXIT_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--camera",
        action="append",
        metavar="[NAME=]URI",
        help="0, /dev/v4l/by-id/..., rtsp://..., aravis:ID, csi:0, gst:PIPELINE, file:VIDEO, "
        "dir:FOLDER, watch:FOLDER, test:seed=1,defect=0.1; may be repeated",
    )
    parser.add_argument("--plan", type=Path, metavar="F", help="the plan")
    parser.add_argument("--station", type=Path, metavar="F", help="station file (YAML)")
    parser.add_argument(
        "--check-config", action="store_true", help="print the resolved station and exit"
    )
    parser.add_argument("--backend", choices=BACKEND_CHOICES, help="inference (default: auto)")
    parser.add_argument(
        "--mode",
        choices=("every", "latest"),
        default=None,
        help="every: each part gets a result, a full queue makes the camera wait; latest: the "
        "newest frame wins (default: latest for live cameras, every for files and test:)",
    )
    parser.add_argument("--events", metavar="URL", help="results (default tcp://127.0.0.1:5555)")
    parser.add_argument("--maps", metavar="URL", help="maps (default tcp://127.0.0.1:5556)")
    parser.add_argument(
        "--map-policy", metavar="ng|all|every:N|none", help="which maps to send (default: ng)"
    )
    parser.add_argument("--journal", metavar="FILE", help="keep all events here, for replay")
    parser.add_argument(
        "--replay", metavar="URL", help="hand out past events here (tcp://...:5557)"
    )
    parser.add_argument(
        "--control", metavar="URL", help="take orders here (tcp://...:5558), see `control`"
    )
    parser.add_argument(
        "--keys", metavar="DIR", help="folder of keys: only clients on its list get in"
    )
    parser.add_argument(
        "--health", metavar="HOST:PORT", help="serve /healthz, /readyz and /metrics here"
    )
    parser.add_argument("--box", default=None, help="name of this box (default: the host's)")
    parser.add_argument("--count", type=_positive_int, default=None, help="stop after N parts")
    parser.add_argument(
        "--wait-subscribers", type=int, default=0, metavar="N", help="start when N are there"
    )
    parser.add_argument(
        "--wait-timeout", type=float, default=30.0, metavar="S", help="for that many seconds"
    )
    parser.add_argument(
        "--deadline-ms", type=float, default=None, help="from capture to socket; later is no pass"
    )
    parser.add_argument(
        "--on-late", choices=("err", "reject"), help="what a late part becomes (default: err)"
    )
    parser.add_argument(
        "--log-format", choices=logs.FORMATS, help="how the log on stderr looks (default: text)"
    )
    parser.add_argument("--json", action="store_true", help="READY and summary as JSON lines")


def run(arguments: argparse.Namespace) -> int:
    station = load_station(arguments.station) if arguments.station else Station()
    station = with_options(station, arguments)
    if station.log_format == "json":
        logs.configure("json")
    cameras = camera_settings(station)
    settings = line_settings(station, arguments)
    box = station.box or host_name()
    if arguments.check_config:
        if station.plan is not None or station.plans:
            station_plans(station, box)
        print(as_yaml(station), end="")
        return 0
    plans, line_plans = station_plans(station, box)
    publisher = Publisher(station.publish, box, regions=region_names(line_plans))
    running: list[LineControl] = []
    taps = station_taps(station, publisher, lambda camera: running[0].threshold(camera))

    def in_control(line: LineControl) -> None:
        running.append(line)
        publisher.control(line)

    prefer_short_waits()
    keep_freed_memory()
    outlet = TappedOutlet(publisher, taps)
    with stop_on_signals() as stop:
        summary = run_line(
            cameras,
            line_plans,
            outlet,
            settings,
            stop.event,
            on_ready=lambda engines: _announce(arguments, plans, engines, publisher, taps),
            on_alive=partial(notify_systemd, "WATCHDOG=1"),
            on_control=in_control,
            load_plan=plan_loader(station, box),
            on_admitted=outlet.on_admitted,
            on_refused=outlet.on_refused,
        )
    _print_summary(summary, arguments.json)
    return EXIT_INTERRUPTED if stop.signal == signal.SIGINT else 0


def _announce(
    arguments: argparse.Namespace,
    plans: Sequence[Plan],
    engines: Sequence[Engine],
    publisher: Publisher,
    taps: Sequence[Tap],
) -> None:
    settle_memory()
    notify_systemd("READY=1")
    for warning in dict.fromkeys(teacher_warning(plan.manifest) for plan in plans):
        if warning:
            log.warning("%s", warning)
    facts = [_facts(plan, engine) for plan, engine in zip(plans, engines, strict=True)]
    if arguments.json:
        ready = {
            "ready": True,
            **facts[0],
            "plans": facts,
            "events": publisher.events_endpoint,
            "maps": publisher.maps_endpoint,
            "replay": publisher.replay_endpoint,
            "control": publisher.control_endpoint,
            "health": health_url(taps),
            "boot": publisher.boot,
            "pid": os.getpid(),
        }
        print(json.dumps(ready), flush=True)
        return
    for one in facts:
        print(
            f"READY plan {one['plan']} ({str(one['digest'])[:19]}) on {one['backend']}, threshold "
            f"{one['threshold']:.4f} (revision {one['revision']}), teacher {one['teacher']}; "
            f"events {publisher.events_endpoint}, maps {publisher.maps_endpoint}",
            flush=True,
        )


def _facts(plan: Plan, engine: Engine) -> dict[str, object]:
    threshold = plan_threshold(plan)
    return {
        "plan": plan.manifest.name,
        "digest": plan.digest,
        "backend": engine.description,
        "threshold": threshold.value,
        "revision": threshold.revision,
        "teacher": plan.manifest.teacher.kind,
    }


def _print_summary(summary: LineSummary, as_json: bool) -> None:
    counts, balance, total = summary.verdicts, summary.balance, summary.latency["total"]
    rate = summary.parts / summary.seconds if summary.seconds > 0 else 0.0
    if as_json:
        line = {
            "parts": summary.parts,
            **counts,
            "dropped": balance.dropped_total,
            "p50_ms": total.p50_us / 1e3,
            "p99_ms": total.p99_us / 1e3,
            "parts_per_s": round(rate, 2),
            "seconds": round(summary.seconds, 3),
            "ended_by": summary.ended_by,
            "balanced": balance.balanced,
        }
        print(json.dumps(line), flush=True)
        return
    print(
        f"{summary.ended_by}: {summary.parts} parts: {counts['ok']} ok, {counts['ng']} ng, "
        f"{counts['review']} review, {counts['err']} err; {balance.dropped_total} dropped; capture "
        f"to publish p50 {total.p50_us / 1e3:.1f} ms, p99 {total.p99_us / 1e3:.1f} ms; "
        f"{rate:.1f} parts/s",
        flush=True,
    )


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
