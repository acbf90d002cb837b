"""Key files: who may connect, and as what. Text files that can be read, copied and reviewed.

    keys/server.secret          of the box, mode 0600, never leaves it
    keys/server.key             its public half: every client needs a copy
    keys/allowed/press3.key     public key and role of a client that may connect

A public key is 40 characters (Z85). Removing a file from `allowed` locks the client out at its next
connection; no restart is needed.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import msgspec

from ..built_types import built
from ..engine.atomic import write_atomically
from ..errors import NetworkError
from ..redaction import keep_secret
from .topics import is_name

Role = Literal["viewer", "gate", "engineer"]
ROLES: tuple[Role, ...] = get_args(Role)
DOMAIN_ROLES: dict[str, frozenset[Role]] = {
    "events": frozenset(ROLES),
    "maps": frozenset({"viewer", "engineer"}),
    "replay": frozenset({"viewer", "engineer"}),
    "control": frozenset(ROLES),
}
"""Which roles may use which socket. What each may ask of control is in control_wire.py."""
_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One `.key` file."""

    name: str
    role: str
    """A role, or "server" for the box itself."""
    public: str


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One `.secret` file."""

    name: str
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"SecretKey(name={self.name!r}, public={self.public!r})"


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    public: str
    role: str = ""
    secret: str = ""


def write_key_pair(folder: Path, name: str, role: str, public: str, secret: str) -> None:
    """`name.key` and `name.secret` (mode 0600). Raises NetworkError rather than overwrite."""
    if not is_name(name):
        raise NetworkError(f"{name!r} cannot be the name of a key", "use letters, digits, '_', '-'")
    folder.mkdir(parents=True, exist_ok=True)
    secret_path = folder / f"{name}.secret"
    try:
        descriptor = os.open(secret_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise NetworkError(
            f"{secret_path} exists already", "a key in use is not replaced; remove it first"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(_encode(_KeyFile(name=name, public=public, secret=secret)))
        os.fsync(file.fileno())
    write_public_key(folder / f"{name}.key", PublicKey(name, role, public))


def write_public_key(path: Path, key: PublicKey) -> None:
    """One `.key` file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _encode(_KeyFile(name=key.name, public=key.public, role=key.role)))


def read_public_key(path: Path) -> PublicKey:
    """Raises NetworkError for a file that is missing or not a public key."""
    found = _read(path)
    if found.secret:
        raise NetworkError(f"{path} is a secret key, not a public one", "give the .key file")
    return PublicKey(found.name, found.role, found.public)


def read_secret_key(path: Path) -> SecretKey:
    """Raises NetworkError for a file that is missing, not a secret key, or open to others."""
    found = _read(path)
    if not _KEY.fullmatch(found.secret):
        raise NetworkError(f"{path} holds no secret key", "give the .secret file")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise NetworkError(
            f"{path} can be read by other users (mode {mode:04o})", f"chmod 600 {path}"
        )
    keep_secret(found.secret)
    return SecretKey(found.name, found.public, found.secret)


def allowed_keys(folder: Path) -> dict[str, PublicKey]:
    """Public key -> who it is, from `folder/allowed`. Files that are damaged allow nobody."""
    found = {}
    for path in sorted((folder / "allowed").glob("*.key")):
        try:
            key = read_public_key(path)
        except NetworkError:
            continue
        if key.role in ROLES:
            found[key.public] = key
    return found


def _encode(content: _KeyFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def _read(path: Path) -> _KeyFile:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=built(_KeyFile))
    except OSError as error:
        raise NetworkError(
            f"the key {path} cannot be read: {error.strerror}", "make one with: skrd4ad keys new"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NetworkError(f"{path} is not a key file", "make one with: skrd4ad keys new") from None
    # The name becomes part of a path and of log lines.
    if not _KEY.fullmatch(found.public) or not is_name(found.name):
        raise NetworkError(f"{path} holds no key", "make one with: skrd4ad keys new")
    return found
