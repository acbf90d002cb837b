"""A subscriber that once met something else at the box's address finds the box all the same."""

from __future__ import annotations

import time
from types import ModuleType

import pytest
import zmq
from skrd4ad.pipeline.clock import Clock
from skrd4ad.pipeline.publish import Publisher, PublishSettings
from skrd4ad.pipeline.subscriber import REDIAL_NS, Subscriber
from skrd4ad.pipeline.wire import ResultMessage


@pytest.mark.parametrize("stranger", ["another kind of socket", "a box with keys"])
def test_the_box_is_called_anew_after_silence(stranger: str, box_parts: ModuleType) -> None:
    ahead_ns = 0
    clock = Clock(
        wall_ns=lambda: time.time_ns() + ahead_ns, mono_ns=lambda: time.monotonic_ns() + ahead_ns
    )
    endpoint = f"tcp://127.0.0.1:{box_parts.free_port()}"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    other = context.socket(zmq.ROUTER if stranger == "another kind of socket" else zmq.XPUB)
    if stranger == "a box with keys":
        other.curve_publickey, other.curve_secretkey = zmq.curve_keypair()
        other.curve_server = True
    other.bind(endpoint)
    door = other.get_monitor_socket(zmq.EVENT_ACCEPTED)
    with Subscriber(endpoint, clock=clock) as stream:
        assert door.poll(30_000), "the subscriber never came"
        stream.receive(1.0)  # libzmq finds out that this is not a publisher of ours
        other.disable_monitor()
        door.close(linger=0)
        other.close(linger=0)
        context.term()
        settings = PublishSettings(events=endpoint, maps="tcp://127.0.0.1:0", map_policy="none")
        with Publisher(settings, "edge07") as publisher:

            def heard() -> bool:
                publisher.send_result(box_parts.result(1))
                return isinstance(stream.receive(0.1), ResultMessage)

            # Without a new call it would stay silent for ever; that is what this test is for.
            assert not any(heard() for _ in range(15))
            ahead_ns = REDIAL_NS
            box_parts.wait_for(heard, "an event")
