"""One array and the facts about it in a .npz file, without pickle."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..built_types import built
from ..engine.atomic import write_atomically
from ..engine.spec import Record
from ..errors import CalibrationError

Facts = TypeVar("Facts", bound=Record)
_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    zipfile.BadZipFile,
    msgspec.DecodeError,
)


def store_array(path: Path, name: str, array: NDArray[Any], facts: Record) -> None:
    """Write `array` under `name` and its facts (as JSON) into `path`, atomically."""
    buffer = io.BytesIO()
    written = np.frombuffer(msgspec.json.encode(facts), np.uint8)
    np.savez_compressed(buffer, allow_pickle=False, **{name: array, "facts": written})
    write_atomically(path, buffer.getvalue())


def load_array(
    path: Path, name: str, facts: type[Facts], what: str, hint: str
) -> tuple[NDArray[Any], Facts]:
    """Read such a file. Raises CalibrationError "`path` is not `what`" when it is none."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return stored[name], msgspec.json.decode(stored["facts"].tobytes(), type=built(facts))
    except _UNREADABLE as error:
        raise CalibrationError(f"{path} is not {what}: {error}", hint) from error
