"""Hand the results of a box on to a system that does not speak SKRD/1: MQTT, OPC UA or Modbus TCP.

A process of its own: however slow or dead the far side is, the line does not notice. See
docs/bridges.md for topics, nodes and registers.
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from ...errors import ConfigError
from ...redaction import keep_secret
from ..endpoints import check_exposure, is_loopback
from ..security import add_key_arguments, client_keys
from ..stopping import notify_systemd, stop_on_signals
from ..subscriber import Subscriber
from .feed import Feed
from .uplink import CircuitBreaker, Uplink, run_bridge

log = logging.getLogger(__name__)
EXIT_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="mqtt|opcua|modbus")

    def kind(name: str, does: str) -> argparse.ArgumentParser:
        one = kinds.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}. docs/bridges.md has all names.",
            formatter_class=parser.formatter_class,
        )
        _add_common(one)
        return one

    mqtt = kind("mqtt", "publish results, alarms and a retained state to an MQTT broker")
    mqtt.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT", help="where it is")
    mqtt.add_argument(
        "--password-file", type=Path, metavar="F", help="one line user:password, mode 0600"
    )
    mqtt.add_argument("--tls-ca", type=Path, metavar="F", help="the authority's certificate: TLS")
    mqtt.add_argument("--tls-cert", type=Path, metavar="F", help="our certificate, if one is asked")
    mqtt.add_argument("--tls-key", type=Path, metavar="F", help="its key")
    opcua = kind("opcua", "serve OPC UA, named as in Machinery Result")
    _add_server(opcua, "127.0.0.1:4840")
    modbus = kind("modbus", "serve coils and registers over Modbus TCP")
    _add_server(modbus, "127.0.0.1:5020")
    modbus.add_argument(
        "--cameras",
        metavar="A,B,...",
        help="the cameras of the register blocks, in this order; without it one block for all",
    )
    modbus.add_argument(
        "--max-result-age-s",
        type=float,
        default=10.0,
        metavar="S",
        help="an older result is not valid",
    )


def _add_server(one: argparse.ArgumentParser, listen: str) -> None:
    one.add_argument("--listen", default=listen, metavar="HOST:PORT", help="our own address")
    one.add_argument(
        "--insecure", action="store_true", help="allow an address that other hosts can reach"
    )


def _add_common(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--connect", default="tcp://127.0.0.1:5555", metavar="URL", help="events of the box"
    )
    one.add_argument("--replay", metavar="URL", help="its replay endpoint, to fetch lost events")
    one.add_argument(
        "--queue",
        type=int,
        default=10_000,
        metavar="N",
        help="events kept while the far side is away",
    )
    one.add_argument(
        "--max-age-ms", type=float, default=1000.0, metavar="MS", help="later is not fresh"
    )
    add_key_arguments(one)


def run(arguments: argparse.Namespace) -> int:
    if arguments.queue < 1:
        raise ConfigError(f"--queue {arguments.queue}: must be 1 or more", "leave it out")
    stream = Subscriber(
        arguments.connect,
        replay=arguments.replay,
        keys=client_keys(arguments.key, arguments.server_key),
        max_age_ms=arguments.max_age_ms,
    )
    feed = Feed(stream, arguments.queue)
    uplink = _UPLINKS[arguments.kind](arguments, feed)
    with stop_on_signals() as stop:
        feed.start()
        try:
            print(f"bridging {arguments.connect} to {uplink.name}", flush=True)
            notify_systemd("READY=1")
            run_bridge(feed, uplink, CircuitBreaker(), stop.event)
        finally:
            feed.stop()
    print(f"{feed.dropped} events dropped, {feed.waiting} not delivered", flush=True)
    return EXIT_INTERRUPTED if stop.signal == signal.SIGINT else 0


def _mqtt(arguments: argparse.Namespace, feed: Feed) -> Uplink:
    from .mqtt import MqttSettings, MqttUplink

    host, port = _address(arguments.broker, "--broker")
    user, password = None, None
    if arguments.password_file is not None:
        user, password = read_password(arguments.password_file)
    for path in (arguments.tls_ca, arguments.tls_cert, arguments.tls_key):
        if path is not None and not path.is_file():
            raise ConfigError(f"{path} does not exist", "check the path of the certificate")
    if arguments.tls_ca is None:
        if arguments.tls_cert is not None or arguments.tls_key is not None:
            raise ConfigError("--tls-cert and --tls-key need --tls-ca", "give the authority too")
        if not is_loopback(f"tcp://{host}:{port}"):
            secret = "results and password" if password else "results"
            log.warning("%s go to %s unencrypted: --tls-ca switches TLS on", secret, host)
    return MqttUplink(
        MqttSettings(
            host=host,
            port=port,
            user=user,
            password=password,
            tls_ca=arguments.tls_ca,
            tls_cert=arguments.tls_cert,
            tls_key=arguments.tls_key,
        ),
        feed.acknowledge_losses,
    )


def _opcua(arguments: argparse.Namespace, feed: Feed) -> Uplink:
    from .opcua import OpcUaUplink

    host, port = _address(arguments.listen, "--listen")
    check_exposure(f"tcp://{host}:{port}", insecure=arguments.insecure)
    return OpcUaUplink(host, port, feed.acknowledge_losses)


def _modbus(arguments: argparse.Namespace, feed: Feed) -> Uplink:
    from .modbus import ModbusUplink

    host, port = _address(arguments.listen, "--listen")
    check_exposure(f"tcp://{host}:{port}", insecure=arguments.insecure)
    cameras = tuple(name for name in (arguments.cameras or "").split(",") if name)
    return ModbusUplink(host, port, feed, cameras, arguments.max_result_age_s)


_UPLINKS: dict[str, Callable[[argparse.Namespace, Feed], Uplink]] = {
    "mqtt": _mqtt,
    "opcua": _opcua,
    "modbus": _modbus,
}


def read_password(path: Path) -> tuple[str, str]:
    """(user, password) of a file that only its owner can read. Raises ConfigError."""
    try:
        text, mode = path.read_text("utf-8"), path.stat().st_mode & 0o777
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", "write user:password into it"
        ) from None
    if mode & 0o077:
        raise ConfigError(f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}")
    user, colon, password = text.strip("\r\n").partition(":")
    if not colon or not user:
        raise ConfigError(f"{path} does not hold user:password", "one line, a colon between")
    keep_secret(password)
    return user, password


def _address(text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"{option} {text}: not an address", "write it as HOST:PORT")
    return host.strip("[]"), int(port)
