"""Which OPC UA variables there are, and what they say. Values in, values out."""

from __future__ import annotations

import datetime
import math
from typing import Any, NamedTuple

import msgspec
from asyncua import ua

from ..topics import VERDICTS
from ..wire import ResultMessage
from .feed import View

_KIND = ua.VariantType
_NEVER = datetime.datetime(1601, 1, 1, tzinfo=datetime.timezone.utc)
EVALUATION = {"ok": 1, "ng": 2, "review": 3, "err": 0}
"""ResultEvaluation of the companion specification: OK, NotOK, NotDecidable, Undefined."""


class Typed(NamedTuple):
    """A variable's type, the value before the first real one, and the object it belongs to."""

    kind: ua.VariantType
    first: Any
    group: str = ""


MACHINE = {
    "Online": Typed(_KIND.Boolean, False),
    "Act": Typed(_KIND.Boolean, False),
    "State": Typed(_KIND.String, ""),
    "Boot": Typed(_KIND.String, ""),
    "AliveCounter": Typed(_KIND.UInt32, 0),
    "LastSequenceNumber": Typed(_KIND.UInt64, 0),
    "MissingEvents": Typed(_KIND.UInt64, 0),
    "DroppedByBridge": Typed(_KIND.UInt64, 0),
    "ActiveAlarms": Typed(_KIND.UInt32, []),
    "CountOk": Typed(_KIND.UInt64, 0),
    "CountNg": Typed(_KIND.UInt64, 0),
    "CountReview": Typed(_KIND.UInt64, 0),
    "CountErr": Typed(_KIND.UInt64, 0),
}
_META, _TIMES, _CONTENT = "ResultMetaData", "ProcessingTimes", "ResultContent"
RESULT = {
    "ResultId": Typed(_KIND.String, "", _META),
    "SequenceNumber": Typed(_KIND.UInt64, 0, _META),
    "IsPartial": Typed(_KIND.Boolean, False, _META),
    "IsSimulated": Typed(_KIND.Boolean, False, _META),
    "PartId": Typed(_KIND.String, "", _META),
    "ProductId": Typed(_KIND.String, "", _META),
    "ExternalRecipeId": Typed(_KIND.String, "", _META),
    "CreationTime": Typed(_KIND.DateTime, _NEVER, _META),
    "ResultEvaluation": Typed(_KIND.Int32, 0, _META),
    "ResultEvaluationCode": Typed(_KIND.Int64, 0, _META),
    "ResultEvaluationDetails": Typed(_KIND.String, "", _META),
    "StartTime": Typed(_KIND.DateTime, _NEVER, _TIMES),
    "EndTime": Typed(_KIND.DateTime, _NEVER, _TIMES),
    "ProcessingDuration": Typed(_KIND.Double, 0.0, _TIMES),
    "Verdict": Typed(_KIND.String, "", _CONTENT),
    "Score": Typed(_KIND.Double, 0.0, _CONTENT),
    "Threshold": Typed(_KIND.Double, 0.0, _CONTENT),
    "Late": Typed(_KIND.Boolean, False, _CONTENT),
    "RegionCount": Typed(_KIND.UInt32, 0, _CONTENT),
    "TriggerNumber": Typed(_KIND.UInt64, 0, _CONTENT),
    "Event": Typed(_KIND.String, "", _CONTENT),
}
EVENT_FIELDS = (
    "ResultId",
    "SequenceNumber",
    "PartId",
    "IsSimulated",
    "CreationTime",
    "ResultEvaluation",
    "ResultEvaluationDetails",
    "Verdict",
    "Score",
    "Threshold",
    "Event",
)


def result_values(message: ResultMessage) -> dict[str, Any]:
    """A value for each variable of RESULT."""
    header = message.header
    return {
        "ResultId": f"{header.boot}-{header.seq}",
        "SequenceNumber": header.seq,
        "IsPartial": False,
        "IsSimulated": header.sim,
        "PartId": header.part.id or "",
        "ProductId": header.model.name,
        "ExternalRecipeId": header.model.plan,
        "CreationTime": _instant(header.t_pub),
        "ResultEvaluation": EVALUATION[header.verdict],
        "ResultEvaluationCode": VERDICTS.index(header.verdict) + 1,
        "ResultEvaluationDetails": ", ".join(header.reason),
        "StartTime": _instant(header.frame.t_cap),
        "EndTime": _instant(header.t_pub),
        "ProcessingDuration": header.lat_us.total / 1000.0,
        "Verdict": header.verdict,
        "Score": math.inf if header.score is None else header.score,
        "Threshold": math.inf if header.thr is None else header.thr,
        "Late": header.frame.late,
        "RegionCount": min(header.n_regions, 2**32 - 1),
        "TriggerNumber": header.part.trigger_seq or 0,
        "Event": msgspec.json.encode(header).decode(),
    }


def machine_values(view: View, now_ns: int, dropped: int, alive: int) -> dict[str, Any]:
    """A value for each variable of MACHINE."""
    beat, status = view.heartbeat, view.status
    counts = {name: 0 if beat is None else getattr(beat.counts, name) for name in VERDICTS}
    return {
        "Online": view.heard(now_ns),
        "Act": view.trusted(now_ns),
        "State": status.state if view.heard(now_ns) else "",
        "Boot": view.boot,
        "AliveCounter": alive & 0xFFFFFFFF,
        "LastSequenceNumber": status.last_seq,
        "MissingEvents": status.missing,
        "DroppedByBridge": dropped,
        "ActiveAlarms": [] if beat is None else [code & 0xFFFFFFFF for code in beat.alarms],
        **{f"Count{name.capitalize()}": count for name, count in counts.items()},
    }


def _instant(unix_ns: int) -> datetime.datetime:
    """The instant in UTC; what lies outside the calendar becomes "never"."""
    try:
        return datetime.datetime.fromtimestamp(unix_ns / 1e9, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return _NEVER
