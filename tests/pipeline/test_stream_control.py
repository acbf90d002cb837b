"""Orders over the real socket to a real `skrd4ad stream` process, read back from its events."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.subscriber import Subscriber


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_stream_process_obeys_threshold_and_drain(tiny_plan: Path) -> None:
    control = f"tcp://127.0.0.1:{free_port()}"
    line = subprocess.Popen(
        [
            *(sys.executable, "-m", "skrd4ad", "stream", "--plan", str(tiny_plan)),
            *("--camera", "test:seed=1,rate=20", "--control", control, "--json"),
            *("--events", "tcp://127.0.0.1:0", "--maps", "tcp://127.0.0.1:0"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert line.stdout is not None
        ready = json.loads(line.stdout.readline())
        with Subscriber(ready["events"]) as events, ControlClient(control) as client:
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
        out, _ = line.communicate(timeout=20)
        summary = json.loads(out.splitlines()[-1])
        assert (line.returncode, summary["ended_by"], summary["balanced"]) == (0, "stop", True)
    finally:
        line.kill()
        line.wait(10)
