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
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

import cv2

from ..engine.backends.base import BACKEND_CHOICES, Engine, open_engine
from ..engine.plan import Plan, load_plan
from ..engine.spec import Threshold
from ..errors import ConfigError
from . import wire_messages as wire
from .admission import Mode
from .capture.uri import CameraUri, is_live, open_source, parse_uri
from .journal import JournalSettings
from .line import LineSettings, LineSummary, run_line
from .publish import Publisher, PublishSettings
from .readiness import plan_threshold, teacher_warning

log = logging.getLogger(__name__)
EXIT_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--camera",
        action="append",
        required=True,
        metavar="[NAME=]URI",
        help="0, /dev/v4l/by-id/..., rtsp://..., file:VIDEO, dir:FOLDER, test:seed=1,defect=0.1; "
        "may be repeated",
    )
    parser.add_argument("--plan", type=Path, required=True, metavar="F", help="the plan")
    parser.add_argument("--backend", choices=BACKEND_CHOICES, default="auto", help="inference")
    parser.add_argument(
        "--mode",
        choices=("every", "latest"),
        default=None,
        help="every: each part gets a result, a full queue makes the camera wait; latest: the "
        "newest frame wins (default: latest for live cameras, every for files and test:)",
    )
    parser.add_argument("--events", default="tcp://127.0.0.1:5555", help="endpoint of the results")
    parser.add_argument("--maps", default="tcp://127.0.0.1:5556", help="endpoint of the maps")
    parser.add_argument(
        "--map-policy", default="ng", metavar="ng|all|every:N|none", help="which maps to send"
    )
    parser.add_argument("--journal", metavar="FILE", help="keep all events here, for replay")
    parser.add_argument(
        "--replay", metavar="URL", help="hand out past events here (tcp://...:5557)"
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
        "--on-late", choices=("err", "reject"), default="err", help="what a late part becomes"
    )
    parser.add_argument("--json", action="store_true", help="READY and summary as JSON lines")


def run(arguments: argparse.Namespace) -> int:
    plan = load_plan(arguments.plan)
    threshold = plan_threshold(plan)
    cameras = _cameras(arguments.camera)
    mode: Mode = arguments.mode or (
        "latest" if any(is_live(uri) for _, uri in cameras) else "every"
    )
    publisher = Publisher(
        PublishSettings(
            events=arguments.events,
            maps=arguments.maps,
            map_policy=arguments.map_policy,
            journal=JournalSettings(path=arguments.journal) if arguments.journal else None,
            replay=arguments.replay,
        ),
        arguments.box or _host_name(),
        model=_model(plan, threshold),
    )
    settings = LineSettings(
        mode=mode,
        part_limit=arguments.count,
        deadline_ms=arguments.deadline_ms,
        on_late=arguments.on_late,
        wait_subscribers=arguments.wait_subscribers,
        wait_timeout_s=arguments.wait_timeout,
    )
    _prefer_short_waits()
    with _stop_on_signals() as stop:
        summary = run_line(
            [(name, partial(open_source, uri)) for name, uri in cameras],
            lambda: open_engine(plan, arguments.backend),
            threshold,
            publisher,
            settings,
            stop.event,
            on_ready=lambda engine: _announce(arguments, plan, threshold, engine, publisher),
        )
    _print_summary(summary, arguments.json)
    return EXIT_INTERRUPTED if stop.signal == signal.SIGINT else 0


def _cameras(texts: list[str]) -> list[tuple[str, CameraUri]]:
    uris = [parse_uri(text) for text in texts]
    names = [uri.name or f"cam{index}" for index, uri in enumerate(uris)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"two cameras are called '{name}'", "give each a name: --camera left=0"
            )
    return list(zip(names, uris, strict=True))


def _model(plan: Plan, threshold: Threshold) -> wire.ModelFields:
    manifest = plan.manifest
    return wire.ModelFields(
        name=manifest.name,
        plan=plan.digest,
        backend=f"{manifest.backend}-{manifest.precision}",
        cal=threshold.created,
        thr_rev=threshold.revision,
    )


def _announce(
    arguments: argparse.Namespace,
    plan: Plan,
    threshold: Threshold,
    engine: Engine,
    publisher: Publisher,
) -> None:
    warning = teacher_warning(plan.manifest)
    if warning:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    if arguments.json:
        ready = {
            "ready": True,
            "plan": plan.manifest.name,
            "digest": plan.digest,
            "backend": engine.description,
            "threshold": threshold.value,
            "teacher": plan.manifest.teacher.kind,
            "events": publisher.events_endpoint,
            "maps": publisher.maps_endpoint,
            "boot": publisher.boot,
            "pid": os.getpid(),
        }
        print(json.dumps(ready), flush=True)
        return
    print(
        f"READY plan {plan.manifest.name} ({plan.digest[:19]}) on {engine.description}, threshold "
        f"{threshold.value:.4f} (revision {threshold.revision}), teacher "
        f"{plan.manifest.teacher.kind}; events {publisher.events_endpoint}, maps "
        f"{publisher.maps_endpoint}",
        flush=True,
    )


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


@dataclass(slots=True)
class _Stop:
    """Set by a signal handler, which may do nothing more than that."""

    event: threading.Event = field(default_factory=threading.Event)
    signal: int | None = None


@contextmanager
def _stop_on_signals() -> Iterator[_Stop]:
    """Ctrl-C and SIGTERM set the stop; a second one ends the process in the ordinary way."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers: tuple[int, int] = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}

    def request(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        stop.event.set()
        signal.signal(number, previous[number])

    for number in previous:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _prefer_short_waits() -> None:
    """Hand the interpreter over every 0.5 ms instead of 5, so that no thread waits for another's
    Python; and keep OpenCV from starting a thread pool beside the engine's."""
    sys.setswitchinterval(0.0005)
    cv2.setNumThreads(1)


def _host_name() -> str:
    name = socket.gethostname().partition(".")[0]
    cleaned = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
    return cleaned.strip("-_")[:63] or "box"


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
