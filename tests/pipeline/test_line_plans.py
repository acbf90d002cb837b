"""Several cameras and several plans on one line: who is judged with whom, by what, how soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
from skrd4ad.engine.plan import load_plan
from skrd4ad.engine.spec import Manifest, Region, Regions
from skrd4ad.errors import ConfigError, EngineError
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.line import run_line
from skrd4ad.pipeline.line_plan import LinePlan, seats
from skrd4ad.pipeline.line_records import LineSettings, LineSummary
from skrd4ad.pipeline.records import Result, Verdict
from skrd4ad.pipeline.view import View
from skrd4ad.pipeline.wire_messages import ModelFields


@pytest.fixture(scope="module")
def manifest(tiny_plan: Path) -> Manifest:
    return load_plan(tiny_plan).manifest


@dataclass
class Hall:
    """A line of several plans, each of an arithmetic engine that adds an offset to the scores."""

    parts: ModuleType
    manifest: Manifest
    plans: list[LinePlan] = field(default_factory=list)
    batches: dict[str, list[list[int]]] = field(default_factory=dict)
    """By plan: the grey levels of each batch after the warm-up."""
    threads: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.outlet = self.parts.RecordingOutlet()

    def plan(
        self,
        name: str,
        views: dict[str, View] | None,
        offset: float = 0.0,
        batch: int = 4,
        before: Callable[[np.ndarray], None] = lambda batch: None,
    ) -> None:
        hall, own = self, msgspec.structs.replace(self.manifest, batch=batch)
        seen = self.batches.setdefault(name, [])

        class Engine(self.parts.ArithmeticEngine):  # type: ignore[name-defined,misc]
            warm_ups = 3

            def infer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
                hall.threads.add(threading.current_thread().name)
                before(images)
                maps, scores = super().infer(images)
                self.warm_ups -= 1
                if self.warm_ups < 0:
                    seen.append([round(float(score) * 255) for score in scores])
                return maps + np.float32(offset), scores + np.float32(offset)

        threshold = msgspec.structs.replace(self.parts.THRESHOLD, value=0.5 + offset)
        model = ModelFields(name=name, plan=f"digest {name}")
        self.plans.append(LinePlan(lambda: Engine(own), threshold, name, model, views))

    def run(self, sources: dict[str, object], **settings: object) -> LineSummary:
        return run_line(
            [
                CameraSettings(name, lambda source=source: source)
                for name, source in sources.items()
            ],
            self.plans,
            self.outlet,
            LineSettings(**settings),
            threading.Event(),
        )

    def of(self, camera: str) -> list[Result]:
        return [result for result in self.outlet.results if result.camera == camera]


@pytest.fixture
def hall(parts: ModuleType, manifest: Manifest) -> Hall:
    return Hall(parts, manifest)


def shots(parts: ModuleType, count: int, level: int, every_s: float = 0.0) -> Iterator[object]:
    def shot(number: int) -> object:
        if every_s:
            time.sleep(every_s)
        return parts.shot(number, level)

    return ((lambda number=number: shot(number)) for number in range(1, count + 1))


@pytest.mark.parametrize("mode", ["every", "latest"])
def test_two_plans_judge_their_own_cameras_on_one_thread(hall: Hall, mode: str) -> None:
    plain = View(hall.manifest.input)
    hall.plan("screws", {"a": plain, "b": plain})
    hall.plan("caps", {"c": plain}, offset=2.0, batch=2)
    levels = {"a": 10, "b": 200, "c": 90}
    summary = hall.run(
        {
            name: hall.parts.ScriptedSource(shots(hall.parts, 60, level), live=mode == "latest")
            for name, level in levels.items()
        },
        mode=mode,
    )
    assert summary.balance.balanced
    assert summary.balance.admitted == 180
    assert hall.threads == {"infer"}
    for camera, level in levels.items():
        plan, offset = ("caps", 2.0) if camera == "c" else ("screws", 0.0)
        own = hall.of(camera)
        numbers = [result.camera_seq for result in own]
        assert numbers == (list(range(1, 61)) if mode == "every" else sorted(set(numbers)))
        for result in own:
            assert result.model is not None
            assert (result.model.name, result.model.plan) == (plan, f"digest {plan}")
            assert result.threshold == 0.5 + offset
            assert result.score == pytest.approx(level / 255 + offset, abs=1e-2)
            assert result.verdict is (Verdict.NG if level > 127 else Verdict.OK)
    # No batch holds parts of both plans, and each keeps to its own size.
    for plan, own_levels, most in (("screws", {10, 200}, 4), ("caps", {90}, 2)):
        assert {level for batch in hall.batches[plan] for level in batch} <= own_levels
        assert max(map(len, hall.batches[plan])) <= most
    assert [health.backend for health in hall.outlet.heartbeats][-1] == "arithmetic"


def test_parts_of_four_cameras_meet_in_a_batch_when_they_may_wait(hall: Hall) -> None:
    hall.plan("p", None, batch=4)
    sources = {
        name: hall.parts.ScriptedSource(shots(hall.parts, 25, 50, every_s=0.01)) for name in "abcd"
    }
    hall.run(sources, batch_wait_ms=200.0, depth=1)
    sizes = [len(batch) for batch in hall.batches["p"]]
    assert sum(sizes) == 100
    # With 200 ms of patience and a part every 10 ms from each only the end leaves a batch unfilled.
    assert sizes.count(4) >= 20


def test_a_batch_that_cannot_fill_goes_after_its_wait(hall: Hall) -> None:
    """One of the two cameras is idle: the other's parts wait for the bound, and no longer."""
    hall.plan("p", None, batch=2)
    busy = hall.parts.ScriptedSource(shots(hall.parts, 5, 50))
    quiet = hall.parts.ScriptedSource([lambda: time.sleep(0.6)])
    hall.run({"busy": busy, "quiet": quiet}, batch_wait_ms=50.0, depth=1)
    waited_ms = [result.latency.queue_us / 1000 for result in hall.of("busy")]
    assert len(waited_ms) == 5
    assert min(waited_ms[:4]) >= 49
    assert sorted(waited_ms)[2] < 500, "the median part waited ten times its bound"


def test_without_a_wait_a_single_part_is_judged_at_once(hall: Hall) -> None:
    hall.plan("p", None, batch=8)
    hall.run({"a": hall.parts.ScriptedSource(shots(hall.parts, 10, 50, every_s=0.005))})
    assert sorted(result.latency.queue_us for result in hall.of("a"))[5] < 20_000


def test_a_fast_camera_makes_only_itself_wait(hall: Hall) -> None:
    """A folder that is always ready beside a camera with a part now and then: the second one's
    parts do not queue behind the folder's."""
    hall.plan("p", None, batch=1, before=lambda batch: time.sleep(0.004))
    done = threading.Event()

    def slow() -> Iterator[object]:
        yield from shots(hall.parts, 20, 200, every_s=0.03)
        done.set()

    def fast() -> Iterator[object]:
        number = 0
        while not done.is_set():
            number += 1
            yield lambda number=number: hall.parts.shot(number, 10)

    hall.run(
        {"fast": hall.parts.ScriptedSource(fast()), "slow": hall.parts.ScriptedSource(slow())},
        depth=16,
    )
    waits = [result.latency.queue_us for result in hall.of("slow")]
    behind = [result.latency.queue_us for result in hall.of("fast")]
    assert len(waits) == 20
    # 16 of the fast one's parts wait before its newest; of them at most two go ahead of the slow's.
    assert np.median(waits) < np.median(behind) / 3


def test_regions_and_thresholds_are_a_cameras_own(hall: Hall) -> None:
    half = Region(name="left", polygon=((-0.5, -0.5), (15.5, -0.5), (15.5, 31.5), (-0.5, 31.5)))
    drawn = Regions(
        image_width=32, image_height=32, regions=(msgspec.structs.replace(half, threshold=0.2),)
    )
    spec = hall.manifest.input
    hall.plan("p", {"strict": View(spec, regions=drawn), "plain": View(spec)})
    hall.run(
        {name: hall.parts.ScriptedSource(shots(hall.parts, 5, 90)) for name in ("strict", "plain")}
    )
    assert {result.verdict for result in hall.of("plain")} == {Verdict.OK}
    assert {result.threshold for result in hall.of("plain")} == {0.5}
    for result in hall.of("strict"):
        assert (result.verdict, result.threshold) == (Verdict.NG, 0.2)
        assert [defect.region for defect in result.defects] == ["left"]


def test_regions_of_another_size_end_the_line_with_the_first_picture(hall: Hall) -> None:
    drawn = Regions(image_width=640, image_height=480)
    spec = hall.manifest.input
    hall.plan("p", {"cam": View(spec, regions=drawn)})
    with pytest.raises(ConfigError, match=r"camera cam: .*640 x 480 pixels, but .*has 32 x 32"):
        hall.run({"cam": hall.parts.ScriptedSource(shots(hall.parts, 50, 90))})
    # What was admitted by then has its result.
    assert hall.outlet.results[0].reasons == ("wrong_image",)
    assert {result.verdict for result in hall.outlet.results} == {Verdict.ERR}
    assert hall.outlet.states[-1] == "BYE"


def test_one_engine_that_does_not_open_ends_the_line_and_closes_the_other(
    hall: Hall, parts: ModuleType
) -> None:
    plain = View(hall.manifest.input)
    left: list[str] = []

    class Engine(parts.ArithmeticEngine):  # type: ignore[name-defined,misc]
        def __exit__(self, *exc: object) -> None:
            left.append("closed")

    def broken() -> object:
        raise EngineError("built for another GPU")

    hall.plans = [
        LinePlan(lambda: Engine(hall.manifest), parts.THRESHOLD, "good", views={"a": plain}),
        LinePlan(broken, parts.THRESHOLD, "bad", views={"b": plain}),
    ]
    with pytest.raises(EngineError, match="another GPU"):
        hall.run({name: parts.ScriptedSource(shots(parts, 5, 90)) for name in ("a", "b")})
    assert left == ["closed"]


def test_each_camera_has_one_plan(parts: ModuleType, manifest: Manifest) -> None:
    plain = View(manifest.input)

    def plan(name: str, *cameras: str) -> LinePlan:
        views = dict.fromkeys(cameras, plain) or None
        return LinePlan(
            lambda: parts.ArithmeticEngine(manifest), parts.THRESHOLD, name, views=views
        )

    slots = seats([plan("p", "a"), plan("rest")], ["a", "b", "c"], 1)
    assert [slot.cameras for slot in slots] == [("a",), ("b", "c")]
    for plans in ([plan("p", "a")], [plan("p", "a", "b"), plan("q", "b")]):
        with pytest.raises(ValueError, match="each camera needs one plan"):
            seats(plans, ["a", "b"], 1)
