"""The archive tap and its real process: killed, stopped, refused, and never in the line's way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from skrd4ad.engine.images import read_rgb
from skrd4ad.errors import ConfigError
from skrd4ad.pipeline.archive import ArchiveSettings, ArchiveTap
from skrd4ad.pipeline.archive_store import day_of, find, image_of, load_map, map_of
from skrd4ad.pipeline.outlet import Alarm
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict
from skrd4ad.pipeline.taps import TappedOutlet

FREE = "tcp://127.0.0.1:0"
PATIENCE_S = 60.0


def result(number: int, verdict: Verdict = Verdict.NG, size: int = 32) -> Result:
    random = np.random.default_rng(number)
    return Result(
        camera="cam0",
        camera_seq=number,
        frame_id=number,
        captured_ns=time.time_ns(),
        captured_mono_ns=time.monotonic_ns(),
        captured_source="file",
        captured_error_ns=0,
        part=Part(f"p{number}"),
        name=None,
        verdict=verdict,
        reasons=(),
        evaluated=True,
        score=0.1,
        threshold=0.5,
        defects=(),
        latency=Latency(),
        anomaly_map=random.normal(size=(8, 8)).astype(np.float32),
        pixels=random.integers(0, 256, (size, size, 3), np.uint8),
    )


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Station:
    """A publisher with an archive, fed by hand."""

    def __init__(self, root: Path, **changes: object) -> None:
        self.root = root
        self.alarms: list[Alarm] = []
        self.publisher = Publisher(PublishSettings(events=FREE, maps=FREE), "edge07")
        settings = ArchiveSettings(**({"path": str(root), "every": 0} | changes))  # type: ignore[arg-type]
        self.tap = ArchiveTap(settings, self.publisher.last_result, self.publisher.boot)
        self.line = TappedOutlet(self.publisher, [self.tap])
        self.line.open()
        self.tap._raise_alarm = self.alarms.append

    def send(self, *numbers: int, size: int = 32) -> None:
        for number in numbers:
            seq = self.line.send_result(result(number, size=size))
            assert seq == number

    @property
    def pid(self) -> int:
        wait_for(lambda: self.tap.writer.process)
        return self.tap.writer.process.pid

    def kept(self) -> list[int]:
        return sorted(int(path.stem) for path in self.root.glob("*/*/*.json"))

    def states(self, name: str) -> list[bool]:
        return [alarm.active for alarm in self.alarms if alarm.name == name]


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    opened = Station(tmp_path / "archive")
    yield opened
    opened.line.close()
    assert opened.tap.writer.wait(PATIENCE_S) in (0, -signal.SIGKILL)


def test_what_was_published_is_what_is_archived(station: Station) -> None:
    sent = [result(1), result(2, Verdict.OK), result(3)]
    events = []
    for one in sent:
        station.line.send_result(one)
        events.append(station.publisher.last_result("cam0")[1])
    wait_for(lambda: station.tap.written == 2)
    assert station.kept() == [1, 3]
    sidecar = find(station.root, 3)
    assert sidecar is not None
    assert sidecar.parent == station.root / day_of(sent[2].captured_ns) / "cam0"
    assert sidecar.read_bytes() == events[2]
    assert np.array_equal(read_rgb(image_of(sidecar)), sent[2].pixels)
    assert np.array_equal(load_map(map_of(sidecar))[0], sent[2].anomaly_map)
    assert station.alarms == []


def test_a_killed_archive_process_is_started_again_and_no_part_is_lost(station: Station) -> None:
    station.send(1)
    wait_for(lambda: station.tap.written == 1)
    first = station.pid
    os.kill(first, signal.SIGKILL)
    station.send(2, 3)
    wait_for(lambda: station.tap.written == 3)
    assert station.pid != first
    assert station.kept() == [1, 2, 3]
    assert station.states("archive_failed") == [True, False]
    assert "signal 9" in station.alarms[0].text
    assert station.tap.dropped == 0


def test_a_process_killed_in_the_middle_of_a_part_leaves_the_part_to_the_next(
    station: Station,
) -> None:
    station.send(1)
    wait_for(lambda: station.tap.written == 1)
    os.kill(station.pid, signal.SIGSTOP)
    station.send(2, 3)
    wait_for(lambda: len(station.tap._queue) == 1)  # part 2 is with the process
    os.kill(station.pid, signal.SIGKILL)
    wait_for(lambda: station.tap.written == 3)
    assert station.kept() == [1, 2, 3]


def test_a_stopped_process_costs_images_and_no_verdict(tmp_path: Path) -> None:
    station = Station(tmp_path, queue_parts=4)
    station.send(1)
    wait_for(lambda: station.tap.written == 1)
    os.kill(station.pid, signal.SIGSTOP)
    station.send(2)
    wait_for(lambda: not station.tap._queue)
    station.send(*range(3, 13))  # four wait, six are given up, all are published
    assert station.publisher.last_seq == 12
    assert station.tap.dropped == 6
    assert station.states("archive_behind") == [True]
    os.kill(station.pid, signal.SIGCONT)
    wait_for(lambda: station.tap.written == 6)
    assert station.kept() == [1, 2, 3, 4, 5, 6]
    assert station.states("archive_behind") == [True, False]
    station.line.close()
    assert station.tap.writer.wait(PATIENCE_S) == 0


def test_the_queue_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    station = Station(tmp_path, queue_mb=0.05)  # one part of 128 x 128 pixels has 49152 bytes
    os.kill(station.pid, signal.SIGSTOP)
    station.send(1, 2, 3, 4, size=128)
    assert station.tap.dropped >= 2
    os.kill(station.pid, signal.SIGCONT)
    station.line.close()
    assert station.tap.writer.wait(PATIENCE_S) == 0


def test_the_end_of_the_line_hands_everything_over_and_the_process_writes_it(
    tmp_path: Path,
) -> None:
    station = Station(tmp_path)
    station.send(*range(1, 31), size=256)
    begun = time.monotonic()
    station.line.close()
    assert time.monotonic() - begun < 10.0  # an SSD needs about one second for these
    assert station.tap.writer.wait(PATIENCE_S) == 0
    assert station.kept() == list(range(1, 31))
    assert (station.tap.dropped, station.tap.written) == (0, 30)


def test_signals_for_the_whole_group_do_not_end_the_process(station: Station) -> None:
    station.send(1)
    wait_for(lambda: station.tap.written == 1)
    pid = station.pid
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    station.send(2)
    wait_for(lambda: station.tap.written == 2)
    assert station.pid == pid


def test_a_disk_that_refuses_is_an_alarm_that_ends_when_it_takes_files_again(
    station: Station,
) -> None:
    station.root.mkdir(exist_ok=True)
    in_the_way = station.root / day_of(time.time_ns())
    in_the_way.write_text("not a folder")
    station.send(1)
    wait_for(lambda: station.states("archive_failed") == [True])
    in_the_way.unlink()
    station.send(2)
    wait_for(lambda: station.states("archive_failed") == [True, False])
    assert station.kept() == [2]
    assert (station.tap.dropped, station.tap.written) == (1, 1)


def test_old_parts_make_room_while_the_line_runs(tmp_path: Path) -> None:
    station = Station(tmp_path, max_mb=0.05)  # a part has about 3.5 KB
    station.send(*range(1, 25))
    wait_for(lambda: station.tap.written == 24)
    station.line.close()
    assert station.tap.writer.wait(PATIENCE_S) == 0
    kept = station.kept()
    assert 5 < len(kept) < 24
    assert kept == list(range(25 - len(kept), 25))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.*")) <= 0.05 * 2**20


def test_a_folder_that_cannot_be_written_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    publisher = Publisher(PublishSettings(events=FREE, maps=FREE), "edge07")
    tap = ArchiveTap(
        ArchiveSettings(path=str(tmp_path / "file" / "in")), publisher.last_result, publisher.boot
    )
    with pytest.raises(ConfigError, match=r"archive: .* cannot be written"):
        TappedOutlet(publisher, [tap]).open()


def test_a_line_that_is_killed_takes_its_archive_process_with_it(station: Station) -> None:
    station.send(1)
    wait_for(lambda: station.tap.written == 1)
    station.tap.writer._link.close()  # as the kernel does with the sockets of a killed process
    assert station.tap.writer.process.wait(PATIENCE_S) == 0
