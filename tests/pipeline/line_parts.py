"""Real parts for tests of the line: scripted cameras, an arithmetic engine, a publisher that
writes down what it was given. Each keeps the contract of what it stands beside."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from skrd4ad.engine.backends.base import check_batch
from skrd4ad.engine.spec import Manifest, Threshold
from skrd4ad.errors import CameraError
from skrd4ad.pipeline import wire_messages as wire
from skrd4ad.pipeline.capture.base import EndOfStream, Shot
from skrd4ad.pipeline.capture.camera import CameraSettings
from skrd4ad.pipeline.clock import SYSTEM_CLOCK, Clock
from skrd4ad.pipeline.line import run_line
from skrd4ad.pipeline.line_plan import LinePlan
from skrd4ad.pipeline.line_records import LineSettings, LineSummary
from skrd4ad.pipeline.records import Part, Result

PATIENCE_S = 60.0

THRESHOLD = Threshold(
    value=0.5, target_false_reject_rate=0.01, attainable_rate=0.01, n_normals=99, method="manual"
)


class HandClock:
    """A clock that moves when told to; both faces show the same time."""

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self.now_ns = now_ns
        self.clock = Clock(wall_ns=lambda: self.now_ns, mono_ns=lambda: self.now_ns)

    def advance_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


def shot(number: int, level: int = 0, size: int = 32, clock: Clock = SYSTEM_CLOCK) -> Shot:
    """A part of one grey level; the arithmetic engine scores it level / 255 (to 1e-3: its number
    is in one corner, because a camera that repeats an image is frozen)."""
    pixels = np.full((size, size, 3), level, np.uint8)
    pixels[0, 0, 0] = number % 251
    return Shot(
        pixels=pixels,
        captured_ns=clock.wall_ns(),
        captured_mono_ns=clock.mono_ns(),
        captured_source="device",
        frame_id=number,
        part=Part(part_id=f"p{number}", trigger_seq=number, source="test", match="exact"),
        name=f"p{number}",
    )


class ScriptedSource:
    """Plays a script: a Shot is delivered, None is "nothing yet", an exception is raised, a
    callable is called and its answer played. After the script: `then` ("end" or "idle")."""

    def __init__(
        self,
        script: Iterable[object],
        *,
        live: bool = False,
        then: str = "end",
        open_errors: Iterable[CameraError | None] = (),
    ) -> None:
        self.live = live
        self._script = iter(script)
        self._then = then
        self._open_errors = iter(open_errors)
        self.calls: list[str] = []
        self.is_open = False

    def open(self) -> None:
        self.calls.append("open")
        error = next(self._open_errors, None)
        if error is not None:
            raise error
        self.is_open = True

    def configure(self) -> None:
        self.calls.append("configure")

    def grab(self, timeout_s: float) -> Shot | None:
        assert self.is_open, "grab on a closed source"
        step = next(self._script, EndOfStream() if self._then == "end" else None)
        if callable(step):
            step = step()
        if isinstance(step, BaseException):
            raise step
        if step is None:
            time.sleep(min(timeout_s, 0.01))
        assert step is None or isinstance(step, Shot)
        return step

    def close(self) -> None:
        self.calls.append("close")
        self.is_open = False


class ArithmeticEngine:
    """Scores a part by its mean grey level, 0 to 1; `before` runs ahead of every inference."""

    def __init__(
        self, manifest: Manifest, before: Callable[[np.ndarray], None] = lambda batch: None
    ) -> None:
        self.manifest = manifest
        self.description = "arithmetic"
        self._before = before
        self.threads: set[str] = set()
        self.batches: list[int] = []

    def infer(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_batch(self.manifest, batch)
        self.threads.add(threading.current_thread().name)
        self._before(batch)
        self.batches.append(len(batch))
        spec = self.manifest.input
        mean = np.array(spec.mean, np.float32)[:, None, None]
        std = np.array(spec.std, np.float32)[:, None, None]
        levels = (batch * std + mean).mean(axis=(1, 2, 3)).astype(np.float32)
        maps = np.broadcast_to(levels[:, None, None], (len(batch), spec.height, spec.width))
        return np.ascontiguousarray(maps), levels

    def __enter__(self) -> ArithmeticEngine:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


@dataclass
class RecordingOutlet:
    """Writes down what is published, and checks that one thread alone does it."""

    arrived: int = 1_000_000
    results: list[Result] = field(default_factory=list)
    log: list[tuple[object, ...]] = field(default_factory=list)
    heartbeats: list[wire.HealthFields] = field(default_factory=list)
    before_result: Callable[[Result], None] = lambda result: None
    open_error: Exception | None = None
    _threads: set[int] = field(default_factory=set)

    def open(self) -> None:
        self._here()
        if self.open_error is not None:
            raise self.open_error

    def send_result(self, result: Result, dropped_since_boot: int = 0) -> int:
        self._here()
        self.before_result(result)
        self.results.append(result)
        return len(self.results)

    def send_state(self, state: str, text: str = "") -> int:
        self._here()
        self.log.append(("state", state))
        return 0

    def send_alarm(self, name: str, active: bool, text: str = "", camera: str = "") -> int:
        self._here()
        if (name, camera, active) not in self._active_now(name, camera, active):
            self.log.append(("alarm", name, camera, active))
        return 0

    def heartbeat_if_due(self, snapshot: Callable[[], wire.HealthFields]) -> bool:
        self._here()
        self.heartbeats.append(snapshot())
        return True

    @property
    def subscribers(self) -> int:
        return self.arrived

    def wait_for_subscribers(self, count: int, timeout_s: float) -> bool:
        return True

    def close(self, text: str = "") -> None:
        self._here()
        self.log.append(("state", "BYE"))

    @property
    def states(self) -> list[object]:
        return [entry[1] for entry in self.log if entry[0] == "state"]

    @property
    def alarms(self) -> list[tuple[object, ...]]:
        return [entry[1:] for entry in self.log if entry[0] == "alarm"]

    def _active_now(self, name: str, camera: str, active: bool) -> set[tuple[str, str, bool]]:
        """As the real publisher: starting an active alarm, or ending none, sends nothing."""
        past = [entry[3] for entry in self.log if entry[:3] == ("alarm", name, camera)]
        current = bool(past[-1]) if past else False
        return {(name, camera, active)} if current == active else set()

    def _here(self) -> None:
        self._threads.add(threading.get_ident())
        assert len(self._threads) == 1, "the publisher was called from two threads"


class LineThread:
    """`run_line` in a thread of its own; what it raises comes out of `wait` and `end`."""

    def __init__(
        self,
        cameras: Sequence[CameraSettings],
        plans: Sequence[LinePlan],
        outlet: RecordingOutlet,
        settings: LineSettings | None = None,
        **more: object,
    ) -> None:
        self.stop = threading.Event()
        self._failure: BaseException | None = None
        self._arguments = (cameras, plans, outlet, settings or LineSettings(), self.stop)
        self._thread = threading.Thread(target=self._run, kwargs=more, daemon=True)
        self._thread.start()

    def _run(self, **more: object) -> None:
        try:
            self._summary = run_line(*self._arguments, **more)  # type: ignore[arg-type]
        except BaseException as error:
            self._failure = error

    def wait(self, condition: Callable[[], object], said: Callable[[], object] = str) -> None:
        """Until the condition holds; `said` is what to show when it never does."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self._failure is not None:
                raise self._failure
            assert time.monotonic() < deadline, said()
            time.sleep(0.002)

    def join(self) -> LineSummary:
        """Wait for its end."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the line does not end"
        if self._failure is not None:
            raise self._failure
        return self._summary

    def end(self) -> LineSummary:
        self.stop.set()
        return self.join()
