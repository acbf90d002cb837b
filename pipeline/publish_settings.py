"""What the station file may say about publishing, checked before anything is opened."""

from __future__ import annotations

import msgspec

from ..errors import ConfigError, NetworkError
from .choice import is_policy
from .endpoints import check_exposure, is_loopback
from .journal import JournalSettings
from .topics import is_name


class PublishSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`publish:` of the station file. An endpoint ending in ":0" takes a free port."""

    events: str = "tcp://127.0.0.1:5555"
    maps: str = "tcp://127.0.0.1:5556"
    map_policy: str = "ng"
    """"ng" (all but ok), "all", "every:N" (each N-th part, and all but ok) or "none"."""
    heartbeat_ms: int = 500
    linger_ms: int = 500
    """How long `close` may wait for the last events to leave."""
    insecure: bool = False
    """True allows endpoints that other hosts can reach, without keys. Logged at each start."""
    keys: str | None = None
    """Folder of keys (`skrd4ad keys`): only clients on its list connect; all is encrypted."""
    journal: JournalSettings | None = None
    """Keep all events on disk; `seq` then goes on where the last process ended."""
    replay: str | None = None
    """Endpoint that hands out past events, for example tcp://127.0.0.1:5557; needs the journal."""
    control: str | None = None
    """Endpoint that takes orders, for example tcp://127.0.0.1:5558. Beyond this computer only with
    keys, also where `insecure` is true."""


def check_settings(settings: PublishSettings, box: str) -> None:
    """Raise ConfigError for a name, policy or combination that cannot be.

    Raises NetworkError for an endpoint that other hosts can reach without keys.
    """
    if not is_name(box):
        raise ConfigError(
            f"box: {box!r} cannot be a box's name",
            "use 1 to 63 letters, digits, '_', '.' or '-'",
        )
    if not is_policy(settings.map_policy):
        raise ConfigError(
            f"map_policy: {settings.map_policy!r} is not ng, all, every:N or none",
            "for example: map_policy: every:10",
        )
    if settings.replay is not None and settings.journal is None:
        raise ConfigError("replay: there is nothing to replay", "add a journal: with its path")
    if settings.control is not None and settings.keys is None and not is_loopback(settings.control):
        raise NetworkError(
            f"control: {settings.control} can be reached by other hosts, and no keys protect it",
            "bind to 127.0.0.1, or add keys: (skrd4ad keys new)",
        )
    endpoints = [settings.events, settings.maps, *([settings.replay] if settings.replay else [])]
    endpoints += [settings.control] if settings.control else []
    for endpoint in endpoints:
        if settings.keys is None:
            check_exposure(endpoint, insecure=settings.insecure)
        else:
            is_loopback(endpoint)  # raises for what is not an endpoint
