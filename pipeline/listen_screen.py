"""The on-site doctor's screen: everything that tells camera, box and network apart. Pure text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from .diagnosis import Diagnosis, Findings
from .listen_view import TABLE_HEAD, Tally, answers_line, quantiles
from .stream_check import Gap, StreamStatus
from .topics import VERDICTS
from .wire_messages import HeartbeatHeader

_SHOWN_GAPS = 4
_SHOWN_CAMERAS = 8
_STAGES = ("cap", "queue", "pre", "infer", "post", "pub", "total")


def screen(rows: Iterable[str], doctor: list[str]) -> list[str]:
    """The newest results above the doctor's lines."""
    return [TABLE_HEAD, *rows, "", *doctor]


def doctor_lines(
    found: Findings, said: Diagnosis, tally: Tally, gaps: tuple[Gap, ...], now_ns: int
) -> list[str]:
    """One line for each question; the last two are the diagnosis and what to do."""
    status, beat = found.status, found.heartbeat
    lines = [
        answers_line(status),
        f"box        {_box(beat)}",
        f"heartbeat  {_heartbeat(status, beat)} | {_clock(found)} | {_late(status)}",
    ]
    lines += _cameras(beat)
    lines += [
        f"drops      {_drops(beat)}",
        f"latency    {_latency(beat, tally)}",
        f"results    {_results(tally, now_ns)}",
        f"missing    {_missing(status, tally, gaps, found)}",
        f"alarms     {_alarms(beat, tally)}",
        f"DIAGNOSIS  {said.line}",
        f"           {said.advice}".rstrip(),
    ]
    return lines


def doctor_json(
    found: Findings, said: Diagnosis, tally: Tally, gaps: tuple[Gap, ...], now_ns: int
) -> dict[str, Any]:
    """The same for programs: plain values."""
    status = found.status
    p50, p99 = quantiles(tally.total_ms)
    return {
        "where": said.where,
        "diagnosis": said.text,
        "advice": said.advice,
        "act": status.ok,
        **{name: getattr(status, name) for name in ("alive", "fresh", "contiguous", "valid")},
        "state": status.state,
        "link": found.link,
        "reach": found.reach,
        "silent_ms": status.silent_ms,
        "age_ms": status.age_ms,
        "clock_apart_ms": found.clock_apart_ms,
        "last_seq": status.last_seq,
        "missing": [[gap.first, gap.last] for gap in gaps],
        "fetched": found.fetched,
        "gone": found.gone,
        "malformed": found.malformed,
        "restarts": status.restarts,
        "results": tally.results,
        "verdicts": dict(tally.verdicts),
        "rate_hz": tally.rate_hz(now_ns),
        "latency_ms": {"p50": p50, "p99": p99},
        "recent_alarms": [msgspec.to_builtins(alarm) for alarm in tally.alarms],
        "heartbeat": None if found.heartbeat is None else msgspec.to_builtins(found.heartbeat),
    }


def _box(beat: HeartbeatHeader | None) -> str:
    if beat is None:
        return "not heard yet"
    backend = f", {beat.health.backend}" if beat.health.backend else ""
    return f"{beat.box}, up {_duration(beat.health.uptime_s)}, boot {beat.boot[:8]}{backend}"


def _heartbeat(status: StreamStatus, beat: HeartbeatHeader | None) -> str:
    if status.silent_ms is None or beat is None:
        return "none yet"
    return f"every {beat.period_ms} ms, last sign {status.silent_ms / 1000:.1f} s ago"


def _clock(found: Findings) -> str:
    apart = found.clock_apart_ms
    if apart is None:
        return "clocks not compared"
    side = "behind" if apart > 0 else "ahead of"
    return f"its clock {abs(apart):.0f} ms {side} ours"


def _late(status: StreamStatus) -> str:
    return "" if status.age_ms is None else f"newest message {status.age_ms:.0f} ms late"


def _cameras(beat: HeartbeatHeader | None) -> list[str]:
    if beat is None or not beat.health.cams:
        return ["cameras    none heard of"]
    lines: list[str] = []
    for name, camera in sorted(beat.health.cams.items())[:_SHOWN_CAMERAS]:
        age = camera.last_age_ms
        last = "no frame yet" if age is None else f"last frame {age / 1000:.1f} s before"
        detail = f", {camera.detail}" if camera.detail else ""
        lines.append(
            f"{'cameras' if not lines else '':9}  {name}: {camera.state}, {camera.admitted} parts, "
            f"{last}, {camera.reconnects} reconnects{detail}"
        )
    left = len(beat.health.cams) - len(lines)
    return lines + ([f"           and {left} more"] if left else [])


def _drops(beat: HeartbeatHeader | None) -> str:
    if beat is None:
        return "-"
    drops = ", ".join(f"{cause} {count}" for cause, count in sorted(beat.health.drops.items()))
    balance = beat.health.balance
    return (
        f"{drops or 'none'} | in {balance.admitted} = results {balance.results} "
        f"+ dropped {balance.dropped} + pending {balance.pending}"
    )


def _latency(beat: HeartbeatHeader | None, tally: Tally) -> str:
    p50, p99 = quantiles(tally.total_ms)
    stages = {} if beat is None else beat.health.lat_us
    by_stage = " ".join(
        f"{name} {stages[name].p50 / 1000:.1f}/{stages[name].p99 / 1000:.1f}"
        for name in _STAGES
        if name in stages
    )
    since = f" | since start, p50/p99: {by_stage}" if by_stage else ""
    return f"heard here p50 {p50:.1f} p99 {p99:.1f} ms{since}"


def _results(tally: Tally, now_ns: int) -> str:
    verdicts = " ".join(f"{name} {tally.verdicts[name]}" for name in VERDICTS)
    return f"{tally.rate_hz(now_ns):.1f}/s | {verdicts}"


def _missing(status: StreamStatus, tally: Tally, gaps: tuple[Gap, ...], found: Findings) -> str:
    numbers = [
        str(gap.first) if gap.count == 1 else f"{gap.first}-{gap.last}"
        for gap in gaps[:_SHOWN_GAPS]
    ]
    more = " ..." if len(gaps) > _SHOWN_GAPS else ""
    which = f" ({', '.join(numbers)}{more})" if numbers else ""
    odd = f", {found.malformed} malformed" if found.malformed else ""
    return (
        f"{status.missing}{which}, fetched {tally.fetched}, gone {tally.gone}, "
        f"restarts {status.restarts}{odd}"
    )


def _alarms(beat: HeartbeatHeader | None, tally: Tally) -> str:
    now = "-" if beat is None else ", ".join(map(str, beat.alarms)) or "none"
    last = [
        f"{'on ' if alarm.active else 'off'} {alarm.code} {alarm.name}"
        + (f" {alarm.cam}" if alarm.cam is not UNSET else "")
        for alarm in reversed(tally.alarms)
    ]
    return f"active {now}" + (f" | newest: {'; '.join(last[:2])}" if last else "")


def _duration(seconds: float) -> str:
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min {int(seconds) % 60} s" if minutes else f"{int(seconds)} s"
