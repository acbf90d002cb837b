"""A watched folder: whole files only, each once, across restarts and without the kernel's help."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from skrd4ad.errors import CameraError, ConfigError
from skrd4ad.pipeline.capture.base import Shot
from skrd4ad.pipeline.capture.watch_folder import WatchFolderSource

PATIENCE_S = 60.0


def picture(path: Path, level: int = 100) -> Path:
    Image.fromarray(np.full((32, 48, 3), level, np.uint8)).save(path)
    return path


def started(folder: Path, **options: object) -> WatchFolderSource:
    source = WatchFolderSource(folder, **options)
    source.open()
    source.configure()
    return source


def shots_for(source: WatchFolderSource, seconds: float, count: int = 10_000) -> list[Shot]:
    shots: list[Shot] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and len(shots) < count:
        shot = source.grab(0.05)
        if shot is not None:
            shots.append(shot)
    return shots


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def test_a_file_is_a_part_when_its_writer_closes_it(inbox: Path, tmp_path: Path) -> None:
    data = picture(tmp_path / "a.png").read_bytes()
    source = started(inbox)
    assert shots_for(source, 0.1) == []
    with (inbox / "slow.png").open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        # Longer than a resting file is trusted elsewhere: it is known to be open.
        assert shots_for(source, 1.6) == []
        file.write(data[len(data) // 2 :])
    (shot,) = shots_for(source, PATIENCE_S, count=1)
    assert (shot.name, shot.failure, shot.frame_id) == ("slow.png", None, 1)
    assert shot.part.part_id == "slow.png"
    assert shot.captured_ns == (inbox / "slow.png").stat().st_mtime_ns
    assert shots_for(source, 1.2) == []
    source.close()


def test_renamed_files_come_in_order_and_others_do_not_count(inbox: Path, tmp_path: Path) -> None:
    source = started(inbox)
    shots_for(source, 0.05)
    for number in range(5):
        picture(tmp_path / "x.png", number).rename(inbox / f"part{9 - number}.png")
    (inbox / "notes.txt").write_text("no picture")
    picture(tmp_path / "x.png").rename(inbox / ".hidden.png")
    (inbox / "folder.png").mkdir()
    shots = shots_for(source, PATIENCE_S, count=5)
    assert [shot.name for shot in shots] == [f"part{9 - n}.png" for n in range(5)]
    picture(inbox / "part9.png", 200)  # written again: another part
    (again,) = shots_for(source, PATIENCE_S, count=1)
    assert (again.name, again.pixels[0, 0, 0]) == ("part9.png", 200)
    assert shots_for(source, 1.2) == []
    source.close()


def test_without_the_kernels_word_a_file_must_rest_and_be_whole(
    inbox: Path, tmp_path: Path, parts: object
) -> None:
    hand = parts.HandClock()
    whole = picture(tmp_path / "a.png").read_bytes()
    source = WatchFolderSource(inbox, hand.clock, settle_ms=500)
    source.configure()  # not opened: nobody tells it of anything

    def look() -> list[str]:
        hand.advance_s(0.6)
        return [shot.name for _ in range(4) if (shot := source.grab(0.0)) is not None]

    (inbox / "good.png").write_bytes(whole)
    (inbox / "half.png").write_bytes(whole[: len(whole) // 2])
    assert look() == []
    assert look() == ["good.png"]
    assert look() == []
    (inbox / "half.png").write_bytes(whole)
    assert look() == []
    assert look() == ["half.png"]
    (inbox / "torn.png").write_bytes(whole[: len(whole) // 2])
    assert [look() for _ in range(10)] == [[]] * 10
    hand.advance_s(10)
    assert look() == ["torn.png"], "ten seconds at rest: damaged, and its verdict is err"


def test_a_missing_folder_and_one_that_goes_away_are_camera_errors(inbox: Path) -> None:
    with pytest.raises(CameraError, match="does not exist"):
        WatchFolderSource(inbox / "nowhere").open()
    source = started(inbox)
    shutil.rmtree(inbox)
    with pytest.raises(CameraError, match="is gone"):
        shots_for(source, PATIENCE_S)
    source.close()
    inbox.mkdir()
    source.open()
    source.configure()
    picture(inbox / "back.png")
    assert [shot.name for shot in shots_for(source, PATIENCE_S, count=1)] == ["back.png"]
    source.close()


def test_what_was_there_before_can_be_left_out(inbox: Path) -> None:
    picture(inbox / "old.png")
    source = started(inbox, existing=False)
    assert shots_for(source, 0.1) == []
    picture(inbox / "new.png")
    assert [shot.name for shot in shots_for(source, PATIENCE_S, count=1)] == ["new.png"]
    assert shots_for(source, 1.2) == []
    source.close()


def streamed(streams: ModuleType, plan: Path, inbox: Path, count: int) -> list[str]:
    """A real line on the folder until it has `count` results; the names it noted."""
    options = ("--plan", plan, "--camera", f"watch:{inbox}", "--count", count)
    with streams.running(*options) as line:
        assert line.summary()["parts"] == count
    lines = (inbox / ".skrd4ad-seen").read_text().splitlines()
    return [json.loads(line)[0] for line in lines]


def test_a_restart_goes_on_where_the_line_has_stopped(
    streams: ModuleType, inbox: Path, tiny_plan: Path
) -> None:
    for number in range(6):
        written = picture(inbox / f"{number}.png", 20 * number)
        os.utime(written, (time.time(), time.time() - 60 + number))
    assert streamed(streams, tiny_plan, inbox, 4) == ["0.png", "1.png", "2.png", "3.png"]
    (inbox / "0.png").unlink()
    later = threading.Timer(2.0, picture, [inbox / "6.png", 7])
    later.start()
    assert streamed(streams, tiny_plan, inbox, 3) == [f"{number}.png" for number in range(1, 7)]
    later.join()


def test_a_list_that_cannot_be_kept_is_said_at_the_start(inbox: Path, tmp_path: Path) -> None:
    from skrd4ad.pipeline.seen_tap import SeenTap

    (tmp_path / "file").write_text("")
    tap = SeenTap({"cam": (inbox, tmp_path / "file" / "seen")})
    with pytest.raises(ConfigError, match="cannot be") as caught:
        tap.open(lambda alarm: None)
    assert "seen=FILE" in caught.value.hint or "seen=" in caught.value.hint


@pytest.mark.soak
def test_a_killed_line_leaves_no_file_out(
    streams: ModuleType, inbox: Path, tiny_plan: Path, tmp_path: Path
) -> None:
    """SIGKILL again and again while files arrive; what was published is read from the journal."""
    journal = tmp_path / "journal.sqlite"
    options = ("--plan", tiny_plan, "--camera", f"watch:{inbox}", "--journal", journal)
    names = [f"{number:03}.png" for number in range(300)]

    def write() -> None:
        for number, name in enumerate(names):
            picture(tmp_path / "x.png", number % 200).rename(inbox / name)
            time.sleep(0.05)

    writer = threading.Thread(target=write)
    writer.start()
    kills = 0
    while writer.is_alive():
        with streams.running(*options):  # and killed
            time.sleep(1.1)
        kills += 1
    with streams.running(*options) as line:
        deadline = time.monotonic() + PATIENCE_S
        seen = inbox / ".skrd4ad-seen"
        while {json.loads(text)[0] for text in seen.read_text().splitlines()} != set(names):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        line.process.terminate()
        line.summary()
    with sqlite3.connect(journal) as database:
        rows = database.execute("SELECT part_id FROM events WHERE kind = 'res'").fetchall()
    counts = Counter(row[0] for row in rows)
    twice = sum(count > 1 for count in counts.values())
    print(f"\n{kills} kills, {len(rows)} results for {len(counts)} files, {twice} judged again")
    assert set(counts) == set(names)
    assert max(counts.values()) <= 1 + kills
