"""The metrics of a line in the text format of Prometheus (exposition format 0.0.4). Pure.

METRICS is the contract: names and labels are stable, docs/health.md shows this table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from msgspec import UNSET, UnsetType

from ..alarms import ALARM_BY_CODE
from ..topics import VERDICTS
from ..wire_messages import CameraFields, QuantileFields
from .snapshot import Snapshot, not_ready, unhealthy

GATE_OUTCOMES = ("passed", "rejected", "missing", "late", "mismatched", "missed", "unplaced")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Kind = Literal["gauge", "counter", "summary"]


class Metric(NamedTuple):
    """One row of the table in docs/health.md."""

    name: str
    kind: Kind
    labels: str
    help: str


METRICS = (
    Metric("skrd4ad_info", "gauge", "box version backend boot", "always 1; who this is"),
    Metric("skrd4ad_healthy", "gauge", "", "1 while every stage makes progress (/healthz)"),
    Metric("skrd4ad_ready", "gauge", "", "1 while verdicts may be acted on (/readyz)"),
    Metric("skrd4ad_state", "gauge", "state", "1 for the state the line is in"),
    Metric("skrd4ad_uptime_seconds", "gauge", "", "since the line began"),
    Metric("skrd4ad_snapshot_age_seconds", "gauge", "", "age of everything below"),
    Metric("skrd4ad_parts_admitted_total", "counter", "", "parts that entered"),
    Metric("skrd4ad_parts_pending", "gauge", "", "parts without a result so far"),
    Metric("skrd4ad_parts_dropped_total", "counter", "cause", "frames never judged, stage:cause"),
    Metric("skrd4ad_parts_unaccounted", "gauge", "", "admitted - results - dropped - pending; 0"),
    Metric("skrd4ad_results_total", "counter", "camera verdict", "results: ok, ng, review, err"),
    Metric("skrd4ad_uninspected_total", "counter", "camera reason", "err results by reason"),
    Metric(
        "skrd4ad_latency_seconds",
        "summary",
        "camera stage quantile",
        "time per part and stage since boot; stage total is capture to socket",
    ),
    Metric("skrd4ad_latency_max_seconds", "gauge", "camera stage", "the slowest part since boot"),
    Metric("skrd4ad_camera_delivers", "gauge", "camera", "1: sends frames or waits for triggers"),
    Metric("skrd4ad_camera_frames_total", "counter", "camera", "frames admitted"),
    Metric("skrd4ad_camera_reopened_total", "counter", "camera", "times it was lost and came back"),
    Metric("skrd4ad_camera_frame_age_seconds", "gauge", "camera", "since the last frame"),
    Metric("skrd4ad_alarm_active", "gauge", "code name camera", "1 for each active alarm"),
    Metric("skrd4ad_drift_ng_rate", "gauge", "camera", "share of rejects, weighted to the last"),
    Metric("skrd4ad_orders_refused_total", "counter", "camera", "triggers that were refused"),
    Metric("skrd4ad_pictures_unclaimed_total", "counter", "camera", "pictures of no trigger"),
    Metric("skrd4ad_gate_parts_total", "counter", "camera outcome", "what the reject gate did"),
    Metric("skrd4ad_drift_score", "gauge", "camera", "median score of the last ok parts"),
    Metric("skrd4ad_drift_brightness", "gauge", "camera", "median grey level, 0 to 255"),
    Metric("skrd4ad_drift_saturated", "gauge", "camera", "median share of saturated pixels"),
    Metric("skrd4ad_drift_sharpness", "gauge", "camera", "median sharpness"),
    Metric("process_cpu_seconds_total", "counter", "", "CPU time of the line's process"),
    Metric("process_resident_memory_bytes", "gauge", "", "memory of the line's process"),
    Metric("process_threads", "gauge", "", "threads of the line's process"),
    Metric("process_open_fds", "gauge", "", "open files and sockets of the line's process"),
)
STATES = ("STARTING", "RUNNING", "DEGRADED", "DRAINING", "BYE")
DRIFTS = ("ng_rate", "score", "brightness", "saturated", "sharpness")


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: `suffix` is appended to the metric's name (a summary's _sum and _count)."""

    metric: str
    value: float
    labels: Mapping[str, str]
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What the line's process takes; None where the system does not say."""

    cpu_s: float | None = None
    resident_bytes: int | None = None
    threads: int | None = None
    open_files: int | None = None


def render(snapshot: Snapshot, age_s: float, process: ProcessUse | None = None) -> str:
    """All metrics that have a value, each with its HELP and TYPE."""
    by_metric: dict[str, list[Sample]] = {}
    for sample in _samples(snapshot, age_s, process or ProcessUse()):
        by_metric.setdefault(sample.metric, []).append(sample)
    lines: list[str] = []
    for metric in METRICS:
        samples = by_metric.pop(metric.name, [])
        if samples:
            lines += [
                f"# HELP {metric.name} {_escaped(metric.help)}",
                f"# TYPE {metric.name} {metric.kind}",
            ]
            lines += [_line(sample) for sample in samples]
    assert not by_metric, f"not in METRICS: {sorted(by_metric)}"
    return "\n".join(lines) + "\n"


def _samples(snapshot: Snapshot, age_s: float, process: ProcessUse) -> Iterator[Sample]:
    health, balance = snapshot.health, snapshot.health.balance
    who = {"box": snapshot.box, "version": snapshot.version, "boot": snapshot.boot}
    plain: dict[str, float | None] = {
        "skrd4ad_healthy": not unhealthy(snapshot, age_s),
        "skrd4ad_ready": not not_ready(snapshot, age_s),
        "skrd4ad_uptime_seconds": health.uptime_s,
        "skrd4ad_snapshot_age_seconds": age_s,
        "skrd4ad_parts_admitted_total": balance.admitted,
        "skrd4ad_parts_pending": balance.pending,
        "skrd4ad_parts_unaccounted": (
            balance.admitted - balance.results - balance.dropped - balance.pending
        ),
        "process_cpu_seconds_total": process.cpu_s,
        "process_resident_memory_bytes": process.resident_bytes,
        "process_threads": process.threads,
        "process_open_fds": process.open_files,
    }
    yield Sample("skrd4ad_info", 1, {**who, "backend": health.backend})
    for name, value in plain.items():
        if value is not None:
            yield Sample(name, float(value), {})
    for state in STATES:
        yield Sample("skrd4ad_state", float(state == snapshot.state), {"state": state})
    for cause, count in sorted(health.drops.items()):
        yield Sample("skrd4ad_parts_dropped_total", count, {"cause": cause})
    for camera, counts in sorted(snapshot.results.items()):
        for verdict in VERDICTS:
            labels = {"camera": camera, "verdict": verdict}
            yield Sample("skrd4ad_results_total", getattr(counts, verdict), labels)
    for camera, reasons in sorted(snapshot.reasons.items()):
        for reason, count in sorted(reasons.items()):
            yield Sample("skrd4ad_uninspected_total", count, {"camera": camera, "reason": reason})
    for camera, fields in sorted(health.cams.items()):
        yield from _camera_samples(camera, fields)
    if not isinstance(health.gates, UnsetType):
        for camera, gate in sorted(health.gates.items()):
            for outcome in GATE_OUTCOMES:
                labels = {"camera": camera, "outcome": outcome}
                yield Sample("skrd4ad_gate_parts_total", getattr(gate, outcome), labels)
    for code, camera in snapshot.alarms:
        labels = {"code": str(code), "name": ALARM_BY_CODE[code].name, "camera": camera}
        yield Sample("skrd4ad_alarm_active", 1, labels)


def _camera_samples(camera: str, fields: CameraFields) -> Iterator[Sample]:
    label = {"camera": camera}
    yield Sample("skrd4ad_camera_delivers", float(fields.delivers is True), label)
    yield Sample("skrd4ad_camera_frames_total", fields.admitted, label)
    yield Sample("skrd4ad_camera_reopened_total", fields.reconnects, label)
    if fields.last_age_ms is not None:
        yield Sample("skrd4ad_camera_frame_age_seconds", fields.last_age_ms / 1e3, label)
    if not isinstance(fields.lat_us, UnsetType):
        for stage, quantiles in fields.lat_us.items():
            yield from _latency_samples({**label, "stage": stage}, quantiles)
    if not isinstance(fields.refused, UnsetType):
        yield Sample("skrd4ad_orders_refused_total", fields.refused, label)
    if not isinstance(fields.unclaimed, UnsetType):
        yield Sample("skrd4ad_pictures_unclaimed_total", fields.unclaimed, label)
    if not isinstance(fields.drift, UnsetType):
        for name in DRIFTS:
            value = getattr(fields.drift, name)
            if value is not None:
                yield Sample(f"skrd4ad_drift_{name}", value, label)


def _latency_samples(labels: dict[str, str], quantiles: QuantileFields) -> Iterator[Sample]:
    name = "skrd4ad_latency_seconds"
    for quantile in ("0.5", "0.9", "0.99"):
        value_us = {"0.5": quantiles.p50, "0.9": quantiles.p90, "0.99": quantiles.p99}[quantile]
        yield Sample(name, value_us / 1e6, {**labels, "quantile": quantile})
    if quantiles.sum is not UNSET:
        yield Sample(name, float(quantiles.sum) / 1e6, labels, "_sum")
    yield Sample(name, quantiles.n, labels, "_count")
    yield Sample("skrd4ad_latency_max_seconds", quantiles.max / 1e6, labels)


def _line(sample: Sample) -> str:
    labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
    braces = f"{{{labels}}}" if labels else ""
    value = sample.value
    number = str(int(value)) if float(value).is_integer() else repr(float(value))
    return f"{sample.metric}{sample.suffix}{braces} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
