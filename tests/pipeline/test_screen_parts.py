"""The page's values, without sockets: what is kept of a box, for how long, what is drawn of it."""

from __future__ import annotations

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skrd4ad.calibration.intervals import clopper_pearson
from skrd4ad.pipeline.screen.changes import Changes
from skrd4ad.pipeline.screen.live import LiveView
from skrd4ad.pipeline.screen.map_colours import paint_map, paint_overlay
from skrd4ad.pipeline.screen.part_log import PartLog
from skrd4ad.pipeline.screen.shelf import Shelf
from skrd4ad.pipeline.screen.threshold_preview import (
    MARKED_NG,
    MARKED_OK,
    preview_threshold,
    rate_interval,
    score_histogram,
    used_thresholds,
    would_change,
)
from skrd4ad.pipeline.screen.trends import score_history, yield_by_minute
from skrd4ad.pipeline.stream_check import Restart, StreamCheck
from skrd4ad.pipeline.topics import Topic
from skrd4ad.pipeline.wire import ResultMessage

VERDICTS = ("ok", "ng", "review", "err")


@pytest.fixture
def header(screen_parts: ModuleType) -> Any:
    return screen_parts.header


def view_of(headers: list[Any], **options: Any) -> LiveView:
    view = LiveView(**options)
    for one in headers:
        view.take(message(one), StreamCheck().status(0))
    return view


def message(header: Any) -> ResultMessage:
    topic = Topic("res", header.box, header.cam, header.verdict)
    return ResultMessage(topic, header, b"")


# ---- colours ------------------------------------------------------------------------------------


def test_the_colour_scale_is_fixed_with_the_threshold_at_its_middle() -> None:
    raw = np.arange(256, dtype=np.uint8).reshape(16, 16)
    painted = paint_map(np.where(raw > 127, 0, raw).astype(np.uint8))
    assert painted[0, 0].tolist() == [14, 18, 34]
    assert painted[7, 15].tolist() == pytest.approx([250, 210, 50], abs=4)
    assert not (paint_map(np.full((8, 8), 127, np.uint8)) == 255).all(axis=2).any()
    assert (paint_map(np.full((8, 8), 128, np.uint8)) == 255).all(axis=2).any()


def test_the_overlay_hides_nothing_where_the_map_is_low() -> None:
    opacity = [int(paint_overlay(np.full((9, 9), raw, np.uint8))[4, 4, 3]) for raw in range(256)]
    assert opacity[0] == 0
    assert opacity[64] < 90
    assert opacity[128] > 200
    assert opacity == sorted(opacity)


# ---- keeping ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), max_size=60))
def test_a_shelf_stays_within_its_limits_and_keeps_the_newest(puts: list[tuple[int, int]]) -> None:
    shelf: Shelf[int] = Shelf(max_items=5, max_bytes=100)
    for number, size in puts:
        shelf.put(("b", number), size, size)
        assert shelf.get(("b", number)) == size
        assert len(shelf) <= 5
        kept = sum(shelf.get(("b", one)) or 0 for one in range(21))
        assert kept <= 100 or len(shelf) == 1


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
def test_a_log_holds_the_newest_parts_in_order(
    screen_parts: ModuleType, capacity: int, past: int, live: int
) -> None:
    header = screen_parts.header
    log, later = PartLog(capacity), PartLog(capacity)
    for number in range(1, past + 1):
        log.append(header(number, boot="0" * 16))
    for number in range(past + 1, past + live + 1):
        later.append(header(number, VERDICTS[number % 4], cam=f"cam{number % 2}", boot="1" * 16))
    log.extend(later)
    expected = list(range(past + 1, past + live + 1))[-capacity:]
    wanted = (list(range(1, past + 1))[-capacity:] + expected)[-capacity:]
    parts = log.parts()
    assert parts.seq.tolist() == wanted
    assert [parts.boot[at][0] for at in parts.boot_of] == [
        "0" if n <= past else "1" for n in wanted
    ]
    assert [bool(np.isnan(score)) for score in parts.score] == [
        n > past and VERDICTS[n % 4] == "err" for n in wanted
    ]
    odd = [n for n in wanted if n > past and n % 2]
    assert log.parts("cam1").seq.tolist() == odd
    assert log.parts(newest=3).seq.tolist() == wanted[-3:]
    assert log.parts("nobody").seq.tolist() == []


def test_a_view_counts_keeps_and_forgets(header: Any) -> None:
    view = view_of([header(1), header(2, "ng"), header(3, "err")])
    state = view.snapshot()
    assert [one["number"] for one in state["history"]] == [1, 2, 3]
    assert [one["number"] for one in view.snapshot(after=2)["history"]] == [3]
    assert state["last_reject"]["seq"] == 3
    assert [part["seq"] for part in view.gallery()] == [3, 2]
    assert [part["seq"] for part in view.known_parts()] == [3, 2, 1]
    assert view.part(("0123456789abcdef", 1))["verdict"] == "ok"
    assert view.part(("0123456789abcdef", 9)) is None
    assert view.saw_run("0123456789abcdef")
    assert not view.saw_run("f" * 16)
    view.take(Restart("edge07", "a" * 16, "b" * 16), StreamCheck().status(0))
    assert view.snapshot()["notices"][0]["text"] == "the line's program started anew"


def test_quiet_and_pace_are_told_for_the_page_to_see_what_is_old(
    header: Any, parts: ModuleType
) -> None:
    hands = parts.HandClock()
    view = view_of([], clock=hands.clock)
    assert view.snapshot()["quiet_s"] is None
    assert view.snapshot()["pace_s"] is None
    for number in (1, 2, 3, 4, 60, 61):  # one pause among parts of one a second
        view.take(message(header(number)), StreamCheck().status(0))
    hands.advance_s(7.5)
    state = view.snapshot()
    assert state["quiet_s"] == 7.5
    assert state["followed_s"] == 7.5
    view.tick(StreamCheck().status(0))
    assert view.snapshot()["followed_s"] == 0.0
    assert state["pace_s"] == 1.0


def test_parts_from_before_come_in_front_once(header: Any) -> None:
    view = view_of([header(10, "ng"), header(11)])
    past = [header(number, "ng" if number == 3 else "ok") for number in range(1, 12)]
    assert view.remember(past) == 9
    assert [part["seq"] for part in view.gallery()] == [10, 3]
    assert view.parts("", None)[0].seq.tolist() == list(range(1, 12))
    assert view.snapshot()["number"] == 2


def test_readers_wait_for_changes_and_go_home_at_the_end() -> None:
    changes = Changes()
    first = changes.wait(-1, 0.0)
    assert first is not None
    assert changes.wait(first, 0.01) == first
    timer = threading.Timer(0.05, changes.bump)
    timer.start()
    assert changes.wait(first, 30.0) == first + 1
    threading.Timer(0.05, changes.close).start()
    assert changes.wait(first + 1, 30.0) is None


# ---- preview ------------------------------------------------------------------------------------


def logged(header: Any, scores: list[float], verdicts: list[str]) -> Any:
    log = PartLog()
    for number, (score, verdict) in enumerate(zip(scores, verdicts, strict=True), 1):
        log.append(header(number, verdict, score=score))
    return log.parts()


def test_a_preview_counts_what_would_change(header: Any) -> None:
    parts = logged(
        header,
        [0.1, 0.2, 0.45, 0.5, 0.6, 0.9, 0.3, 0.0, 0.7],
        ["ok", "ok", "ok", "ok", "ng", "ng", "ng", "err", "ok"],
    )
    marks = np.zeros(9, np.uint8)
    marks[4], marks[5] = MARKED_OK, MARKED_NG
    found = preview_threshold(parts, marks, 0.5, 0.4)
    # One was rejected below the threshold (late), one passed above it (too small): both stay.
    assert (found.n, found.kept, found.rejected_before, found.rejected_after) == (8, 2, 3, 5)
    assert (found.newly_rejected, found.newly_passed, found.n_others) == (2, 0, 0)
    assert (found.good, found.false_rejects) == (6, 3)
    assert found.false_reject_interval == clopper_pearson(3, 6)
    found = preview_threshold(parts, marks, 0.5, 0.95)
    assert (found.rejected_after, found.newly_passed, found.escapes) == (1, 2, 1)
    # On the threshold passes.
    assert preview_threshold(parts, marks, 0.5, 0.5).newly_rejected == 0


def test_a_threshold_that_was_changed_is_one_question_regions_are_several(header: Any) -> None:
    log = PartLog()
    for number in range(1, 11):
        changed = number > 6
        log.append(header(number, thr=0.6 if changed else 0.5, revision=2 if changed else 1))
    assert [(one.value, one.parts) for one in used_thresholds(log.parts())] == [
        (pytest.approx(0.6), 10)
    ]
    assert preview_threshold(log.parts(), np.zeros(10, np.uint8), 0.6, 0.2).n == 10
    for number in range(11, 15):
        log.append(header(number, thr=0.3, revision=2))
    used = used_thresholds(log.parts())
    assert [(round(one.value, 3), one.parts) for one in used] == [(0.3, 4), (0.6, 4), (0.5, 6)]
    found = preview_threshold(log.parts(), np.zeros(14, np.uint8), used[0].value, 0.2)
    assert (found.n, found.n_others, found.newly_rejected) == (4, 10, 4)
    histogram = score_histogram(log.parts(), np.zeros(14, np.uint8), used[0].value)
    assert sum(histogram["passed"]) == 4
    assert histogram["top"] == pytest.approx(0.6)
    assert used_thresholds(PartLog().parts()) == []


@given(
    st.lists(
        st.tuples(
            st.floats(0, 2, width=32),
            st.sampled_from(VERDICTS),
            st.integers(0, 2),
            st.sampled_from([0.5, 0.75]),
        ),
        max_size=30,
    ),
    st.floats(0.015625, 2, width=32),
)
def test_a_preview_adds_up_and_agrees_with_the_single_parts(
    screen_parts: ModuleType, seen: list[tuple[float, str, int, float]], threshold: float
) -> None:
    log, headers = PartLog(), []
    for number, (score, verdict, _, limit) in enumerate(seen, 1):
        headers.append(screen_parts.header(number, verdict, score=score, thr=limit))
        log.append(headers[-1])
    parts, marks = log.parts(), np.array([one[2] for one in seen], np.uint8)
    used = used_thresholds(parts)
    inspected = sum(verdict != "err" for _, verdict, _, _ in seen)
    assert sum(one.parts for one in used) == inspected
    for one in used:
        found = preview_threshold(parts, marks, one.value, threshold)
        assert found.rejected_after == (
            found.rejected_before + found.newly_rejected - found.newly_passed
        )
        assert found.n == one.parts
        assert found.n + found.n_others == inspected
        assert found.false_rejects <= found.good <= found.n
        assert found.escapes <= found.bad_marked
        asked = one.value if len(used) > 1 else None
        plain = map(msgspec.to_builtins, headers)
        changed = sum(would_change(part, asked, threshold) for part in plain)
        assert changed == found.newly_rejected + found.newly_passed
        histogram = score_histogram(parts, marks, one.value)
        stacked = ("passed", "rejected", "marked_ok", "marked_ng")
        assert sum(sum(histogram[name]) for name in stacked) == found.n


@pytest.mark.parametrize("successes", [0, 1, 30, 1000])
def test_the_quick_interval_agrees_with_the_exact_one(successes: int) -> None:
    quick, exact = rate_interval(successes, 1001), clopper_pearson(successes, 1001)
    assert quick.low <= successes / 1001 <= quick.high
    assert quick.high == pytest.approx(exact.high, rel=0.1)


# ---- trends -------------------------------------------------------------------------------------


def test_yield_is_counted_by_the_minute(header: Any) -> None:
    log = PartLog()
    for number in range(0, 300, 10):
        log.append(header(number, "ng" if number == 70 else "ok"))
    minutes = yield_by_minute(log.parts())
    assert [minute["t"] for minute in minutes] == [0, 60, 120, 180, 240]
    assert [minute["ok"] for minute in minutes] == [6, 5, 6, 6, 6]
    assert [minute["ng"] for minute in minutes] == [0, 1, 0, 0, 0]
    assert len(yield_by_minute(log.parts(), minutes=2)) == 2
    assert yield_by_minute(PartLog().parts()) == []


def test_the_score_history_groups_every_part_once(header: Any) -> None:
    parts = logged(
        header, [0.01 * n for n in range(50)], ["err" if n == 7 else "ok" for n in range(50)]
    )
    groups = score_history(parts, points=10)
    assert [group["n"] for group in groups] == [5] * 10
    assert sum(group["not_ok"] for group in groups) == 1
    assert groups[0]["median"] == pytest.approx(0.02)
    assert groups[-1]["max"] == pytest.approx(0.49)
    only = score_history(logged(header, [0.0], ["err"]))
    assert (only[0]["median"], only[0]["max"]) == (None, None)
    assert score_history(PartLog().parts()) == []


def test_the_files_of_the_page_are_short(tmp_path: Path) -> None:
    folder = Path(__file__).resolve().parents[2] / "pipeline" / "web"
    longest = {path.name: len(path.read_text().splitlines()) for path in folder.iterdir()}
    assert max(longest.values()) < 400, longest
