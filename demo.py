"""The whole product on rendered parts: render, train, compile, calibrate, evaluate, stream, listen.

Every step is a command that you could type yourself, and is printed before it runs. The folder
given by --out holds all that was made. Exit code 1 when a promised figure is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError, EngineError, NetworkError

CATEGORY = "transistor"
CALIBRATION = "transistor_calibration"
MARKER = ".skrd4ad-demo"
"""A folder with this file was made by the demo and may be made anew."""

N_TRAIN, N_CALIBRATION, N_GOOD, N_PER_DEFECT = 160, 159, 100, 20
"""159 calibration parts: (159 + 1) x 5 % is a whole number, so the guarantee is met exactly."""
FALSE_REJECT_RATE = 0.05
MIN_IMAGE_AUROC = 0.95
MIN_AUPRO = 0.75
SCORE_TOLERANCE = 1e-4
OVERLAYS_PER_KIND = 3

STREAM_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Place:
    """Where the demo keeps what it makes, below one folder."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def test(self) -> Path:
        return self.data / CATEGORY / "test"

    @property
    def calibration(self) -> Path:
        return self.data / CALIBRATION / "train" / "good"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def plan(self) -> Path:
        return self.root / f"{CATEGORY}.plan"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def showcase(self) -> Path:
        return self.root / "showcase"

    @property
    def overlays(self) -> Path:
        return self.root / "overlays"


@dataclass(frozen=True)
class Check:
    """One promise, what was measured, and whether it holds."""

    promise: str
    measured: str
    holds: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="another seed renders other parts")


def run(arguments: argparse.Namespace) -> int:
    started = time.monotonic()
    place = Place(arguments.out)
    _make_folder(place.root)
    for number, (title, command) in enumerate(_commands(place, arguments.seed), start=1):
        _announce(f"{number}. {title}", command)
        _run(command)
        if command[0] == "evaluate":
            _fill_showcase(place)
    summary = _stream(place)
    seconds = time.monotonic() - started

    metrics = json.loads(place.metrics.read_text(encoding="utf-8"))
    events = [json.loads(line) for line in place.events.read_text(encoding="utf-8").splitlines()]
    figures = metrics.get("results", metrics)
    checks = _checks(place, figures, events)
    print("\n" + "\n".join(_table(figures, events, summary)))
    print("\n" + "\n".join(_check_lines(checks)))
    print(
        f"\n{seconds:.0f} s in all on {os.cpu_count()} cores. See {place.report}, "
        f"{place.overlays}{os.sep}, {place.metrics}, {place.events}"
    )
    return 0 if all(check.holds for check in checks) else 1


def _commands(place: Place, seed: int) -> list[tuple[str, list[str]]]:
    """The verbs up to the finished, calibrated plan, with their titles."""
    config = Path(__file__).with_name("configs") / "demo.yaml"
    data = ["--data", str(place.data), "--category", CATEGORY]
    counts = ["--n-train", str(N_TRAIN), "--n-good", str(N_GOOD)]
    counts += ["--n-per-defect", str(N_PER_DEFECT), "--seed", str(seed)]
    rate = ["--false-reject-rate", str(FALSE_REJECT_RATE)]
    plan = ["--plan", str(place.plan)]
    more = ["--n-train", str(N_CALIBRATION), "--n-good", "0", "--n-per-defect", "0"]
    return [
        (
            "Render parts: good ones to learn from; good and defective ones, never shown to the "
            "training, to test on",
            ["render", "--out", str(place.data), "--category", CATEGORY, *counts],
        ),
        (
            "Render more good parts, to choose the threshold on",
            [
                *("render", "--out", str(place.data), "--category", CALIBRATION, *more),
                *("--seed", str(seed + 1)),
            ],
        ),
        (
            "Learn what good parts look like (with a teacher made on the way: no downloads)",
            ["train", *data, "--out", str(place.run), "--config", str(config)],
        ),
        (
            "Compile the run into one proved plan file",
            ["compile", "--run", str(place.run), "--out", str(place.plan)],
        ),
        (
            f"Choose the threshold: at most {FALSE_REJECT_RATE:.0%} of good parts may be rejected",
            ["calibrate", "threshold", *plan, "--images", str(place.calibration), *rate],
        ),
        (
            "Evaluate the plan on the held-out test parts",
            [
                *("evaluate", *plan, *data),
                *("--report", str(place.report), "--json", str(place.metrics)),
            ],
        ),
        (
            "Draw heat maps over some of the test parts",
            ["inspect", *plan, "--out", str(place.root), str(place.showcase)],
        ),
    ]


def _fill_showcase(place: Place) -> None:
    """Copy the first few test parts of each kind into one folder, to be drawn upon."""
    for kind in sorted(place.test.iterdir()):
        for image in sorted(kind.glob("*.png"))[:OVERLAYS_PER_KIND]:
            place.showcase.mkdir(exist_ok=True)
            shutil.copy(image, place.showcase / f"{kind.name}_{image.name}")


def _make_folder(root: Path) -> None:
    """An empty folder of our own; what another demo left there is removed, nothing else ever is."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is not a folder", "choose another --out")
    if root.is_dir() and any(root.iterdir()):
        if not (root / MARKER).is_file():
            raise ConfigError(
                f"{root} holds files that the demo did not make", "choose another --out"
            )
        shutil.rmtree(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / MARKER).touch()
    except OSError as error:
        raise ConfigError(f"cannot write to {root}: {error.strerror}") from error


def _announce(title: str, command: Sequence[str]) -> None:
    print(f"\n== {title}\n   $ skrd4ad {shlex.join(command)}", flush=True)


def _program(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", __package__ or "skrd4ad", *command]


def _run(command: Sequence[str]) -> None:
    """One verb in its own process, its output passed on. Raises EngineError when it fails."""
    code = subprocess.run(_program(command), check=False).returncode
    if code:
        raise EngineError(
            f"the demo stopped: `skrd4ad {command[0]}` ended with exit code {code}",
            "its own message is above",
        )


def _stream(place: Place) -> Mapping[str, Any]:
    """Run the line over the test folder with `listen` as its subscriber; the line's own summary.

    Raises NetworkError when either process fails.
    """
    stream = ["stream", "--camera", f"dir:{place.test}", "--plan", str(place.plan)]
    stream += ["--events", "tcp://127.0.0.1:0", "--maps", "tcp://127.0.0.1:0"]
    stream += ["--wait-subscribers", "1", "--json"]
    _announce("8. Run the line: every test part once, verdicts over ZeroMQ", stream)
    line = subprocess.Popen(_program(stream), stdout=subprocess.PIPE, text=True)
    listener: subprocess.Popen[str] | None = None
    try:
        assert line.stdout is not None
        ready = line.stdout.readline()
        if not ready:
            raise NetworkError(f"the line did not start (exit code {line.wait()})")
        endpoint = str(json.loads(ready)["events"])
        listen = ["listen", "--connect", endpoint, "--json"]
        _announce(f"9. Listen to it, as a line controller would; kept in {place.events}", listen)
        with place.events.open("w", encoding="utf-8") as file:
            listener = subprocess.Popen(_program(listen), stdout=file, text=True)
            rest, _ = line.communicate(timeout=STREAM_TIMEOUT_S)
            heard = listener.wait(timeout=60)
        if line.returncode or heard:
            raise NetworkError(
                f"the line ended with exit code {line.returncode}, the listener with {heard}"
            )
        summary: Mapping[str, Any] = json.loads(rest.strip().splitlines()[-1])
        return summary
    except subprocess.TimeoutExpired as error:
        raise NetworkError(f"the line did not end within {error.timeout:.0f} s") from error
    finally:
        for process in (line, listener):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(timeout=30)


def _checks(
    place: Place, figures: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> list[Check]:
    """Every promise of the demo against what was measured."""
    auroc, aupro = figures["image"]["auroc"], figures["pixel"]["aupro_30"]
    rejects = figures["deployed"]["false_reject"]
    sent = [path.relative_to(place.test).as_posix() for path in sorted(place.test.rglob("*.png"))]
    heard = [str(event["name"]) for event in events]
    counted = [int(event["cam_seq"]) for event in events]
    lost = len(set(range(1, len(sent) + 1)) - set(counted))
    worst = _worst_disagreement(place, figures, events)
    low, high = rejects["low"], rejects["high"]
    return [
        Check(f"image AUROC at least {MIN_IMAGE_AUROC}", f"{auroc:.4f}", auroc >= MIN_IMAGE_AUROC),
        Check(f"AUPRO@0.3 at least {MIN_AUPRO}", f"{aupro:.4f}", aupro >= MIN_AUPRO),
        Check(
            f"the target false-reject rate {FALSE_REJECT_RATE:.0%} is within the 95 % interval",
            f"{rejects['rate']:.1%}, interval {low:.1%} ... {high:.1%}",
            low <= FALSE_REJECT_RATE <= high,
        ),
        Check(
            "one event for every image", f"{len(events)} of {len(sent)}", len(events) == len(sent)
        ),
        Check("in order", "yes" if heard == sent else "no", heard == sent),
        Check("none lost", f"{lost} lost", lost == 0),
        Check(
            f"stream and evaluate agree to {SCORE_TOLERANCE:g} in score",
            f"{worst:.1e}",
            worst <= SCORE_TOLERANCE,
        ),
    ]


def _worst_disagreement(
    place: Place, figures: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> float:
    """Largest difference between an event's score and the evaluation's score of the same image."""
    evaluated = {
        os.path.relpath(entry["path"], place.test).replace(os.sep, "/"): entry["score"]
        for entry in figures["scores"]
    }
    pairs = [(event["score"], evaluated.get(str(event["name"]))) for event in events]
    differences = [math.inf if None in pair else abs(pair[0] - pair[1]) for pair in pairs]
    return max(differences, default=math.inf)


def _table(
    figures: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> list[str]:
    """The final table: a row for each kind of part, then the figures of the whole."""
    verdicts = Counter((str(event["name"]).split("/")[0], event["verdict"]) for event in events)
    lines = [
        "part          images    ok    ng  review   err   image AUROC  AUPRO@0.3",
        _row("good", figures["n_good"], verdicts, "", ""),
    ]
    for row in figures["by_defect"]:
        aupro = row["pixel"]["aupro_30"] if row["pixel"] else math.nan
        lines.append(
            _row(
                row["defect"],
                row["n_images"],
                verdicts,
                f"{row['image_auroc']:.3f}",
                f"{aupro:.3f}",
            )
        )
    auroc, pixel = figures["image"]["auroc"], figures["pixel"]
    defective = figures["n_defective"]
    lines.append(
        _row("all defects", defective, Counter(), f"{auroc:.3f}", f"{pixel['aupro_30']:.3f}")
    )
    reject, escape = figures["deployed"]["false_reject"], figures["deployed"]["escape"]
    return [
        *lines,
        "",
        f"false rejects   {_rate(reject)}, target {FALSE_REJECT_RATE:.0%}",
        f"escapes         {_rate(escape)}",
        f"stream          {summary['parts_per_s']:.1f} parts/s, capture to publish "
        f"p50 {summary['p50_ms']:.1f} ms, p99 {summary['p99_ms']:.1f} ms",
        "                (a folder is read faster than it is inspected: most of that is waiting)",
    ]


def _row(
    kind: str, images: int, verdicts: Mapping[tuple[str, str], int], auroc: str, aupro: str
) -> str:
    counts = [verdicts.get((kind, verdict), 0) for verdict in ("ok", "ng", "review", "err")]
    if not verdicts:
        return f"{kind:12}  {images:6}  {'':26}  {auroc:>11}  {aupro:>9}"
    ok, ng, review, err = counts
    return f"{kind:12}  {images:6}  {ok:4}  {ng:4}  {review:6}  {err:4}   {auroc:>11}  {aupro:>9}"


def _rate(rate: Mapping[str, Any]) -> str:
    return (
        f"{rate['count']} of {rate['total']} = {rate['rate']:.1%} "
        f"(95 % interval {rate['low']:.1%} ... {rate['high']:.1%})"
    )


def _check_lines(checks: Sequence[Check]) -> list[str]:
    return [
        f"{'holds ' if check.holds else 'MISSED'}  {check.promise}: {check.measured}"
        for check in checks
    ]
