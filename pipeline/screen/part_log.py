"""The judged parts as columns: what charts and the threshold preview are computed from.

38 bytes a part, so that an hour at 50 parts a second takes seven megabytes and no more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..topics import VERDICTS
from ..wire_messages import ResultHeader

CAPACITY = 200_000
_DTYPE = np.dtype(
    [
        ("t_ns", np.int64),
        ("seq", np.int64),
        ("score", np.float32),
        ("threshold", np.float32),
        ("latency_ms", np.float32),
        ("boot", np.int32),
        ("revision", np.int32),
        ("verdict", np.uint8),
        ("camera", np.uint8),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class JudgedParts:
    """Parts in the order of their events; every column has shape (n,)."""

    t_ns: NDArray[np.int64]
    """When the result was published (Unix, ns)."""
    seq: NDArray[np.int64]
    score: NDArray[np.float32]
    """NaN for a part that was not inspected."""
    threshold: NDArray[np.float32]
    latency_ms: NDArray[np.float32]
    verdict: NDArray[np.uint8]
    """Place in topics.VERDICTS."""
    camera: NDArray[np.uint8]
    """Equal for parts of one camera."""
    revision: NDArray[np.int32]
    """Of the threshold that judged the part."""
    boot: tuple[str, ...]
    boot_of: NDArray[np.int32]
    """Place in `boot`."""

    def __len__(self) -> int:
        return int(self.t_ns.size)


class PartLog:
    """The newest `capacity` parts of one box. Not thread-safe."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._rows = np.empty(capacity, _DTYPE)
        self._written = 0
        self._boots: list[str] = []
        self._cameras: list[str] = []

    def append(self, header: ResultHeader) -> None:
        """Note one result."""
        self._rows[self._written % self._rows.size] = (
            header.t_pub,
            header.seq,
            np.nan if header.score is None else header.score,
            np.nan if header.thr is None else header.thr,
            header.lat_us.total / 1000,
            _place(self._boots, header.boot),
            header.model.thr_rev,
            VERDICTS.index(header.verdict),
            min(_place(self._cameras, header.cam), 255),
        )
        self._written += 1

    def extend(self, other: PartLog) -> None:
        """Note all parts of `other` after those that are here."""
        rows = other._in_order().copy()
        boots = [_place(self._boots, name) for name in other._boots]
        cameras = [min(_place(self._cameras, name), 255) for name in other._cameras]
        if rows.size:
            rows["boot"] = np.array(boots, np.int32)[rows["boot"]]
            rows["camera"] = np.array(cameras, np.uint8)[rows["camera"]]
        rows = rows[-self._rows.size :]
        place = (self._written + np.arange(rows.size)) % self._rows.size
        self._rows[place] = rows
        self._written += rows.size

    def saw_run(self, boot: str) -> bool:
        """Whether a part of this run of the line's program was noted, ever."""
        return boot in self._boots

    def __len__(self) -> int:
        return min(self._written, self._rows.size)

    def parts(self, camera: str = "", newest: int | None = None) -> JudgedParts:
        """The last `newest` parts (None: all) of `camera` ("": of all cameras)."""
        rows = self._in_order()
        if camera:
            known = self._cameras.index(camera) if camera in self._cameras else -1
            rows = rows[rows["camera"] == known]
        if newest is not None:
            rows = rows[max(rows.size - newest, 0) :]
        return JudgedParts(
            t_ns=rows["t_ns"].copy(),
            seq=rows["seq"].copy(),
            score=rows["score"].copy(),
            threshold=rows["threshold"].copy(),
            latency_ms=rows["latency_ms"].copy(),
            verdict=rows["verdict"].copy(),
            camera=rows["camera"].copy(),
            revision=rows["revision"].copy(),
            boot=tuple(self._boots),
            boot_of=rows["boot"].copy(),
        )

    def _in_order(self) -> NDArray[np.void]:
        size = self._rows.size
        if self._written <= size:
            return self._rows[: self._written]
        return np.roll(self._rows, -(self._written % size))


def _place(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)
