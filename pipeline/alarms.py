"""Alarms: stable numbers a line controller may be programmed against. Never reuse a number."""

from __future__ import annotations

from typing import Literal, NamedTuple

Severity = Literal["warning", "error"]


class Alarm(NamedTuple):
    """One row of the table in docs/wire.md."""

    code: int
    name: str
    severity: Severity
    meaning: str


ALARMS = (
    Alarm(1001, "camera_lost", "error", "a camera delivers no frames; it is being reopened"),
    Alarm(1002, "camera_frozen", "error", "a live camera repeats the same image"),
    Alarm(1003, "camera_stale", "warning", "frames arrive older than allowed"),
    Alarm(1004, "trigger_mismatch", "error", "trigger counter and frames do not agree"),
    Alarm(1005, "camera_changed", "error", "red and blue have changed places after a reopen"),
    Alarm(1006, "camera_blind", "error", "pictures are black, white or without content"),
    Alarm(2001, "engine_failed", "error", "the network cannot be run"),
    Alarm(2002, "reload_failed", "warning", "a new plan was refused; the old one keeps running"),
    Alarm(3001, "parts_dropped", "warning", "frames were dropped before the network saw them"),
    Alarm(3002, "deadline_missed", "warning", "a result was later than the deadline"),
    Alarm(4001, "journal_failed", "error", "events are published but not journalled (disk full?)"),
    Alarm(4002, "journal_set_aside", "warning", "a damaged journal was renamed; a new one began"),
    Alarm(4003, "journal_behind", "warning", "the disk is too slow; events left the journal queue"),
    Alarm(4004, "archive_failed", "error", "images cannot be archived (disk full, or no writer)"),
    Alarm(4005, "archive_behind", "warning", "images came faster than they could be archived"),
    Alarm(5001, "peer_refused", "warning", "a client without a known key tried to connect"),
    Alarm(6001, "tap_failed", "error", "archive, gate, metrics or monitor failed; verdicts go on"),
    Alarm(7001, "score_drift", "warning", "scores of good parts have moved from the calibration's"),
    Alarm(7002, "brightness_drift", "warning", "pictures are brighter or darker than calibrated"),
    Alarm(7003, "saturation_drift", "warning", "more of the picture is saturated than calibrated"),
    Alarm(7004, "sharpness_drift", "warning", "pictures are less sharp than calibrated"),
    Alarm(7005, "ng_rate_high", "warning", "far more parts are rejected than the station expects"),
    Alarm(8001, "gate_missing", "warning", "a part had no verdict at the gate: it was rejected"),
    Alarm(8002, "gate_missed", "error", "the gate could not act in time for a part"),
    Alarm(8003, "gate_mismatch", "error", "a verdict was not the announced part's: rejected"),
    Alarm(8004, "gate_failed", "error", "the gate's output or encoder does not work"),
    Alarm(8005, "gate_held", "error", "the gate was on for too long and was switched off"),
)
ALARM_BY_NAME = {alarm.name: alarm for alarm in ALARMS}
ALARM_BY_CODE = {alarm.code: alarm for alarm in ALARMS}
