"""A file that other programs see either not at all or complete.

Every product file (plan, picture, record) is written beside its place, flushed to the disk and then
moved there in one step, so a power cut leaves the old file or the new one and never half of one.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from ..errors import ConfigError


def write_atomically(path: Path, *chunks: bytes | memoryview) -> None:
    """Write `chunks` one after the other to `path`; the folder is made when it is missing.

    Raises ConfigError when the folder cannot be written. Nothing is left behind on any failure.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_and_flush(temporary, chunks)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror or error}",
            "check that the folder exists, is writable and has room",
        ) from error


def _write_and_flush(path: Path, chunks: tuple[bytes | memoryview, ...]) -> None:
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut (a folder can be opened only on POSIX)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
