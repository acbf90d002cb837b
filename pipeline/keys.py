"""Make and list the keys that protect a box's sockets (docs/wire.md, section 10).

`keys new DIR` makes the box's own pair; `keys new DIR --client NAME --role viewer|gate|engineer` a
client's; `keys allow DIR FILE` lets a client in; `keys list DIR` shows who may connect.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ConfigError, NetworkError
from .key_files import (
    ROLES,
    PublicKey,
    allowed_keys,
    read_public_key,
    write_key_pair,
    write_public_key,
)
from .security import new_key_pair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="new|allow|list")
    new = actions.add_parser("new", help="make a key pair")
    new.add_argument("folder", type=Path, metavar="DIR")
    new.add_argument("--client", metavar="NAME", help="for a client; without, for the box")
    new.add_argument("--role", choices=ROLES, default="viewer", help="what the client may do")
    allow = actions.add_parser("allow", help="let a client in")
    allow.add_argument("folder", type=Path, metavar="DIR", help="the box's folder of keys")
    allow.add_argument("key", type=Path, metavar="FILE", help="the client's .key file")
    allow.add_argument("--role", choices=ROLES, help="another role than the file says")
    show = actions.add_parser("list", help="who may connect")
    show.add_argument("folder", type=Path, metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder
    if arguments.action == "new":
        return _new(folder, arguments.client, arguments.role)
    if arguments.action == "allow":
        return _allow(folder, arguments.key, arguments.role)
    return _list(folder)


def _new(folder: Path, client: str | None, role: str) -> int:
    name = client or "server"
    if client == "server":
        raise ConfigError("--client server: that is the box's own name", "choose another name")
    write_key_pair(folder, name, role if client else "server", *new_key_pair())
    print(f"{folder / name}.secret   keep it on this computer, mode 0600")
    print(f"{folder / name}.key      public: {'give it to every client' if not client else ''}")
    if client:
        print(f"on the box: skrd4ad keys allow KEYS {name}.key")
    return 0


def _allow(folder: Path, path: Path, role: str | None) -> int:
    key = read_public_key(path)
    chosen = role or key.role
    if chosen not in ROLES:
        raise NetworkError(f"{path} has no client's role", "add --role viewer, gate or engineer")
    write_public_key(
        folder / "allowed" / f"{key.name}.key", PublicKey(key.name, chosen, key.public)
    )
    print(f"{key.name} may connect as {chosen}, from now on")
    return 0


def _list(folder: Path) -> int:
    server = read_public_key(folder / "server.key")
    print(f"{server.public}  server")
    for key in sorted(allowed_keys(folder).values(), key=lambda key: key.name):
        print(f"{key.public}  {key.role:8}  {key.name}")
    return 0
