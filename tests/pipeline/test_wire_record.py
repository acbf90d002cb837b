"""The 64-byte record, byte for byte."""

from __future__ import annotations

import dataclasses
import math
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.pipeline.wire_record import (
    VERDICT_CODES,
    DecodeError,
    PlcRecord,
    pack_record,
    unpack_record,
)

RECORD = PlcRecord(
    verdict="ng",
    late=True,
    simulated=False,
    evaluated=True,
    alarm=False,
    toggle=True,
    seq=123456,
    boot_lo=0x615F4C92,
    trigger_seq=4711,
    captured_ns=1795479736190464000,
    total_us=6448,
    score=0.8125,
    threshold=0.5,
    region_id=1,
    n_regions=2,
    ok_count=1000,
    ng_count=20,
    err_count=3,
)


def test_every_field_lies_where_the_documentation_says() -> None:
    raw = pack_record(RECORD)
    assert len(raw) == 64
    assert raw[0:4] == b"SKR1"
    assert raw[4:6] == (1).to_bytes(2, "little")
    assert raw[6] == 2
    assert raw[7] == 0b10001
    assert raw[8:16] == (123456).to_bytes(8, "little")
    assert raw[16:20] == bytes.fromhex("924c5f61")
    assert raw[20:24] == (4711).to_bytes(4, "little")
    assert raw[24:32] == (1795479736190464000).to_bytes(8, "little")
    assert raw[32:36] == (6448).to_bytes(4, "little")
    assert raw[36:40] == struct.pack("<f", 0.8125)
    assert raw[40:44] == struct.pack("<f", 0.5)
    assert raw[44:48] == bytes([1, 0, 2, 0])
    assert raw[48:60] == struct.pack("<III", 1000, 20, 3)
    assert raw[60:64] == zlib.crc32(raw[:60]).to_bytes(4, "little")


u32 = st.integers(0, 2**32 - 1)
records = st.builds(
    PlcRecord,
    verdict=st.sampled_from(sorted(VERDICT_CODES)),
    late=st.booleans(),
    simulated=st.booleans(),
    evaluated=st.booleans(),
    alarm=st.booleans(),
    toggle=st.booleans(),
    seq=st.integers(0, 2**64 - 1),
    boot_lo=u32,
    trigger_seq=u32,
    captured_ns=st.integers(-(2**63), 2**63 - 1),
    total_us=u32,
    score=st.floats(width=32, allow_nan=False),
    threshold=st.floats(width=32, allow_nan=False),
    region_id=st.integers(0, 2**16 - 1),
    n_regions=st.integers(0, 2**16 - 1),
    ok_count=u32,
    ng_count=u32,
    err_count=u32,
)


@given(records)
def test_what_was_packed_comes_back(record: PlcRecord) -> None:
    assert unpack_record(pack_record(record)) == record


@given(records, st.integers(0, 63), st.integers(1, 255))
def test_a_changed_byte_is_refused(record: PlcRecord, position: int, change: int) -> None:
    raw = bytearray(pack_record(record))
    raw[position] ^= change
    with pytest.raises(DecodeError):
        unpack_record(bytes(raw))


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match="bytes instead of 64"):
        unpack_record(bytes(length))


@pytest.mark.parametrize(("position", "value"), [(4, 2), (6, 5)])
def test_an_unknown_version_or_verdict_is_refused_though_the_checksum_fits(
    position: int, value: int
) -> None:
    raw = bytearray(pack_record(RECORD))
    raw[position] = value
    raw[60:] = zlib.crc32(bytes(raw[:60])).to_bytes(4, "little")
    with pytest.raises(DecodeError, match=r"version|verdict"):
        unpack_record(bytes(raw))


def test_a_score_that_is_not_a_number_is_infinite_so_that_it_exceeds_every_threshold() -> None:
    record = unpack_record(pack_record(dataclasses.replace(RECORD, score=math.nan)))
    assert record.score == math.inf


def test_counters_wrap_and_latency_saturates() -> None:
    raw = pack_record(
        dataclasses.replace(RECORD, ok_count=2**32 + 5, total_us=2**40, n_regions=70000)
    )
    record = unpack_record(raw)
    assert (record.ok_count, record.total_us, record.n_regions) == (5, 2**32 - 1, 65535)
