"""The registers and bits a plain PLC reads. Pure: what is known in, 16-bit words out.

Block 0 is the box, block i the i-th camera; each has 32 registers and 16 bits. Numbers of 32 bits
take two registers, high word first. docs/bridges.md has the table.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ..topics import VERDICTS
from ..wire import ResultMessage
from .feed import View

MAGIC = 0x534B
LAYOUT = 1
BLOCK_REGISTERS = 32
BLOCK_BITS = 16
STATES = ("", "STARTING", "RUNNING", "DEGRADED", "DRAINING", "BYE")
ALIVE_PERIOD_NS = 100_000_000
_U16 = 0xFFFF
_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Arrived:
    """The newest result of a camera and when it arrived here (monotonic)."""

    message: ResultMessage
    at_ns: int


def bits(view: View, results: Sequence[Arrived | None], now_ns: int, max_age_ns: int) -> list[bool]:
    """16 bits for the box, then 16 for each camera. All that is not known is a reject.

    Box: alive (toggles every 100 ms), valid, box heard, losses to acknowledge.
    Camera: valid, pass, reject, toggle, late, simulated.
    """
    valid = view.trusted(now_ns)
    lines = [bool((now_ns // ALIVE_PERIOD_NS) & 1), valid, view.heard(now_ns)]
    lines.append(view.status.missing > 0)
    block = _padded(lines)
    for arrived in results:
        if arrived is None:
            block += _padded([False, False, True])
            continue
        header = arrived.message.header
        known = valid and now_ns - arrived.at_ns <= max_age_ns
        passed = known and header.verdict == "ok" and not header.frame.late
        block += _padded(
            [
                known,
                passed,
                not passed,
                arrived.message.record.toggle,
                header.frame.late,
                header.sim,
            ]
        )
    return block


def registers(
    view: View, results: Sequence[Arrived | None], now_ns: int, max_age_ns: int
) -> list[int]:
    """32 words for the box, then 32 for each camera."""
    flags = words_of(bits(view, results, now_ns, max_age_ns))
    status, beat = view.status, view.heartbeat
    counts = (0, 0, 0, 0) if beat is None else _counts(beat.counts)
    words = [
        MAGIC,
        LAYOUT,
        (now_ns // ALIVE_PERIOD_NS) & _U16,
        flags[0],
        STATES.index(status.state) if status.state in STATES else 0,
        0 if beat is None else min(len(beat.alarms), _U16),
        0 if beat is None or not beat.alarms else min(min(beat.alarms), _U16),
        len(results),
        *_u32(int(view.boot[-8:] or "0", 16)),
        *_u32(status.last_seq),
        *_u32(status.missing),
        *(word for count in counts for word in _u32(count)),
    ]
    block = words + [0] * (BLOCK_REGISTERS - len(words))
    for number, arrived in enumerate(results, 1):
        block += _camera(flags[number], arrived, now_ns)
    return block


def _camera(flags: int, arrived: Arrived | None, now_ns: int) -> list[int]:
    if arrived is None:
        return [flags] + [0] * (BLOCK_REGISTERS - 1)
    header, record = arrived.message.header, arrived.message.record
    words = [
        flags,
        VERDICTS.index(header.verdict) + 1,
        *_u32(header.seq),
        *_u32(record.trigger_seq),
        *_f32(record.score),
        *_f32(record.threshold),
        *_u32(record.total_us),
        min((now_ns - arrived.at_ns) // 1_000_000, _U16),
        record.region_id,
        record.n_regions,
        0,
        *_u32(header.cam_seq),
    ]
    return words + [0] * (BLOCK_REGISTERS - len(words))


def _counts(counts: object) -> tuple[int, ...]:
    return tuple(getattr(counts, name) for name in VERDICTS)


def _padded(block: list[bool]) -> list[bool]:
    return block + [False] * (BLOCK_BITS - len(block))


def words_of(lines: Sequence[bool]) -> list[int]:
    """16 bits to a word, the first bit in the lowest place."""
    return [
        sum(1 << place for place in range(BLOCK_BITS) if lines[start + place])
        for start in range(0, len(lines), BLOCK_BITS)
    ]


def _u32(value: int) -> tuple[int, int]:
    value &= _U32
    return value >> 16, value & _U16


def _f32(value: float) -> tuple[int, int]:
    high, low = struct.unpack(">HH", struct.pack(">f", math.inf if math.isnan(value) else value))
    return high, low
