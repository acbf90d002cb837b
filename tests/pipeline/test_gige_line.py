"""The whole way on a GigE Vision camera: orders over the control socket to `skrd4ad stream`, which
triggers Aravis' fake camera; the events come back with the ids of the orders. What happens when
the camera is lost is in test_aravis_line.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from skrd4ad.pipeline.control_client import ControlClient
from skrd4ad.pipeline.control_port import ControlRefused
from skrd4ad.pipeline.subscriber import Subscriber
from skrd4ad.pipeline.wire import ResultMessage, StateMessage
from skrd4ad.pipeline.wire_messages import ResultHeader

ORDERS = 40
SPACING_S = 0.025
"""The fake camera looks for triggers a hundred times a second."""


@pytest.fixture(scope="module")
def fake(gige: ModuleType) -> Iterator[object]:
    with gige.the_only_one() as camera:
        yield camera


class Stream:
    """A stream on the camera, its events as they come, and orders by number."""

    def __init__(self, streams: ModuleType, plan: Path, folder: Path, uri: str) -> None:
        station = folder / "station.yaml"
        station.write_text(
            f"""
plan: {plan}
cameras:
- name: top
  uri: "{uri}?width=128&height=96&fps=100&exposure_us=2000&trigger=software"
  trigger: {{limit_ms: 3000, under_way: 64}}
publish: {{control: "tcp://127.0.0.1:0"}}
"""
        )
        self._running = streams.running("--station", station)
        self._line = self._running.__enter__()
        self.results: list[ResultHeader] = []
        self.over = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(self._line.ready["events"],))
        self._thread.start()
        assert self._listening.wait(60)
        self.control = ControlClient(self._line.ready["control"], patience_s=60)
        self.given: list[int] = []

    def _listen(self, endpoint: str) -> None:
        with Subscriber(endpoint) as events:
            for item in events.items(silent_s=60):
                self._listening.set()
                assert hasattr(item, "header"), item
                if isinstance(item, ResultMessage):
                    self.results.append(item.header)
                elif isinstance(item, StateMessage) and item.header.state == "BYE":
                    self.over.set()
                    return

    def order(self) -> None:
        try:
            self.given.append(self.control.trigger(f"A-{len(self.given) + 1}", "top"))
        except ControlRefused as refusal:
            if "under way" not in refusal.sentence:
                raise
        time.sleep(SPACING_S)

    def end(self) -> dict[str, object]:
        self.control.drain()
        self.control.close()
        assert self.over.wait(60)
        self._thread.join(60)
        summary: dict[str, object] = self._line.summary()
        return summary

    def kill(self) -> None:
        self._running.__exit__(None, None, None)


def test_orders_over_the_socket_come_back_as_events_with_their_ids(
    streams: ModuleType, fake: object, tiny_plan: Path, tmp_path: Path
) -> None:
    stream = Stream(streams, tiny_plan, tmp_path, fake.uri)
    try:
        while len(stream.given) < ORDERS:
            stream.order()
        summary = stream.end()
    finally:
        stream.kill()
    assert stream.given == list(range(1, ORDERS + 1))
    assert [one.part.trigger_seq for one in stream.results] == stream.given
    assert [one.part.id for one in stream.results] == [f"A-{number}" for number in stream.given]
    seen = [one for one in stream.results if one.evaluated]
    # On a busy machine a picture may be lost, or two orders fall into one of the camera's ticks.
    assert len(seen) > 0.7 * ORDERS
    assert {one.part.match for one in seen} == {"exact"}
    assert len({one.frame.id for one in seen}) == len(seen)
    assert (summary["parts"], summary["balanced"]) == (ORDERS, True)
