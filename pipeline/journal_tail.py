"""The last events in a memory-mapped file: what was published survives the end of the process.

SQLite commits on its own thread, some milliseconds after an event was published. An event is
therefore first written here (a memory copy, some microseconds); after a crash the journal takes
over what it does not have yet. Survives SIGKILL; a power cut may lose what the kernel had not
written to the disk, as it may with the journal itself.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

SLOTS = 1024
SLOT_BYTES = 10 * 1024
"""Topic (at most 140 bytes), header (8 KB) and record (64 bytes) fit with room to spare."""
_HEAD = struct.Struct("<IIQHHH")
"""crc32 of the rest, total length, seq, lengths of the three parts."""


class JournalTail:
    """A ring of the newest 1024 events in `path` (10 MB, allocated at once).

    Raises OSError when the file cannot be created at its full size.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # All blocks now: writing to a mapped hole of a full disk would kill the process.
            os.posix_fallocate(descriptor, 0, SLOTS * SLOT_BYTES)
            self._map = mmap.mmap(descriptor, SLOTS * SLOT_BYTES)
        finally:
            os.close(descriptor)

    def write(self, seq: int, parts: Sequence[bytes]) -> None:
        """Keep one event of three parts; the one 1024 numbers before it is forgotten."""
        topic, header, record = parts
        body = b"".join(parts)
        lengths = struct.pack("<IQHHH", len(body), seq, len(topic), len(header), len(record))
        at = (seq % SLOTS) * SLOT_BYTES
        entry = struct.pack("<I", zlib.crc32(body, zlib.crc32(lengths))) + lengths + body
        assert len(entry) <= SLOT_BYTES, "the encoder bounds its messages"
        self._map[at : at + len(entry)] = entry

    def read(self) -> list[tuple[int, list[bytes]]]:
        """All events that are whole, oldest first; one torn by a crash is left out."""
        found = []
        for slot in range(SLOTS):
            at = slot * SLOT_BYTES
            head = self._map[at : at + _HEAD.size]
            crc, total, seq, topic, header, record = _HEAD.unpack(head)
            if seq % SLOTS != slot or total != topic + header + record:
                continue
            if total == 0 or total > SLOT_BYTES - _HEAD.size:
                continue
            body = self._map[at + _HEAD.size : at + _HEAD.size + total]
            if crc == zlib.crc32(body, zlib.crc32(head[4:])):
                parts = [body[:topic], body[topic : topic + header], body[topic + header :]]
                found.append((seq, parts))
        return sorted(found, key=lambda entry: entry[0])

    def close(self) -> None:
        """Unmap; the kernel writes what is left."""
        self._map.close()
