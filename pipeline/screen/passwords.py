"""The password file: who may see the page from another computer.

One line for each person, `name:role:scrypt:n:r:p:salt:hash` (salt and hash in hexadecimal, RFC
7914). Made and changed with `skrd4ad serve --set-password NAME --password-file FILE`; mode 0600.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError, NetworkError
from ..topics import is_name
from .access import Role

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1000
_N, _R, _P = 2**15, 8, 1
_MEMORY = 64 * 1024 * 1024
_LINE = re.compile(
    r"([^:]+):(viewer|engineer):scrypt:([0-9]{1,7}):([0-9]{1,2}):([0-9]{1,2}):([0-9a-f]{32}):([0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class _Hashed:
    role: Role
    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def fits(self, password: str) -> bool:
        found = _scrypt(password, self.salt, self.n, self.r, self.p)
        return hmac.compare_digest(found, self.digest)


class Passwords:
    """Who may log in. Raises NetworkError for a file that is missing, open to others or damaged."""

    def __init__(self, path: Path) -> None:
        self._people = read_people(path)
        if not self._people:
            raise NetworkError(f"{path} names nobody", _hint(path))
        self._nobody = _hashed(secrets.token_hex(16), "viewer")

    def role_of(self, name: str, password: str) -> Role | None:
        """The person's role when this is the password. A name that is unknown takes as long."""
        if len(password) > LONGEST_PASSWORD:
            return None
        known = self._people.get(name)
        fits = (known or self._nobody).fits(password)
        return known.role if fits and known is not None else None


def read_people(path: Path) -> dict[str, _Hashed]:
    """Name -> hash. Raises NetworkError."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "it is not text"
        raise NetworkError(
            f"the password file {path} cannot be read: {text}", _hint(path)
        ) from None
    if mode & 0o077:
        raise NetworkError(
            f"{path} can be read by other users (mode {mode:04o})", f"chmod 600 {path}"
        )
    people = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        n, r, p = (0, 0, 0) if found is None else (int(found[at]) for at in (3, 4, 5))
        if found is None or not _affordable(n, r, p):
            raise NetworkError(f"{path}, line {number} is not a password line", _hint(path))
        role: Role = "engineer" if found[2] == "engineer" else "viewer"
        people[found[1]] = _Hashed(role, n, r, p, bytes.fromhex(found[6]), bytes.fromhex(found[7]))
    return people


def set_password(path: Path, name: str, password: str, role: Role = "viewer") -> None:
    """Add a person to the file, or change a password. Raises ConfigError or NetworkError."""
    if not is_name(name):
        raise ConfigError(f"{name!r} cannot be a name", "use letters, digits, '_' and '-'")
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise ConfigError(
            f"the password has {len(password)} characters; it needs {SHORTEST_PASSWORD} or more",
            "four words that do not belong together are a good one",
        )
    people = read_people(path) if path.exists() else {}
    people[name] = _hashed(password, role)
    text = "".join(
        f"{who}:{one.role}:scrypt:{one.n}:{one.r}:{one.p}:{one.salt.hex()}:{one.digest.hex()}\n"
        for who, one in people.items()
    )
    _write_private(path, text.encode())


def _write_private(path: Path, content: bytes) -> None:
    # Not engine.atomic: this file must never be readable by others, not even for a moment.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "check folder") from error


def _hashed(password: str, role: Role) -> _Hashed:
    salt = secrets.token_bytes(16)
    return _Hashed(role, _N, _R, _P, salt, _scrypt(password, salt, _N, _R, _P))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=n,
        r=r,
        p=p,
        maxmem=_MEMORY,
        dklen=32,
    )


def _affordable(n: int, r: int, p: int) -> bool:
    """A power of two within our memory; what OpenSSL would refuse is refused at start."""
    return n >= 2**14 and n & (n - 1) == 0 and r >= 1 and p >= 1 and 128 * r * (n + p + 2) < _MEMORY


def _hint(path: Path) -> str:
    return f"make one with: skrd4ad serve --set-password NAME --password-file {path}"
