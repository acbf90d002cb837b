"""The boxes of a page: each is followed on a thread of its own that owns the sockets of its stream.

Following is subscribing, and a subscriber cannot hold a publisher back. Only feedback and
thresholds are sent, on request, over the box's control socket.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...errors import ConfigError, SkrdError
from ..clock import SYSTEM_CLOCK
from ..control_client import ControlClient
from ..control_wire import Truth
from ..replay import replay_client
from ..security import ClientKeys
from ..stream_check import Gap
from ..subscriber import Subscriber
from ..wire import ResultMessage
from .live import LiveView
from .shelf import Key

log = logging.getLogger(__name__)

_TICK_S = 0.2
_FORGET_LOSSES_S = 60.0
_PAST_EVENTS = 20_000
_PAST_PATIENCE_S = 5.0
_ANSWER_S = 3.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where one box is found; replay and control may be missing."""

    events: str
    maps: str
    replay: str | None = None
    control: str | None = None
    keys: ClientKeys | None = None


class Box:
    """One line that is followed until `close`."""

    def __init__(
        self,
        endpoints: Endpoints,
        view: LiveView,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.endpoints, self.view = endpoints, view
        self._on_failure = on_failure
        self._stop = threading.Event()
        self._asking = threading.Lock()
        name = endpoints.events
        self._threads = [threading.Thread(target=self._follow, name=f"follow {name}")]
        if endpoints.replay is not None:
            # A daemon: it may sit in a request to a box that does not answer.
            past = threading.Thread(target=self._fetch_past, name=f"past {name}", daemon=True)
            self._threads.append(past)
        self._stream = Subscriber(
            endpoints.events,
            endpoints.maps,
            pictures=True,
            replay=endpoints.replay,
            keys=endpoints.keys,
        )

    def open(self) -> None:
        """Connect and follow. Raises ConfigError for what is not an endpoint."""
        self._stream.open()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop following. Safe to call twice, and before `open`."""
        self._stop.set()
        if self._threads[0].ident is not None:
            self._threads[0].join()
        self._stream.close()

    def feedback(self, key: Key, truth: Truth, who: str) -> None:
        """Tell the box what the part of an event was. Raises ControlRefused or NetworkError with
        its reason, ConfigError where no control socket was named."""
        if not self.view.saw_run(key[0]):
            # The box counts on after a restart only with a journal; without, numbers repeat.
            raise ConfigError("this page saw no part of that run of the line")
        with self._control() as line:
            line.feedback(key[1], truth, who)
        self.view.mark(key, truth, who)

    def set_threshold(self, value: float, camera: str, region: str, who: str) -> int:
        """Have the box judge by `value` from the next part on; the new revision. Raises as
        `feedback` does."""
        with self._control() as line:
            return line.set_threshold(value, camera, region, who)

    @contextmanager
    def _control(self) -> Iterator[ControlClient]:
        # One order at a time: an operator who clicks twice waits, and the box has one client.
        if self.endpoints.control is None:
            raise ConfigError(
                "this page was started without the box's control socket",
                "skrd4ad serve --control tcp://BOX:5558",
            )
        endpoint, keys = self.endpoints.control, self.endpoints.keys
        with self._asking, ControlClient(endpoint, keys, patience_s=_ANSWER_S) as line:
            yield line

    def _follow(self) -> None:
        try:
            feed(self._stream, self.view, self._stop)
        except BaseException as error:  # carried to the main thread, which raises it
            self._on_failure(error)

    def _fetch_past(self) -> None:
        """Results from before the page was opened, as far as the box has them."""
        assert self.endpoints.replay is not None
        try:
            with replay_client(self.endpoints.replay, self.endpoints.keys) as client:
                now, _ = client.snapshot(_PAST_PATIENCE_S)
                first = max(now.newest - _PAST_EVENTS + 1, now.oldest)
                found = [
                    message.header
                    for message in client.events(first, now.newest, _PAST_PATIENCE_S)
                    if isinstance(message, ResultMessage) and not self._stop.is_set()
                ]
            log.info("%d earlier parts of %s", self.view.remember(found), now.box)
        except SkrdError as error:
            # The page is worth having without its past.
            log.warning("no earlier parts: %s", error.sentence)


def feed(stream: Subscriber, view: LiveView, stop: threading.Event) -> None:
    """Everything the stream says goes into the view, until `stop`. Silence is shown, not an end.

    A loss on the way to this page is shown for a minute and then accepted: the line lost nothing,
    and a warning that never goes is one that nobody reads.
    """
    lost_ns: int | None = None
    while not stop.is_set():
        item = stream.receive(_TICK_S)
        now_ns = SYSTEM_CLOCK.mono_ns()
        if isinstance(item, Gap):
            lost_ns = now_ns
        elif lost_ns is not None and now_ns - lost_ns > _FORGET_LOSSES_S * 1e9:
            stream.check.forget_gaps()
            lost_ns = None
        status = stream.status()
        if item is None:
            view.tick(status)
        else:
            view.take(item, status)
