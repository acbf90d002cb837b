"""Endpoints: who can reach them, and what to tell people when they cannot be opened. No sockets."""

from __future__ import annotations

import errno
import ipaddress
import logging

from ..errors import ConfigError, NetworkError

log = logging.getLogger(__name__)


def check_exposure(endpoint: str, *, insecure: bool) -> None:
    """Raise NetworkError when other hosts could reach `endpoint` and no key protects it."""
    if is_loopback(endpoint):
        return
    if not insecure:
        raise NetworkError(
            f"{endpoint} can be reached by other hosts, and no keys protect it",
            "bind to 127.0.0.1, or allow it on a closed network with insecure: true",
        )
    log.warning("%s can be reached by other hosts without keys (insecure: true)", endpoint)


def is_loopback(endpoint: str) -> bool:
    """Whether only this host can reach `endpoint`. Raises ConfigError when it is not one."""
    transport, separator, address = endpoint.partition("://")
    if separator and transport in ("ipc", "inproc"):
        return True
    host, colon, port = address.rpartition(":")
    if transport != "tcp" or not colon or not host or not (port.isdecimal() and int(port) < 65536):
        raise ConfigError(
            f"{endpoint!r} is not an endpoint", "write it as tcp://127.0.0.1:5555 (port 0: any)"
        )
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def bind_problem(endpoint: str, error_number: int, text: str) -> NetworkError:
    """What went wrong with a bind, for people."""
    port = endpoint.rpartition(":")[2]
    if error_number == errno.EADDRINUSE:
        return NetworkError(
            f"port {port} is already in use ({endpoint})",
            "is another stream running on this box? stop it, or choose another port",
        )
    if error_number == errno.EACCES:
        return NetworkError(
            f"port {port} may not be opened by this user ({endpoint})", "use a port above 1023"
        )
    if error_number in (errno.ENODEV, errno.EADDRNOTAVAIL):
        return NetworkError(
            f"this box has no network address like that ({endpoint})",
            "bind to 127.0.0.1 or to one of the box's own addresses",
        )
    return NetworkError(f"cannot bind {endpoint}: {text}", "check the endpoint")
