"""The Modbus bridge, read by pymodbus' real client as a PLC would read it."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient
from skrd4ad.pipeline.bridges.feed import Feed
from skrd4ad.pipeline.bridges.modbus import ACKNOWLEDGE_COIL, ModbusUplink
from skrd4ad.pipeline.bridges.modbus_block import MAGIC
from skrd4ad.pipeline.records import Verdict
from skrd4ad.pipeline.subscriber import Subscriber

ALIVE, VALID, HEARD, LOST = range(4)
CAM_VALID, PASS, REJECT, TOGGLE, LATE, SIMULATED = range(6)


class Plc:
    """A bridge served from a thread, and a client that reads it."""

    def __init__(
        self, box: Any, parts: ModuleType, cameras: tuple[str, ...] = (), max_age_s: float = 30.0
    ) -> None:
        self.port = parts.free_port()
        feed = Feed(Subscriber(box.events))
        uplink = ModbusUplink("127.0.0.1", self.port, feed, cameras, max_age_s)
        self._bridge = parts.RunningBridge(feed, uplink)
        box.wait_for_clients(1)
        self.client = ModbusTcpClient("127.0.0.1", port=self.port, retries=0)
        parts.wait_for(self.client.connect, "the bridge listens")

    def bits(self, block: int, inputs: bool = False) -> list[bool]:
        read = self.client.read_discrete_inputs if inputs else self.client.read_coils
        answer = read(16 * block, count=16)
        assert not answer.isError(), answer
        return list(answer.bits)

    def words(self, block: int, inputs: bool = False) -> list[int]:
        read = self.client.read_input_registers if inputs else self.client.read_holding_registers
        answer = read(32 * block, count=32)
        assert not answer.isError(), answer
        return list(answer.registers)

    def close(self) -> None:
        self.client.close()
        self._bridge.close()


def u32(words: list[int], at: int) -> int:
    return words[at] << 16 | words[at + 1]


def f32(words: list[int], at: int) -> float:
    return struct.unpack(">f", struct.pack(">HH", words[at], words[at + 1]))[0]


@pytest.fixture
def plc(box: Any, box_parts: ModuleType) -> Iterator[Plc]:
    opened = Plc(box, box_parts)
    yield opened
    opened.close()


def test_a_plc_reads_verdict_numbers_and_counters(
    plc: Plc, box: Any, box_parts: ModuleType
) -> None:
    box.send(box_parts.result(1, Verdict.NG, score=0.75, late=True, simulated=True))
    box_parts.wait_for(lambda: plc.words(1)[1] == 2)
    box_parts.wait_for(lambda: u32(plc.words(0), 16) == 1)  # the counters come by heartbeat
    head, words = plc.words(0), plc.words(1)
    assert head[:2] == [MAGIC, 1]
    assert head[4] == 2  # RUNNING
    assert head[7] == 1
    assert u32(head, 8) == int(box.publisher.boot[8:], 16)
    assert (u32(head, 10), u32(head, 12)) == (2, 0)
    assert [u32(head, at) for at in (14, 16, 18, 20)] == [0, 1, 0, 0]
    assert (u32(words, 2), u32(words, 4)) == (2, 1)
    assert (f32(words, 6), f32(words, 8)) == (0.75, 0.5)
    assert words[0] == 0b111101  # valid, reject, toggle, late, simulated
    assert u32(words, 16) == 1
    assert plc.words(1, inputs=True)[1:12] == words[1:12]
    assert plc.bits(1, inputs=True) == plc.bits(1)


@pytest.mark.parametrize(
    ("verdict", "late", "passes"),
    [
        (Verdict.OK, False, True),
        (Verdict.OK, True, False),
        (Verdict.NG, False, False),
        (Verdict.REVIEW, False, False),
        (Verdict.ERR, False, False),
    ],
)
def test_only_a_good_part_in_time_passes(
    plc: Plc, box: Any, box_parts: ModuleType, verdict: Verdict, late: bool, passes: bool
) -> None:
    box_parts.wait_for(lambda: plc.bits(0)[VALID])
    box.send(box_parts.result(1, verdict, late=late))
    box_parts.wait_for(lambda: u32(plc.words(1), 2) == 2 and plc.bits(1)[CAM_VALID])
    lines = plc.bits(1)
    assert (lines[PASS], lines[REJECT]) == (passes, not passes)


def test_before_the_first_result_everything_is_a_reject(plc: Plc) -> None:
    lines = plc.bits(1)
    assert (lines[CAM_VALID], lines[PASS], lines[REJECT]) == (False, False, True)


def test_the_toggle_changes_with_every_result_and_alive_by_itself(
    plc: Plc, box: Any, box_parts: ModuleType
) -> None:
    toggles = []
    for number in (1, 2, 3):
        box.send(box_parts.result(number))
        box_parts.wait_for(lambda: u32(plc.words(1), 16) == number)  # noqa: B023
        toggles.append(plc.bits(1)[TOGGLE])
    assert toggles in ([True, False, True], [False, True, False])
    first = plc.words(0)[2]
    box_parts.wait_for(lambda: plc.words(0)[2] != first)
    seen: set[bool] = set()
    box_parts.wait_for(lambda: seen.add(plc.bits(0)[ALIVE]) or len(seen) == 2, "ALIVE changes")


def test_a_silent_box_is_a_reject_though_its_last_part_was_good(
    plc: Plc, box: Any, box_parts: ModuleType
) -> None:
    box.send(box_parts.result(1))
    box_parts.wait_for(lambda: plc.bits(1)[PASS])
    box.fall_silent()
    box_parts.wait_for(lambda: not plc.bits(1)[PASS])
    assert plc.bits(1)[CAM_VALID : REJECT + 1] == [False, False, True]
    assert plc.bits(0)[VALID : HEARD + 1] == [False, False]
    box.speak_again()
    box_parts.wait_for(lambda: plc.bits(1)[PASS])


def test_a_result_that_is_too_old_is_not_valid(box: Any, box_parts: ModuleType) -> None:
    plc = Plc(box, box_parts, max_age_s=0.3)
    box_parts.wait_for(lambda: plc.bits(0)[VALID])
    box.send(box_parts.result(1))
    box_parts.wait_for(lambda: u32(plc.words(1), 2) == 2)
    box_parts.wait_for(lambda: not plc.bits(1)[CAM_VALID])
    assert plc.bits(0)[VALID]
    assert plc.bits(1)[REJECT]
    assert plc.words(1)[12] >= 300
    plc.close()


def test_lost_events_are_a_reject_until_somebody_acknowledges_them(
    plc: Plc, box: Any, box_parts: ModuleType
) -> None:
    box_parts.wait_for(lambda: plc.bits(0)[VALID])
    box.lose(3)
    box.send(box_parts.result(1))
    box_parts.wait_for(lambda: plc.bits(0)[LOST])
    assert plc.bits(1)[PASS : REJECT + 1] == [False, True]
    assert u32(plc.words(0), 12) == 3
    answer = plc.client.write_coil(ACKNOWLEDGE_COIL, True)
    assert not answer.isError()
    assert answer.bits[0] is True
    box_parts.wait_for(lambda: plc.bits(1)[PASS])
    assert not plc.bits(0)[LOST]


def test_a_plc_may_write_nothing_else(plc: Plc) -> None:
    assert plc.client.write_coil(PASS + 16, True).isError()
    assert plc.client.write_coil(ACKNOWLEDGE_COIL, False).isError()
    assert plc.client.write_coils(0, [True] * 16).isError()
    assert plc.client.write_register(33, 1).isError()
    assert plc.client.write_registers(0, [1, 2]).isError()
    assert plc.client.read_holding_registers(64, count=2).isError()
    assert plc.bits(1)[PASS] is False


def test_each_camera_has_the_block_that_was_asked_for(box: Any, box_parts: ModuleType) -> None:
    plc = Plc(box, box_parts, cameras=("top", "side"))
    box.send(
        box_parts.result(1, Verdict.NG, "side"),
        box_parts.result(2, Verdict.OK, "top"),
        box_parts.result(3, Verdict.ERR, "another"),
    )
    box_parts.wait_for(lambda: plc.words(1)[1] == 1)
    assert plc.words(0)[7] == 2
    assert [plc.words(block)[1] for block in (1, 2)] == [1, 2]
    box_parts.wait_for(lambda: [plc.bits(block)[PASS] for block in (1, 2)] == [True, False])
    plc.close()


def test_a_port_in_use_is_tried_again_until_it_is_free(box: Any, box_parts: ModuleType) -> None:
    first = Plc(box, box_parts)
    feed = Feed(Subscriber(box.events))
    second = box_parts.RunningBridge(feed, ModbusUplink("127.0.0.1", first.port, feed))
    box_parts.wait_for(lambda: second.breaker.failures > 0)
    first.close()
    client = ModbusTcpClient("127.0.0.1", port=first.port, retries=0)
    box_parts.wait_for(
        lambda: client.connect() and not client.read_coils(0, count=1).isError(), "the port is free"
    )
    client.close()
    second.close()


def test_the_verb_serves_a_plc_and_refuses_an_open_address(box: Any, box_parts: ModuleType) -> None:
    port = box_parts.free_port()
    command = [sys.executable, "-m", "skrd4ad", "bridge", "modbus", "--connect", box.events]
    refused = subprocess.run(
        [*command, "--listen", "0.0.0.0:5020"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 6
    assert "can be reached by other hosts" in refused.stderr
    bridge = subprocess.Popen(
        [*command, "--listen", f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True
    )
    client = ModbusTcpClient("127.0.0.1", port=port, retries=0)
    box_parts.wait_for(client.connect, "the verb listens")
    box_parts.wait_for(lambda: client.read_coils(VALID, count=1).bits[0])
    client.close()
    bridge.terminate()
    out, _ = bridge.communicate(timeout=60)
    assert bridge.returncode == 0
    assert "0 events dropped" in out
