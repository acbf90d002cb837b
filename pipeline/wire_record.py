"""The 64-byte record: one result as a line controller's program wants it, without a parser.

Little-endian, naturally aligned, `<IHBBQIIqIffHHIIII`; the layout is drawn in docs/wire.md and read
by examples/c. The last four bytes are the CRC-32 (zlib's) of the sixty before them.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

MAGIC = int.from_bytes(b"SKR1", "little")
RECORD_VERSION = 1
LAYOUT = struct.Struct("<IHBBQIIqIffHHIIII")
RECORD_BYTES = 64
assert LAYOUT.size == RECORD_BYTES

VERDICT_CODES = {"none": 0, "ok": 1, "ng": 2, "review": 3, "err": 4}
VERDICT_NAMES = {code: name for name, code in VERDICT_CODES.items()}
FLAG_LATE, FLAG_SIMULATED, FLAG_NOT_EVALUATED, FLAG_ALARM, FLAG_TOGGLE = 1, 2, 4, 8, 16
ALL_FLAGS = 31
U16_MAX, U32_MAX = 0xFFFF, 0xFFFFFFFF


class DecodeError(ValueError):
    """The peer's bytes are not SKRD/1. The only exception that decoding raises."""


@dataclass(frozen=True, slots=True)
class PlcRecord:
    """The fields of the record; names and units as in docs/wire.md."""

    verdict: str
    late: bool
    simulated: bool
    evaluated: bool
    alarm: bool
    toggle: bool
    """Flips with each result, for programs that copy the record into cyclic memory."""
    seq: int
    boot_lo: int
    """The low 32 bits of `boot`."""
    trigger_seq: int
    """Modulo 2^32; 0 when there was no trigger."""
    captured_ns: int
    total_us: int
    score: float
    """float32; +inf when the map was not finite."""
    threshold: float
    region_id: int
    """The worst defect's region in the station's table; 0 none, 65535 not in the table."""
    n_regions: int
    ok_count: int
    ng_count: int
    """Includes `review`: parts that were judged and did not pass."""
    err_count: int


def pack_record(record: PlcRecord) -> bytes:
    """The 64 bytes. Counters wrap at 2^32; the latency and region fields saturate."""
    flags = (
        FLAG_LATE * record.late
        | FLAG_SIMULATED * record.simulated
        | FLAG_NOT_EVALUATED * (not record.evaluated)
        | FLAG_ALARM * record.alarm
        | FLAG_TOGGLE * record.toggle
    )
    body = LAYOUT.pack(
        MAGIC,
        RECORD_VERSION,
        VERDICT_CODES[record.verdict],
        flags,
        record.seq,
        record.boot_lo,
        record.trigger_seq & U32_MAX,
        record.captured_ns,
        min(max(record.total_us, 0), U32_MAX),
        float32(record.score),
        float32(record.threshold),
        min(record.region_id, U16_MAX),
        min(record.n_regions, U16_MAX),
        record.ok_count & U32_MAX,
        record.ng_count & U32_MAX,
        record.err_count & U32_MAX,
        0,
    )[:60]
    return body + struct.pack("<I", zlib.crc32(body))


def unpack_record(raw: bytes) -> PlcRecord:
    """The fields of 64 bytes. Raises DecodeError for a wrong size, magic, version or checksum."""
    if len(raw) != RECORD_BYTES:
        raise DecodeError(f"the record has {len(raw)} bytes instead of {RECORD_BYTES}")
    fields = LAYOUT.unpack(raw)
    magic, version, verdict, flags, seq, boot_lo, trigger, captured_ns, total_us = fields[:9]
    score, threshold, region_id, n_regions, ok_count, ng_count, err_count, crc = fields[9:]
    if magic != MAGIC:
        raise DecodeError("the record does not begin with SKR1")
    if crc != zlib.crc32(raw[:60]):
        raise DecodeError("the record's checksum is wrong")
    if version != RECORD_VERSION:
        raise DecodeError(f"the record has version {version}; this program reads {RECORD_VERSION}")
    if verdict not in VERDICT_NAMES:
        raise DecodeError(f"the record has the unknown verdict {verdict}")
    return PlcRecord(
        verdict=VERDICT_NAMES[verdict],
        late=bool(flags & FLAG_LATE),
        simulated=bool(flags & FLAG_SIMULATED),
        evaluated=not flags & FLAG_NOT_EVALUATED,
        alarm=bool(flags & FLAG_ALARM),
        toggle=bool(flags & FLAG_TOGGLE),
        seq=seq,
        boot_lo=boot_lo,
        trigger_seq=trigger,
        captured_ns=captured_ns,
        total_us=total_us,
        score=score,
        threshold=threshold,
        region_id=region_id,
        n_regions=n_regions,
        ok_count=ok_count,
        ng_count=ng_count,
        err_count=err_count,
    )


def float32(value: float) -> float:
    """A float that struct can pack as 32 bits: NaN and what is too large become infinite.

    A NaN score must compare as "above the threshold" in a controller's program; +inf does.
    """
    if value != value:
        return float("inf")
    if abs(value) > 3.4028234663852886e38:
        return float("inf") if value > 0 else float("-inf")
    return value
