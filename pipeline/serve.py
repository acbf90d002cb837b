"""The operator's page in a browser: verdicts, pictures, defect maps, alarms. Its own process.

It only subscribes, so it can neither slow nor stop the line; it works without internet, and waits
for a line that is not there yet. An address that other computers reach needs a password file.
"""

from __future__ import annotations

import argparse
import getpass
import logging
import signal
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ..errors import ConfigError, NetworkError
from .background import yield_to_the_line
from .screen.access import ROLES, Access, Role
from .screen.api import Site
from .screen.boxes import Box, Endpoints
from .screen.changes import Changes
from .screen.live import LiveView
from .screen.passwords import Passwords, set_password
from .screen.region_desk import RegionDesk
from .screen.web_server import PageServer
from .security import ClientKeys, client_keys

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connect",
        action="append",
        metavar="URL",
        help="the events endpoint of a box; repeat it for several boxes on one page "
        "(default: tcp://127.0.0.1:5555)",
    )
    each = "once for each --connect, in the same order"
    parser.add_argument(
        "--maps",
        action="append",
        metavar="URL",
        help=f"the maps endpoint, {each} (default: the port after that of the events)",
    )
    parser.add_argument(
        "--replay",
        action="append",
        metavar="URL",
        help=f"the replay endpoint, {each}: parts from before the page was opened",
    )
    parser.add_argument(
        "--control",
        action="append",
        metavar="URL",
        help=f"the control endpoint, {each}: takes the operators' feedback",
    )
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="our .secret, where the boxes use keys"
    )
    parser.add_argument(
        "--server-key",
        type=Path,
        action="append",
        metavar="FILE",
        help=f"the box's server.key, {each}",
    )
    parser.add_argument(
        "--regions", type=Path, metavar="DIR", help="keep regions drawn in the browser here"
    )
    parser.add_argument(
        "--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="where the page is served"
    )
    parser.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="who may log in; needed where --listen is reached from other computers",
    )
    parser.add_argument(
        "--set-password",
        metavar="NAME",
        help="add NAME to the password file, or change the password, and end",
    )
    parser.add_argument(
        "--role",
        choices=ROLES,
        default="viewer",
        help="what everybody may do on a page without passwords, or NAME of --set-password: a "
        "viewer looks and gives feedback, an engineer also stores regions and changes the "
        "threshold (default: viewer)",
    )
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name under which browsers ask for the page",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve https: PEM chain")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="and its private key")


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    if arguments.set_password is not None:
        return _set_password(arguments.set_password, arguments.password_file, arguments.role)
    endpoints = box_endpoints(arguments)
    passwords = None if arguments.password_file is None else Passwords(arguments.password_file)
    access = Access(passwords, arguments.host_name, local_role=arguments.role)
    desk = None if arguments.regions is None else RegionDesk(arguments.regions)
    tls = _tls(arguments.tls_cert, arguments.tls_key)
    failures: list[BaseException] = []
    servers: list[PageServer] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        for server in servers:
            server.shutdown()

    changes = Changes()
    boxes = tuple(Box(one, LiveView(one.events, changes), fail) for one in endpoints)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        servers.append(PageServer(arguments.listen, Site(boxes, access, changes, desk), tls))
        yield_to_the_line()
        for box in boxes:
            box.open()
        print(f"the page is at {servers[0].url} (Ctrl-C ends it)", flush=True)
        servers[0].serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        print("the page is closed", flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)
        changes.close()
        for box in boxes:
            box.close()
        for server in servers:
            server.server_close()
    if failures:
        raise failures[0]
    return 0


def box_endpoints(arguments: argparse.Namespace) -> list[Endpoints]:
    """One for each --connect. Raises ConfigError when another option does not fit in number."""
    connect: list[str] = arguments.connect or ["tcp://127.0.0.1:5555"]
    maps = _one_each("--maps", arguments.maps, connect) or [_next_port(url) for url in connect]
    none: list[str | None] = [None] * len(connect)
    replay = _one_each("--replay", arguments.replay, connect) or none
    control = _one_each("--control", arguments.control, connect) or none
    keys = _keys(arguments.key, arguments.server_key, connect)
    return [Endpoints(*one) for one in zip(connect, maps, replay, control, keys, strict=True)]


def _one_each(option: str, given: list[str] | None, connect: Sequence[str]) -> list[str]:
    if given and len(given) != len(connect):
        raise ConfigError(
            f"{option} is there {len(given)} times, --connect {len(connect)} times",
            f"name {option} for all boxes in the order of --connect, or for none",
        )
    return given or []


def _next_port(url: str) -> str:
    host, _, port = url.rpartition(":")
    if not port.isdecimal():
        raise ConfigError(f"{url!r} has no port, so the maps' cannot be guessed", "give --maps too")
    return f"{host}:{int(port) + 1}"


def _keys(
    secret: Path | None, servers: list[Path] | None, connect: Sequence[str]
) -> list[ClientKeys | None]:
    _one_each("--server-key", [str(path) for path in servers or ()], connect)
    none: list[Path | None] = [None] * len(connect)
    return [client_keys(secret, server) for server in servers or none]


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError("--tls-cert and --tls-key go together", "both are PEM files")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise NetworkError(
            f"{certificate} and {key} cannot be used: {error.strerror or error}",
            "a certificate in PEM and the private key that belongs to it",
        ) from None
    return context


def _set_password(name: str, path: Path | None, role: Role) -> int:
    if path is None:
        raise ConfigError("--set-password needs --password-file FILE", "where it is to be kept")
    if sys.stdin.isatty():
        password = getpass.getpass(f"a password for {name}: ")
        if getpass.getpass("once more: ") != password:
            raise ConfigError("the two passwords differ", "try again")
    else:
        password = sys.stdin.readline().rstrip("\n")
    set_password(path, name, password, role)
    print(f"{name} ({role}) is in {path}")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
