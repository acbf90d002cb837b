"""docs/bridges.md has every topic, node, bit and register, where it says, and nothing else."""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from skrd4ad.pipeline import wire
from skrd4ad.pipeline import wire_messages as fields
from skrd4ad.pipeline.bridges.feed import View
from skrd4ad.pipeline.bridges.modbus_block import Arrived, bits, registers
from skrd4ad.pipeline.records import Defect, Verdict
from skrd4ad.pipeline.stream_check import StreamStatus

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "bridges.md").read_text(encoding="utf-8")
SIZES = {"u16": 1, "u32": 2, "f32": 2}


def rows(below: str) -> list[list[str]]:
    """The cells of the table that follows this line, without its head."""
    lines = TEXT.partition(below)[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return table


@pytest.fixture
def message(box_parts: ModuleType) -> Any:
    context = wire.WireContext(
        "edge07", "00000000deadbeef", fields.ModelFields(), ("image", "a", "lead")
    )
    result = box_parts.result(
        70_001, Verdict.NG, score=0.75, late=True, simulated=True,
        defects=(Defect("lead", 0.75, 0.5, 9, (1, 2, 3, 3), (2, 3)),),
    )  # fmt: skip
    stamp = wire.Stamp(70_002, time.time_ns(), time.monotonic_ns(), fields.CountFields(ng=1))
    return wire.decode(wire.encode_result(result, context, stamp))


def view(now_ns: int) -> View:
    status = StreamStatus(True, True, False, True, "DEGRADED", 70_002, 66_000, 0.0, 1.0, 0)
    beat = fields.HeartbeatHeader(
        v="1.0", box="edge07", boot="00000000deadbeef", seq=70_002, t=1, mono=1, period_ms=500,
        state="DEGRADED", health=fields.HealthFields(ready=True, uptime_s=1.0),
        counts=fields.CountFields(ok=70_000, ng=70_001, review=70_002, err=70_003),
        alarms=(3001, 1001),
    )  # fmt: skip
    return View(status, "edge07", "00000000deadbeef", beat, now_ns)


def read(words: list[int], at: int, kind: str) -> float:
    if kind == "u16":
        return words[at]
    raw = struct.pack(">HH", words[at], words[at + 1])
    return struct.unpack(">I" if kind == "u32" else ">f", raw)[0]


def documented(below: str, words: list[int]) -> dict[str, float]:
    """What a program reads that follows the table; the registers may not overlap."""
    found, end = {}, 0
    for register, kind, name, _ in rows(below):
        assert int(register) >= end, f"{name} overlaps"
        end = int(register) + SIZES[kind]
        found[name] = read(words, int(register), kind)
    assert not any(words[end:]), "a register is not documented"
    return found


def test_the_registers_stand_where_the_tables_say(message: Any) -> None:
    now_ns = time.monotonic_ns()
    arrived = Arrived(message, now_ns - 1_234_000_000)
    words = registers(view(now_ns), [arrived], now_ns, 10**10)
    assert documented("Registers of the box", words[:32]) == {
        "magic": 0x534B,
        "layout": 1,
        "alive_counter": (now_ns // 100_000_000) & 0xFFFF,
        "bits": words[3],
        "state": 3,
        "alarms": 2,
        "lowest_alarm": 1001,
        "cameras": 1,
        "boot_lo": 0xDEADBEEF,
        "last_seq": 70_002,
        "missing": 66_000,
        "count_ok": 70_000,
        "count_ng": 70_001,
        "count_review": 70_002,
        "count_err": 70_003,
    }
    assert documented("Registers of a camera", words[32:]) == {
        "bits": words[32],
        "verdict": 2,
        "seq": 70_002,
        "trigger_seq": 70_001,
        "score": 0.75,
        "threshold": 0.5,
        "total_us": message.record.total_us,
        "age_ms": 1234,
        "region_id": 3,
        "n_regions": 1,
        "cam_seq": 70_001,
    }


def test_the_bits_stand_where_the_tables_say(message: Any) -> None:
    now_ns = time.monotonic_ns() // 200_000_000 * 200_000_000 + 100_000_000  # alive is 1
    lines = bits(view(now_ns), [Arrived(message, now_ns)], now_ns, 10**10)
    box = {name: lines[int(bit)] for bit, name, _ in rows("Bits of the box")}
    assert box == {
        "alive": True, "valid": False, "heard": True, "lost": True, "acknowledge": False,
    }  # fmt: skip
    camera = {name: lines[16 + int(bit)] for bit, name, _ in rows("Bits of a camera")}
    assert camera == {
        "valid": False, "pass": False, "reject": True, "toggle": message.record.toggle,
        "late": True, "simulated": True,
    }  # fmt: skip


def test_every_opc_ua_node_has_its_row() -> None:
    pytest.importorskip("asyncua", reason="needs asyncua (the extra bridges)")
    from skrd4ad.pipeline.bridges import opcua, opcua_values

    assert [(name, kind) for name, kind, _ in rows("`Objects/Machines/<box>` (")] == [
        (name, typed.kind.name) for name, typed in opcua_values.MACHINE.items()
    ]
    assert [tuple(row[:3]) for row in rows("Results/<camera>/<group>` (")] == [
        (typed.group, name, typed.kind.name) for name, typed in opcua_values.RESULT.items()
    ]
    events = TEXT.partition("`ResultReadyEventType`")[2].partition("(true:")[0]
    named = re.findall(r"`(\w+)`", events)
    assert named == [*opcua_values.EVENT_FIELDS, "Camera", "Replayed"]
    assert f"`{opcua.NAMESPACE}`" in TEXT


def test_every_key_of_the_mqtt_state_has_its_row() -> None:
    pytest.importorskip("paho", reason="needs paho-mqtt (the extra bridges)")
    from skrd4ad.pipeline.bridges.mqtt import KEEPALIVE_S, ROOT, BridgeState

    keys = [key for key, _ in rows("Keys of the state")]
    assert keys == list(BridgeState.__struct_fields__)
    assert f"`{ROOT}/<box>/state`" in TEXT
    assert f"after {1.5 * KEEPALIVE_S:g} s (keepalive {KEEPALIVE_S:g} s)" in TEXT
