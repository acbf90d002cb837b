"""The line in memory: real threads and queues, scripted cameras, arithmetic for a network."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.spec import Manifest
from skrd4ad.errors import CameraError, EngineError, NetworkError
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.line import STOP_LIMIT_S, run_line
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings, LineSummary
from skrd4ad.pipeline.records import Verdict


@pytest.fixture(scope="session")
def manifest(tiny_plan: Path) -> Manifest:
    return msgspec.structs.replace(load_plan(tiny_plan).manifest, batch=4)


@dataclass
class Bench:
    """A line on the bench; `run` gives its summary."""

    parts: ModuleType
    manifest: Manifest
    stop: threading.Event = field(default_factory=threading.Event)
    ready: list[str] = field(default_factory=list)
    alive: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outlet = self.parts.RecordingOutlet()
        self.engine = self.parts.ArithmeticEngine(self.manifest)

    def run(
        self,
        sources: dict[str, object],
        before: Callable[[np.ndarray], None] = lambda batch: None,
        **settings: object,
    ) -> LineSummary:
        self.engine = self.parts.ArithmeticEngine(self.manifest, before)
        return run_line(
            [CameraSettings(name, lambda s=source: s) for name, source in sources.items()],
            [LinePlan(lambda: self.engine, self.parts.THRESHOLD)],
            self.outlet,
            LineSettings(**settings),
            self.stop,
            on_ready=lambda engines: self.ready.extend(one.description for one in engines),
            on_alive=lambda: self.alive.append(time.monotonic()),
        )

    def numbers(self, camera: str = "cam") -> list[int]:
        return [result.camera_seq for result in self.outlet.results if result.camera == camera]


@pytest.fixture
def bench(parts: ModuleType, manifest: Manifest) -> Bench:
    return Bench(parts, manifest)


def shots(parts: ModuleType, levels: Iterable[int]) -> list[object]:
    # Called when grabbed, so that the capture time is then and not when the test began.
    return [
        (lambda number=number, level=level: parts.shot(number, level))
        for number, level in enumerate(levels, start=1)
    ]


def test_each_part_gets_one_verdict_in_order(bench: Bench, parts: ModuleType) -> None:
    levels = [0, 255, 10, 200] * 25
    summary = bench.run({"cam": parts.ScriptedSource(shots(parts, levels))})
    assert bench.numbers() == list(range(1, 101))
    for result, level in zip(bench.outlet.results, levels, strict=True):
        assert result.verdict is (Verdict.NG if level > 127 else Verdict.OK)
        assert result.score == pytest.approx(level / 255, abs=1e-3)
        assert result.threshold == 0.5
        assert result.part.part_id == result.name == f"p{result.camera_seq}"
        assert result.anomaly_map is not None
    assert summary.verdicts == {"ok": 50, "ng": 50, "review": 0, "err": 0}
    assert summary.balance.balanced
    assert (summary.balance.results, summary.balance.pending) == (100, 0)
    assert summary.ended_by == "end of stream"
    assert bench.outlet.states == ["STARTING", "RUNNING", "DRAINING", "BYE"]
    assert bench.ready == ["arithmetic"]
    assert bench.engine.threads == {"infer"}


def test_every_result_carries_its_latency_by_stage(bench: Bench, parts: ModuleType) -> None:
    summary = bench.run(
        {"cam": parts.ScriptedSource(shots(parts, [0] * 5))}, before=lambda batch: time.sleep(0.01)
    )
    for result in bench.outlet.results:
        latency = result.latency
        assert latency.infer_us >= 10_000
        stages = (
            latency.capture_us
            + latency.queue_us
            + latency.preprocess_us
            + latency.infer_us
            + latency.decide_us
            + latency.publish_us
        )
        # Each of the six is rounded down to a microsecond.
        assert stages <= latency.total_us <= stages + 6
    assert summary.latency["infer"].p50_us >= 10_000
    assert summary.latency["total"].count == 5


def test_a_part_without_an_image_is_an_err_result_with_its_reason(
    bench: Bench, parts: ModuleType
) -> None:
    import dataclasses

    unreadable = dataclasses.replace(
        parts.shot(2), pixels=None, failure="unreadable", detail="b.png is truncated"
    )
    summary = bench.run({"cam": parts.ScriptedSource([parts.shot(1), unreadable, parts.shot(3)])})
    err = bench.outlet.results[1]
    assert bench.numbers() == [1, 2, 3]
    assert (err.verdict, err.reasons, err.evaluated) == (Verdict.ERR, ("unreadable",), False)
    assert err.detail == "b.png is truncated"
    assert np.isnan(err.score)
    assert summary.verdicts["err"] == 1


def test_an_engine_failure_costs_only_the_part_that_causes_it(
    bench: Bench, parts: ModuleType
) -> None:
    def refuse_white(batch: np.ndarray) -> None:
        if batch.max() > 2.0:
            raise RuntimeError("device lost")

    levels = [0, 255, 0, 0, 255, 0, 0, 0]
    summary = bench.run({"cam": parts.ScriptedSource(shots(parts, levels))}, refuse_white, depth=8)
    verdicts = [result.verdict for result in bench.outlet.results]
    assert verdicts == [Verdict.ERR if level else Verdict.OK for level in levels]
    failed = bench.outlet.results[1]
    assert failed.reasons == ("engine",)
    assert failed.detail == "RuntimeError: device lost"
    assert summary.balance.balanced
    assert bench.outlet.alarms == []


def test_an_engine_that_fails_part_after_part_raises_an_alarm_until_it_works(
    bench: Bench, parts: ModuleType
) -> None:
    warm_ups = 3
    calls: list[int] = []

    def fail_a_while(batch: np.ndarray) -> None:
        calls.append(len(batch))
        if warm_ups < len(calls) <= warm_ups + 5:
            raise RuntimeError("out of memory")

    bench.manifest = msgspec.structs.replace(bench.manifest, batch=1)
    bench.run({"cam": parts.ScriptedSource(shots(parts, [0] * 8))}, fail_a_while)
    assert [result.verdict.value for result in bench.outlet.results] == ["err"] * 5 + ["ok"] * 3
    assert bench.outlet.alarms == [("engine_failed", "", True), ("engine_failed", "", False)]


def test_a_slow_engine_makes_files_wait_and_loses_nothing(bench: Bench, parts: ModuleType) -> None:
    summary = bench.run(
        {"cam": parts.ScriptedSource(shots(parts, [0] * 40))},
        before=lambda batch: time.sleep(0.003),
        mode="every",
    )
    assert bench.numbers() == list(range(1, 41))
    assert summary.balance.dropped == {}


def test_a_slow_engine_in_latest_mode_drops_and_says_so(bench: Bench, parts: ModuleType) -> None:
    summary = bench.run(
        {"cam": parts.ScriptedSource(shots(parts, [0] * 300), live=True)},
        before=lambda batch: time.sleep(0.005),
        mode="latest",
    )
    balance = summary.balance
    assert balance.admitted == 300
    assert balance.dropped_total > 0
    assert set(balance.dropped) == {"admission:superseded"}
    assert balance.results + balance.dropped_total == 300
    numbers = bench.numbers()
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 300, "the newest frame was not the one that was kept"


def test_the_balance_holds_in_every_heartbeat(bench: Bench, parts: ModuleType) -> None:
    for mode in ("every", "latest"):
        bench.outlet = parts.RecordingOutlet()
        bench.run(
            {
                "a": parts.ScriptedSource(shots(parts, [0] * 60), live=True),
                "b": parts.ScriptedSource(shots(parts, [255] * 60), live=True),
            },
            before=lambda batch: time.sleep(0.001),
            mode=mode,
        )
        assert len(bench.outlet.heartbeats) >= 4
        assert all(health.balance.holds for health in bench.outlet.heartbeats)
        assert set(bench.outlet.heartbeats[-1].cams) == {"a", "b"}


def test_two_cameras_share_the_engine_in_batches_and_keep_their_order(
    bench: Bench, parts: ModuleType
) -> None:
    bench.run(
        {
            "a": parts.ScriptedSource(shots(parts, [0] * 50)),
            "b": parts.ScriptedSource(shots(parts, [255] * 50)),
        },
        before=lambda batch: time.sleep(0.002),
        depth=4,
    )
    assert bench.numbers("a") == bench.numbers("b") == list(range(1, 51))
    assert {r.verdict for r in bench.outlet.results if r.camera == "b"} == {Verdict.NG}
    assert max(bench.engine.batches) > 1


def test_the_part_limit_is_exact(bench: Bench, parts: ModuleType) -> None:
    summary = bench.run({"cam": parts.ScriptedSource(shots(parts, [0] * 50))}, part_limit=7)
    assert bench.numbers() == list(range(1, 8))
    assert summary.ended_by == "part limit"


def test_a_late_part_is_err_and_not_a_pass(bench: Bench, parts: ModuleType) -> None:
    def slow_now_and_then(batch: np.ndarray) -> None:
        if len(bench.engine.batches) == 5:
            time.sleep(1.2)

    bench.manifest = msgspec.structs.replace(bench.manifest, batch=1)
    # A part every 5 ms, so that none waits long by itself; only the stall makes parts late.
    script = [step for shot in shots(parts, [0] * 10) for step in (shot, None)]
    summary = bench.run({"cam": parts.ScriptedSource(script)}, slow_now_and_then, deadline_ms=1000)
    late = [result for result in bench.outlet.results if result.late or "late" in result.reasons]
    assert late
    assert all(result.verdict is Verdict.ERR for result in late)
    assert summary.verdicts["err"] == len(late)
    assert len(bench.outlet.results) == 10


def test_stale_parts_are_dropped_before_they_cost_an_inference(
    bench: Bench, parts: ModuleType
) -> None:
    import dataclasses

    def old() -> object:
        shot = parts.shot(1)
        return dataclasses.replace(shot, captured_mono_ns=shot.captured_mono_ns - 5_000_000_000)

    warm_ups = 3
    summary = bench.run(
        {"cam": parts.ScriptedSource([old], live=True)}, mode="latest", deadline_ms=2000
    )
    assert summary.balance.dropped == {"infer:stale": 1}
    assert bench.outlet.results == []
    assert len(bench.engine.batches) == warm_ups


def test_a_lost_camera_degrades_the_line_and_comes_back(bench: Bench, parts: ModuleType) -> None:
    script = [*shots(parts, [0] * 3), CameraError("unplugged"), *shots(parts, [0] * 3)]
    bench.run({"cam": parts.ScriptedSource(script, live=True)}, mode="every")
    assert bench.numbers() == [1, 2, 3, 4, 5, 6]
    assert bench.outlet.states == [
        "STARTING", "RUNNING", "DEGRADED", "RUNNING", "DRAINING", "BYE",
    ]  # fmt: skip
    assert bench.outlet.alarms == [("camera_lost", "cam", True), ("camera_lost", "cam", False)]


@pytest.mark.parametrize("mode", ["every", "latest"])
def test_a_stop_at_a_random_moment_leaves_no_part_without_a_result(
    bench: Bench, parts: ModuleType, mode: str
) -> None:
    dice = random.Random(7)
    for _ in range(8):
        bench.outlet, bench.stop = parts.RecordingOutlet(), threading.Event()
        timer = threading.Timer(dice.uniform(0.0, 0.08), bench.stop.set)
        timer.start()
        source = parts.ScriptedSource(shots(parts, [0] * 100_000), live=True)
        summary = bench.run({"cam": source}, lambda batch: time.sleep(0.001), mode=mode)
        timer.join(60)
        assert summary.balance.balanced
        assert summary.balance.pending == 0
        assert len(bench.outlet.results) == summary.balance.results
        assert bench.outlet.states[-1] == "BYE"
        assert not source.is_open


def test_a_hanging_engine_cannot_hold_up_the_stop(bench: Bench, parts: ModuleType) -> None:
    hanging, release = threading.Event(), threading.Event()

    def hang(batch: np.ndarray) -> None:
        if len(bench.engine.batches) >= 5:
            hanging.set()
            release.wait(60)

    def stop_when_it_hangs() -> None:
        assert hanging.wait(60)
        bench.stop.set()
        asked.append(time.monotonic())

    asked: list[float] = []
    watcher = threading.Thread(target=stop_when_it_hangs)
    watcher.start()
    bench.manifest = msgspec.structs.replace(bench.manifest, batch=1)
    summary = bench.run({"cam": parts.ScriptedSource(shots(parts, [0] * 50))}, hang)
    took_s = time.monotonic() - asked[0]
    release.set()
    watcher.join(60)
    assert took_s < STOP_LIMIT_S + 1.0  # a second of grace for a loaded test machine
    assert summary.balance.balanced
    assert summary.balance.pending == 0
    stopped = [result for result in bench.outlet.results if result.reasons == ("stopped",)]
    assert stopped
    assert all(result.verdict is Verdict.ERR for result in stopped)
    assert bench.numbers() == list(range(1, summary.balance.admitted + 1))
    assert bench.outlet.states[-1] == "BYE"


def test_a_hung_engine_is_found_and_ends_the_line(bench: Bench, parts: ModuleType) -> None:
    release = threading.Event()

    def hang(batch: np.ndarray) -> None:
        if len(bench.engine.batches) >= 5:
            release.wait(60)

    bench.manifest = msgspec.structs.replace(bench.manifest, batch=1)
    source = parts.ScriptedSource(shots(parts, [0] * 50))
    with pytest.raises(EngineError, match=r"has not returned for 1.5 s"):
        bench.run({"cam": source}, hang, engine_limit_s=1.5)
    release.set()
    verdicts = [result.verdict for result in bench.outlet.results]
    assert verdicts[:2] == [Verdict.OK, Verdict.OK]
    assert set(verdicts[2:]) == {Verdict.ERR}
    assert bench.numbers() == list(range(1, len(verdicts) + 1))
    assert bench.outlet.states[-1] == "BYE"
    # The watchdog is fed only while every stage makes progress.
    assert len(bench.alive) <= 2


def test_the_watchdog_is_fed_while_parts_flow(bench: Bench, parts: ModuleType) -> None:
    script = [step for shot in shots(parts, [0] * 130) for step in (shot, None)]
    bench.run({"cam": parts.ScriptedSource(script)})
    assert bench.alive


def test_what_cannot_start_raises_and_closes_what_was_open(bench: Bench, parts: ModuleType) -> None:
    source = parts.ScriptedSource([], open_errors=[CameraError("no camera")])
    with pytest.raises(CameraError, match="no camera"):
        bench.run({"cam": source})
    assert bench.outlet.states[-1] == "BYE"

    bench.outlet = parts.RecordingOutlet(open_error=NetworkError("port 5555 is in use"))
    with pytest.raises(NetworkError, match="in use"):
        bench.run({"cam": parts.ScriptedSource(shots(parts, [0]))})

    def broken(batch: np.ndarray) -> None:
        raise EngineError("no device")

    bench.outlet = parts.RecordingOutlet()
    with pytest.raises(EngineError, match="no device"):
        bench.run({"cam": parts.ScriptedSource(shots(parts, [0]))}, broken)
    assert bench.outlet.states[-1] == "BYE"
    assert bench.ready == []


def test_a_publisher_that_fails_ends_the_line(bench: Bench, parts: ModuleType) -> None:
    def fail(result: object) -> None:
        raise NetworkError("the socket is gone")

    bench.outlet = parts.RecordingOutlet(before_result=fail)
    with pytest.raises(NetworkError, match="the socket is gone"):
        bench.run({"cam": parts.ScriptedSource(shots(parts, [0] * 3))})


def test_too_few_subscribers_end_the_wait_in_one_sentence(bench: Bench, parts: ModuleType) -> None:
    bench.outlet.arrived = 1
    with pytest.raises(NetworkError, match="fewer than 2 subscribers"):
        bench.run({"cam": parts.ScriptedSource([])}, wait_subscribers=2, wait_timeout_s=0.2)
    assert bench.outlet.results == []


def test_colours_that_changed_places_are_an_alarm_on_the_wire(
    bench: Bench, parts: ModuleType
) -> None:
    def coloured(number: int, swapped: bool) -> object:
        shot = parts.shot(number)
        assert shot.pixels is not None
        shot.pixels[1:] = (60, 100, 180) if swapped else (180, 100, 60)
        return shot

    shots = [coloured(number, False) for number in range(1, 6)]
    back = [coloured(number, True) for number in range(6, 9)]
    again = [coloured(9, False)]
    lost = CameraError("the plug was pulled")
    script = [*shots, lost, *back, lost, *again]
    bench.run({"cam": parts.ScriptedSource(script, live=True)}, mode="every", depth=20)
    changes = [alarm for alarm in bench.outlet.alarms if alarm[0] == "camera_changed"]
    assert changes == [("camera_changed", "cam", True), ("camera_changed", "cam", False)]
    assert bench.numbers() == list(range(1, 10)), "each was judged all the same"
