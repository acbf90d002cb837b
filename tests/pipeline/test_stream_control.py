"""Orders over the real socket to a real `skrd4ad stream` process, read back from its events."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.subscriber import Subscriber


def test_a_stream_process_obeys_threshold_and_drain(streams: ModuleType, tiny_plan: Path) -> None:
    options = ("--camera", "test:seed=1,rate=20", "--control", "tcp://127.0.0.1:0")
    with streams.running("--plan", tiny_plan, *options) as line:
        ready = line.ready
        with Subscriber(ready["events"]) as events, ControlClient(ready["control"]) as client:
            revision = client.set_threshold(ready["threshold"] + 0.5, who="test")
            seen = None
            for item in events.items():
                header = getattr(item, "header", item)
                model = getattr(header, "model", None)
                if model is not None and model.thr_rev == revision:
                    seen = header
                    break
            assert seen is not None
            assert abs(seen.thr - (ready["threshold"] + 0.5)) < 1e-6
            client.drain()
        summary = line.summary()
        assert (summary["ended_by"], summary["balanced"]) == ("stop", True)
