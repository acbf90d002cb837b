"""Signals as a request to stop, and systemd told how the service is."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Stop:
    """Set by a signal handler, which may do nothing more than that."""

    event: threading.Event = field(default_factory=threading.Event)
    signal: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Ctrl-C and SIGTERM set the stop; a second one ends the process in the ordinary way."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers: tuple[int, int] = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}

    def request(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        stop.event.set()
        signal.signal(number, previous[number])

    for number in previous:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def notify_systemd(state: str) -> bool:
    """Send READY=1, WATCHDOG=1, STOPPING=1 or STATUS=... to systemd; False when it is not there.

    sd_notify(3): one datagram to the socket named by NOTIFY_SOCKET ("@" for an abstract one).
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.sendto(state.encode(), address)
    except OSError as error:
        log.warning("systemd cannot be told '%s': %s", state, error)
        return False
    return True
