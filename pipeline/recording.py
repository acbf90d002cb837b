"""What `listen --record DIR` keeps: events as JSON lines, 64-byte records, maps as images."""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from ..engine.atomic import write_atomically
from ..engine.images import write_png
from ..errors import ConfigError
from .wire import Message, ResultMessage
from .wire_map import MapMessage
from .wire_record import pack_record


class Recording:
    """A folder with `events.jsonl`, `records.bin` (64 bytes a result) and `maps/`.

    Each event is on disk (flushed to the system) before the next is read, so a kill loses at most
    the line being written. Refuses to write into an earlier recording (ConfigError).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._events = (folder / "events.jsonl").open("xb", buffering=0)
            self._records = (folder / "records.bin").open("xb", buffering=0)
        except FileExistsError:
            raise ConfigError(
                f"{folder} already holds a recording", "name another folder with --record"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"cannot record into {folder}: {error.strerror}", "name a folder you may write"
            ) from None

    def add(self, message: Message) -> None:
        """Write one event; a map becomes two files."""
        if isinstance(message, MapMessage):
            save_map(self.folder / "maps", message)
            return
        self._events.write(msgspec.json.encode(message.header) + b"\n")
        if isinstance(message, ResultMessage):
            self._records.write(pack_record(message.record))

    def close(self) -> None:
        """Close the files."""
        self._events.close()
        self._records.close()

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def save_map(folder: Path, message: MapMessage) -> tuple[Path, Path]:
    """`<camera>-<seq>.png` (grey, 255 = twice the threshold) and `.npy` (float32), atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{message.header.cam}-{message.header.seq:08d}"
    picture, values = folder / f"{stem}.png", folder / f"{stem}.npy"
    buffer = io.BytesIO()
    np.save(buffer, message.values(), allow_pickle=False)
    write_atomically(values, buffer.getvalue())
    write_png(picture, message.raw())
    return picture, values
