"""The bridge to an MQTT broker: results at least once, and a retained state that cannot go stale.

    skrd4ad/<box>/<camera>/res        each result, QoS 1
    skrd4ad/<box>/<camera>/replayed   a result that was lost on the way and fetched later
    skrd4ad/<box>/alarm               each alarm
    skrd4ad/<box>/state               retained: birth, state, and the last will
    skrd4ad/<box>/acknowledge         to us: somebody has looked at the lost events

The broker itself publishes the last will when this process or its network dies.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from ..clock import SYSTEM_CLOCK, Clock
from ..subscriber import Replayed
from ..wire import ResultMessage
from .feed import Entry, View
from .uplink import UplinkLost

log = logging.getLogger(__name__)
ROOT = "skrd4ad"
WINDOW = 50
"""Messages on their way that the broker has not acknowledged yet."""
ANSWER_S = 5.0
KEEPALIVE_S = 5
_REPEAT_STATE_NS = 5_000_000_000


class MqttSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is and how it lets us in."""

    host: str
    port: int = 1883
    user: str | None = None
    password: str | None = None
    tls_ca: Path | None = None
    """Certificate of the authority that signed the broker's; switches TLS on."""
    tls_cert: Path | None = None
    tls_key: Path | None = None


class BridgeState(msgspec.Struct, frozen=True, kw_only=True):
    """The retained message on skrd4ad/<box>/state."""

    online: bool
    """False: nothing is known about the box now, whatever else stands here."""
    reason: str
    """Why not online: "box silent", "bridge stopped", or "bridge lost" (the last will)."""
    session: str
    """New with every connection: pairs a birth with its last will."""
    boot: str
    state: str = ""
    act: bool = False
    """Whether verdicts may be acted on (alive, fresh, contiguous and valid)."""
    seq: int = 0
    missing: int = 0
    counts: dict[str, int] = {}
    alarms: tuple[int, ...] = ()
    dropped_by_bridge: int = 0


class MqttUplink:
    """See uplink.Uplink. One paho client per connection: each has a last will of its own."""

    needs_box = True

    def __init__(
        self,
        settings: MqttSettings,
        acknowledge: Callable[[], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = f"mqtt broker {settings.host}:{settings.port}"
        self._settings = settings
        self._acknowledge = acknowledge
        self._clock = clock
        self._client: paho.Client | None = None
        self._answered = threading.Event()
        self._refusal = ""
        self._lost = ""
        self._acknowledged: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._unacknowledged: OrderedDict[int, tuple[Entry, int]] = OrderedDict()
        self._session = self._boot = self._box = ""
        self._state: BridgeState | None = None
        self._state_sent_ns = 0

    def open(self, view: View) -> None:
        self._box, self._boot, self._session = view.box, view.boot, secrets.token_hex(4)
        self._answered.clear()
        self._refusal = self._lost = ""
        self._state = None
        # Numbers of the last connection mean nothing on this one.
        self._acknowledged = queue.SimpleQueue()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            # Always the same: a broker that still holds our last connection ends that one, and
            # publishes its last will, before it accepts this one. So no will overtakes a birth.
            client_id=f"skrd4ad-{self._box}",
            reconnect_on_failure=False,
        )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish(self._acknowledged)
        client.max_inflight_messages_set(WINDOW)
        settings = self._settings
        if settings.user is not None:
            client.username_pw_set(settings.user, settings.password)
        will = self._offline("bridge lost")
        client.will_set(f"{ROOT}/{self._box}/state", msgspec.json.encode(will), 1, True)
        try:
            if settings.tls_ca is not None:
                client.tls_set(
                    str(settings.tls_ca),
                    None if settings.tls_cert is None else str(settings.tls_cert),
                    None if settings.tls_key is None else str(settings.tls_key),
                )
            client.connect_timeout = ANSWER_S
            client.connect(settings.host, settings.port, keepalive=KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise UplinkLost(f"{settings.host}:{settings.port}: {error}") from None
        self._client = client
        client.loop_start()
        if not self._answered.wait(ANSWER_S):
            raise UplinkLost(f"{settings.host}:{settings.port} does not answer as a broker")
        if self._refusal:
            raise UplinkLost(f"{settings.host}:{settings.port} refuses: {self._refusal}")
        client.subscribe(f"{ROOT}/{self._box}/acknowledge", qos=1)

    def send(self, entry: Entry) -> None:
        message = entry.message if isinstance(entry, Replayed) else entry
        if isinstance(message, ResultMessage):
            kind = "replayed" if isinstance(entry, Replayed) else "res"
            topic = f"{ROOT}/{self._box}/{message.header.cam}/{kind}"
        else:
            topic = f"{ROOT}/{self._box}/alarm"
        self._take_acknowledgements()
        deadline = time.monotonic() + ANSWER_S
        while len(self._unacknowledged) >= WINDOW:
            self._check_connection()
            if time.monotonic() > deadline:
                raise UplinkLost(f"the broker has not acknowledged anything for {ANSWER_S:g} s")
            self._take_acknowledgements(wait_s=0.05)
        number = self._publish(topic, msgspec.json.encode(message.header), retain=False)
        self._unacknowledged[number] = (entry, self._clock.mono_ns())

    def tick(self, view: View, dropped: int) -> None:
        self._take_acknowledgements()
        self._check_connection()
        now_ns = self._clock.mono_ns()
        oldest = next(iter(self._unacknowledged.values()), None)
        if oldest is not None and now_ns - oldest[1] > ANSWER_S * 1e9:
            raise UplinkLost(f"the broker has not acknowledged an event for {ANSWER_S:g} s")
        if view.boot != self._boot:
            raise UplinkLost("the box is a new process: a new birth and last will are due")
        state = self._online(view, dropped, now_ns)
        before = self._state
        changed = before is None or _important(state) != _important(before)
        if changed or now_ns - self._state_sent_ns > _REPEAT_STATE_NS:
            self._state, self._state_sent_ns = state, now_ns
            self._publish(f"{ROOT}/{self._box}/state", msgspec.json.encode(state), retain=True)

    def undelivered(self) -> list[Entry]:
        self._take_acknowledgements()
        left = [entry for entry, _ in self._unacknowledged.values()]
        self._unacknowledged.clear()
        return left

    def close(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        if self._answered.is_set() and not self._lost and not self._refusal:
            farewell = msgspec.json.encode(self._offline("bridge stopped"))
            told = client.publish(f"{ROOT}/{self._box}/state", farewell, 1, True)
            try:
                told.wait_for_publish(1.0)
            except (RuntimeError, ValueError) as error:
                log.warning("%s: no farewell, the last will speaks: %s", self.name, error)
        client.disconnect()
        client.loop_stop()

    # ---- called by paho's thread ------------------------------------------------------------

    def _on_connect(
        self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        self._refusal = str(reason) if reason.is_failure else ""
        self._answered.set()

    def _on_disconnect(
        self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        self._lost = str(reason) or "closed"
        self._answered.set()

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        # A retained one was meant for losses of another day.
        if not message.retain:
            log.info("an MQTT client acknowledged the lost events")
            self._acknowledge()

    def _on_publish(self, acknowledged: queue.SimpleQueue[int]) -> Any:
        """paho holds a lock of its own while it calls this: nothing may be waited for here."""

        def note(client: Any, data: Any, number: int, reason: Any, properties: Any) -> None:
            acknowledged.put(number)

        return note

    # ---- the bridge's thread ----------------------------------------------------------------

    def _publish(self, topic: str, payload: bytes, retain: bool) -> int:
        assert self._client is not None, "open() comes first"
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            raise UplinkLost(f"the connection is gone ({paho.error_string(info.rc)})")
        return info.mid

    def _take_acknowledgements(self, wait_s: float = 0.0) -> None:
        """Forget what the broker has; `wait_s` waits that long for the first acknowledgement."""
        block = wait_s > 0
        while True:
            try:
                number = self._acknowledged.get(block, wait_s)
            except queue.Empty:
                return
            self._unacknowledged.pop(number, None)
            block = False

    def _check_connection(self) -> None:
        if self._lost:
            raise UplinkLost(f"the broker is gone ({self._lost})")

    def _offline(self, reason: str) -> BridgeState:
        return BridgeState(online=False, reason=reason, session=self._session, boot=self._boot)

    def _online(self, view: View, dropped: int, now_ns: int) -> BridgeState:
        heard, beat = view.heard(now_ns), view.heartbeat
        return BridgeState(
            online=heard,
            reason="" if heard else "box silent",
            session=self._session,
            boot=view.boot,
            state=view.status.state,
            act=view.trusted(now_ns),
            seq=view.status.last_seq,
            missing=view.status.missing,
            counts={} if beat is None else msgspec.to_builtins(beat.counts),
            alarms=() if beat is None else beat.alarms,
            dropped_by_bridge=dropped,
        )


def _important(state: BridgeState) -> tuple[object, ...]:
    """What is told at once; counters follow every five seconds."""
    return (state.online, state.reason, state.boot, state.state, state.act, state.alarms)
