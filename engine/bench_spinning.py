"""What it costs when ONNX Runtime's idle threads spin, and when they sleep: `bench --spinning`.

A line works in bursts: a part, then nothing. Spinning threads answer a little sooner and burn the
cores in between, which capture and publishing need as well. Both sessions take turns in one run.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from .backends.onnxruntime_cpu import INPUT, MAP, MODEL, SCORE, open_session
from .plan import Plan
from .threads import machine_threads

PAUSE_S = 0.03
"""Between two parts, as on a line of about 20 parts a second."""
MIN_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class SpinningFigures:
    """Medians of sleeping over medians of spinning: below 1, sleeping is the better one."""

    rounds: int
    latency_back_to_back: float
    latency_with_pauses: float
    cpu_time_with_pauses: float

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"idle threads that sleep against idle threads that spin, {self.rounds} rounds:",
            f"{self.latency_back_to_back:>10.3f} x the latency, image after image",
            f"{self.latency_with_pauses:>10.3f} x the latency with {PAUSE_S * 1e3:.0f} ms between",
            f"{self.cpu_time_with_pauses:>10.3f} x the CPU time of the process, pauses included",
        ]


def measure_spinning(plan: Plan, seconds: float) -> SpinningFigures:
    """Compare for about `seconds` on `plan` (an onnxruntime plan)."""
    model = plan.read(MODEL)
    sessions = [open_session(model, machine_threads(), spinning) for spinning in (False, True)]
    height, width = plan.manifest.input.height, plan.manifest.input.width
    shape = (plan.manifest.batch, 3, height, width)
    batch = np.random.default_rng(0).standard_normal(shape, np.float32)
    latencies: dict[tuple[int, float], list[float]] = {}
    cpu: dict[int, list[float]] = {0: [], 1: []}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < MIN_ROUNDS + 1 or time.perf_counter() < end:
        for pause in (0.0, PAUSE_S):
            # In an order that reverses, so that neither always follows the other's burst.
            for index in (0, 1) if rounds % 2 else (1, 0):
                cpu_start, start = time.process_time(), time.perf_counter()
                sessions[index].run((MAP, SCORE), {INPUT: batch})
                taken = time.perf_counter() - start
                time.sleep(pause)
                if rounds:  # the first round warms up
                    latencies.setdefault((index, pause), []).append(taken)
                    if pause:
                        cpu[index].append(time.process_time() - cpu_start)
        rounds += 1
    medians = {key: float(np.median(values)) for key, values in latencies.items()}
    return SpinningFigures(
        rounds=rounds - 1,
        latency_back_to_back=medians[0, 0.0] / medians[1, 0.0],
        latency_with_pauses=medians[0, PAUSE_S] / medians[1, PAUSE_S],
        cpu_time_with_pauses=float(np.median(cpu[0]) / np.median(cpu[1])),
    )
