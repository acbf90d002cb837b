"""The operator's page in a browser: verdict, defect map, counters, alarms. Its own process.

It only subscribes, so it can neither slow nor stop the line; it works without internet, and waits
for a line that is not there yet. For this computer only, unless --insecure says otherwise.
"""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from types import FrameType

from .live import LiveView
from .subscriber import Subscriber
from .web_server import PageServer

logger = logging.getLogger(__name__)

_TICK_S = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect", default="tcp://127.0.0.1:5555", metavar="URL", help="the events endpoint"
    )
    parser.add_argument(
        "--maps", default="tcp://127.0.0.1:5556", metavar="URL", help="the maps endpoint"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="where the page is served"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="allow --listen on an address other hosts reach: anybody there can read the page",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted. The feeding thread owns the sockets of the stream."""
    view, stop = LiveView(), threading.Event()
    failures: list[BaseException] = []
    with Subscriber(arguments.connect, arguments.maps) as stream:
        server = PageServer(arguments.listen, view, insecure=arguments.insecure)

        def follow() -> None:
            try:
                feed(stream, view, stop)
            except BaseException as error:  # carried to the main thread, which raises it
                failures.append(error)
                server.shutdown()

        feeder = threading.Thread(target=follow, name="feed")
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            feeder.start()
            print(f"the page is at {server.url} (Ctrl-C ends it)", flush=True)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("the page is closed", flush=True)
        finally:
            signal.signal(signal.SIGTERM, before)
            stop.set()
            view.close()
            feeder.join()
            server.server_close()
    if failures:
        raise failures[0]
    return 0


def feed(stream: Subscriber, view: LiveView, stop: threading.Event) -> None:
    """Everything the stream says goes into the view, until `stop`. Silence is shown, not an end."""
    while not stop.is_set():
        item = stream.receive(_TICK_S)
        status = stream.status()
        if item is None:
            view.tick(status)
        else:
            view.take(item, status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
