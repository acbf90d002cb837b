"""The kernel's word on which files of a folder have been completely written.

A file is complete when its writer has closed it or renamed it into place. The kernel knows both
for local folders; on a network share it only hears of writers on this machine, so whoever uses
this looks at the folder now and then as well.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from dataclasses import dataclass, field
from pathlib import Path

_MODIFY, _CLOSE_WRITE, _MOVED_TO, _CREATE = 0x2, 0x8, 0x80, 0x100
_IGNORED = 0x8000
_HEADER = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class Events:
    """Names of files since the last look."""

    complete: list[str] = field(default_factory=list)
    """In the order in which they became so."""
    being_written: set[str] = field(default_factory=set)
    """Touched, and not complete by the end of this look."""
    gone: bool = False
    """The folder itself was removed or unmounted."""


class FolderEvents:
    """Watches one folder from its construction on. Raises OSError where the kernel cannot."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "inotify_init1"):
            raise OSError(errno.ENOSYS, "this system has no inotify")
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        mask = _MODIFY | _CLOSE_WRITE | _MOVED_TO | _CREATE
        if self._libc.inotify_add_watch(self._fd, os.fsencode(folder), mask) < 0:
            code = ctypes.get_errno()
            self.close()
            raise OSError(code, os.strerror(code))

    def wait(self, timeout_s: float) -> Events:
        """What happened, at once when something has, else after `timeout_s`."""
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        if not ready:
            return Events()
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return Events()
        complete: dict[str, None] = {}
        being_written: set[str] = set()
        gone, offset = False, 0
        while offset < len(data):
            _, mask, _, length = _HEADER.unpack_from(data, offset)
            offset += _HEADER.size
            name = os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
            offset += length
            gone = gone or bool(mask & _IGNORED)
            if mask & (_CLOSE_WRITE | _MOVED_TO):
                complete[name] = None
                being_written.discard(name)
            elif mask & (_MODIFY | _CREATE) and name:
                complete.pop(name, None)
                being_written.add(name)
        return Events(list(complete), being_written, gone)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
