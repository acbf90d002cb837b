"""The archive on disk: what is kept, that it comes back bit for bit, and what is forgotten."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skrd4ad.engine.images import read_rgb
from skrd4ad.errors import ConfigError, DataError
from skrd4ad.pipeline.archive_store import (
    ArchivedPart,
    Limits,
    Retention,
    day_of,
    find,
    image_of,
    load_map,
    map_of,
    worth_keeping,
    write_part,
)
from skrd4ad.pipeline.records import Latency, Part, Result, Verdict

DAY_NS = 86_400 * 1_000_000_000
T_NS = 1_795_479_736_190_464_000
GENEROUS = Limits(max_days=30, max_bytes=10**12, min_free_bytes=0)
RESULT = Result(
    camera="cam0",
    camera_seq=1,
    frame_id=1,
    captured_ns=T_NS,
    captured_mono_ns=1,
    captured_source="file",
    captured_error_ns=0,
    part=Part(),
    name=None,
    verdict=Verdict.OK,
    reasons=(),
    evaluated=True,
    score=0.1,
    threshold=0.5,
    defects=(),
    latency=Latency(),
)


def part(seq: int, boot: str = "a" * 16, day: int = 0, size: int = 20) -> ArchivedPart:
    random = np.random.default_rng(seq)
    return ArchivedPart(
        camera="cam0",
        seq=seq,
        boot=boot,
        captured_ns=T_NS + day * DAY_NS,
        event=msgspec.json.encode({"v": "1.0", "kind": "res", "boot": boot, "seq": seq}),
        pixels=random.integers(0, 256, (size, size + 3, 3), np.uint8),
        anomaly_map=random.normal(size=(5, 7)).astype(np.float32),
        map_to_image=(4.0, 0.0, 1.5, 0.0, 4.0, 1.5),
    )


@pytest.mark.parametrize(
    ("verdict", "score", "number_ok", "expected"),
    [
        (Verdict.NG, 0.9, 0, True),
        (Verdict.ERR, float("inf"), 0, True),
        (Verdict.REVIEW, 0.5, 0, False),  # not among the kinds of this station
        (Verdict.OK, 0.1, 7, False),
        (Verdict.OK, 0.1, 10, True),
        (Verdict.OK, 0.46, 7, True),
        (Verdict.OK, 0.44, 7, False),
        (Verdict.OK, float("nan"), 7, False),
    ],
)
def test_bad_borderline_and_every_nth_good_part_are_kept(
    verdict: Verdict, score: float, number_ok: int, expected: bool
) -> None:
    result = dataclasses.replace(RESULT, verdict=verdict, score=score)
    assert worth_keeping(result, number_ok, ("ng", "err"), 0.1, 10) is expected


def test_a_band_and_a_rate_of_zero_keep_no_good_part() -> None:
    at_the_threshold = dataclasses.replace(RESULT, score=0.5)
    assert not any(worth_keeping(at_the_threshold, n, ("ng",), 0.0, 0) for n in range(5))


@given(
    height=st.integers(16, 40),
    width=st.integers(16, 40),
    seed=st.integers(0, 99),
    with_transform=st.booleans(),
)
@settings(max_examples=20)
def test_image_map_and_event_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    seed: int,
    with_transform: bool,
) -> None:
    root = tmp_path_factory.mktemp("archive")
    random = np.random.default_rng(seed)
    given_part = msgspec.structs.replace(
        part(seed),
        pixels=random.integers(0, 256, (height, width, 3), np.uint8),
        anomaly_map=random.normal(size=(height, width)).astype(np.float32),
        map_to_image=(1.0, 0.0, 0.5, 0.0, 1.0, 0.5) if with_transform else None,
    )
    written = write_part(root, given_part)
    sidecar = find(root, seed)
    assert sidecar == root / "2026-11-24" / "cam0" / f"{seed:08d}.json"
    assert sidecar.read_bytes() == given_part.event
    assert np.array_equal(read_rgb(image_of(sidecar)), given_part.pixels)
    values, transform = load_map(map_of(sidecar))
    assert np.array_equal(values, given_part.anomaly_map)
    assert transform == given_part.map_to_image
    assert written == sum(path.stat().st_size for path in sidecar.parent.iterdir())


def test_a_part_that_could_not_be_captured_has_only_its_event(tmp_path: Path) -> None:
    write_part(tmp_path, msgspec.structs.replace(part(3), pixels=None, anomaly_map=None))
    sidecar = find(tmp_path, 3)
    assert sidecar is not None
    assert not image_of(sidecar).exists()
    assert not map_of(sidecar).exists()
    with pytest.raises(DataError, match="is not an archived map"):
        load_map(map_of(sidecar))


def test_a_number_that_another_process_used_is_never_overwritten(tmp_path: Path) -> None:
    first, second = part(1, "a" * 16), part(1, "b" * 16)
    for one in (first, second, first, second):  # writing again changes nothing
        write_part(tmp_path, one)
    os.utime(tmp_path / "2026-11-24/cam0/00000001.json", ns=(1, 1))
    assert [find(tmp_path, 1, boot).read_bytes() for boot in ("a" * 16, "b" * 16)] == [
        first.event,
        second.event,
    ]
    newest = find(tmp_path, 1)
    assert newest.name == f"00000001.{'b' * 16}.json"
    assert np.array_equal(read_rgb(image_of(newest)), second.pixels)
    assert find(tmp_path, 1, "c" * 16) is None
    assert find(tmp_path, 2) is None
    assert find(tmp_path / "nowhere", 2) is None


def test_a_part_that_cannot_be_written_whole_is_not_there_at_all(tmp_path: Path) -> None:
    blocked = tmp_path / "2026-11-24" / "cam0" / "00000005.map.npz"
    (blocked / "a folder in the way").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_part(tmp_path, part(5))
    assert find(tmp_path, 5) is None
    assert not (blocked.parent / "00000005.png").exists()


def kept(root: Path) -> list[int]:
    return sorted(int(path.stem) for path in root.glob("*/*/*.json"))


def filled(root: Path, count: int = 6) -> None:
    """Two parts a day; the files' times are those of the parts."""
    for seq in range(1, count + 1):
        write_part(root, part(seq, day=(seq - 1) // 2))
        for path in root.glob(f"*/cam0/{seq:08d}.*"):
            os.utime(path, ns=(seq, seq))


def test_parts_older_than_the_limit_are_forgotten(tmp_path: Path) -> None:
    filled(tmp_path)
    limits = msgspec.structs.replace(GENEROUS, max_days=1.5)
    retention = Retention(tmp_path, limits, wall_ns=lambda: T_NS + 3 * DAY_NS)
    assert retention.apply() == 2
    assert kept(tmp_path) == [3, 4, 5, 6]
    assert not (tmp_path / "2026-11-24").exists()
    assert retention.apply() == 0


def test_beyond_the_size_limit_the_oldest_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    filled(tmp_path)
    sizes = [
        sum(path.stat().st_size for path in tmp_path.glob(f"*/cam0/{seq:08d}.*"))
        for seq in range(1, 7)
    ]
    limits = msgspec.structs.replace(GENEROUS, max_bytes=sum(sizes[3:]))
    retention = Retention(tmp_path, limits, wall_ns=lambda: T_NS)
    assert retention.total_bytes == sum(sizes)
    assert retention.apply(at_most=1) == 1
    assert kept(tmp_path) == [2, 3, 4, 5, 6]
    assert retention.apply() == 2
    assert kept(tmp_path) == [4, 5, 6]
    assert retention.total_bytes == sum(sizes[3:])
    write_part(tmp_path, part(7, day=2))
    retention.note(T_NS + 2 * DAY_NS, sizes[3])
    assert retention.apply() == 1
    assert kept(tmp_path) == [5, 6, 7]
    assert retention.removed_parts == 4


def test_a_disk_that_fills_up_takes_the_oldest_parts_until_there_is_room(tmp_path: Path) -> None:
    filled(tmp_path)
    limits = msgspec.structs.replace(GENEROUS, min_free_bytes=100)
    retention = Retention(
        tmp_path,
        limits,
        wall_ns=lambda: T_NS,
        free_bytes=lambda: 100 if len(kept(tmp_path)) <= 2 else 99,
    )
    assert retention.apply() == 4
    assert kept(tmp_path) == [5, 6]
    assert not retention.disk_full()


def test_a_disk_full_of_other_things_is_reported_not_fought(tmp_path: Path) -> None:
    filled(tmp_path)
    limits = msgspec.structs.replace(GENEROUS, min_free_bytes=100)
    retention = Retention(tmp_path, limits, wall_ns=lambda: T_NS, free_bytes=lambda: 5)
    assert retention.apply() == 6
    assert retention.disk_full()
    assert retention.apply() == 0


def test_what_is_not_the_archives_own_stays(tmp_path: Path) -> None:
    filled(tmp_path, 2)
    notes = [tmp_path / "notes" / "cam0" / "a.json", tmp_path / "2026-11-24" / "cam0" / "me.txt"]
    for path in notes:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("keep me")
    unfinished = tmp_path / "2026-11-24" / "cam0" / ".00000009.png.1234.tmp"
    unfinished.write_bytes(b"half an image")
    limits = msgspec.structs.replace(GENEROUS, max_days=0.1)
    retention = Retention(tmp_path, limits, wall_ns=lambda: T_NS + 9 * DAY_NS)
    assert retention.apply() == 3
    assert kept(tmp_path / "2026-11-24") == []
    assert all(path.exists() for path in notes)
    assert not unfinished.exists()
    assert retention.total_bytes == 0


def test_days_are_counted_in_utc() -> None:
    assert day_of(0) == "1970-01-01"
    assert day_of(DAY_NS - 1) == "1970-01-01"
    assert day_of(DAY_NS) == "1970-01-02"
