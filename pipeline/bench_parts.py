"""What the bench puts in the place of cameras and network, and what it compares the line with."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from ..engine.backends.base import Engine, check_batch
from ..engine.preprocess import to_network_input
from ..engine.spec import Manifest
from .capture.base import EndOfStream, Shot
from .capture.pace import Pace
from .clock import SYSTEM_CLOCK, Clock

_DISTINCT_FRAMES = 16


class NullEngine:
    """An engine that takes no time: maps and scores are zero. What remains is the line."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.description = "null engine (nothing is inspected)"
        self._maps = np.zeros((manifest.batch, manifest.input.height, manifest.input.width), "f4")

    def infer(self, batch: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        check_batch(self.manifest, batch)
        return self._maps[: len(batch)], np.zeros(len(batch), np.float32)

    def __enter__(self) -> NullEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


@dataclass
class MemorySource:
    """`count` frames from memory in turn, at `rate_hz` or as fast as they are taken."""

    frames: list[NDArray[np.uint8]]
    count: int
    rate_hz: float | None = None
    clock: Clock = SYSTEM_CLOCK
    live: bool = False

    def open(self) -> None:
        self._number, self._pace = 0, Pace(self.rate_hz, self.clock)

    def configure(self) -> None:
        self._pace.restart()

    def grab(self, timeout_s: float) -> Shot | None:
        wait_s = self._pace.wait_s()
        if wait_s > 0:
            time.sleep(min(wait_s, timeout_s))
        if self._number == self.count:
            raise EndOfStream
        if wait_s > timeout_s:
            return None
        self._pace.advance()
        self._number += 1
        pixels = self.frames[self._number % len(self.frames)]
        return Shot(pixels, self.clock.wall_ns(), self.clock.mono_ns(), "device")

    def close(self) -> None:
        """Nothing is held."""


def bare_inference(engine: Engine, frames: list[NDArray[np.uint8]], count: int) -> float:
    """Seconds a part for inference alone, on inputs prepared beforehand."""
    spec = engine.manifest.input
    inputs = [to_network_input(frame, spec)[None] for frame in frames]
    began = time.perf_counter()
    for number in range(count):
        engine.infer(inputs[number % len(inputs)])
    return (time.perf_counter() - began) / count


def plain_loop(engine: Engine, video: Path) -> float:
    """Seconds a part of the loop everybody writes first; it sends JSON in datagrams."""
    spec = engine.manifest.input
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    capture = cv2.VideoCapture(str(video))
    count, began = 0, time.perf_counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        while True:
            ok, image = capture.read()
            if not ok:
                break
            small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (spec.width, spec.height))
            scaled = (small.astype(np.float32) / 255 - mean) / std
            _, scores = engine.infer(np.ascontiguousarray(scaled.transpose(2, 0, 1))[None])
            out.sendto(json.dumps({"score": float(scores[0])}).encode(), ("127.0.0.1", 9))
            count += 1
    capture.release()
    return (time.perf_counter() - began) / count


def bench_frames(width: int, height: int) -> list[NDArray[np.uint8]]:
    """Smooth random pictures: they compress and resize as photographs do."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (_DISTINCT_FRAMES, 12, 16, 3), np.uint8)
    return [
        np.asarray(cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        for one in coarse
    ]


def write_video(path: Path, frames: list[NDArray[np.uint8]], count: int) -> Path:
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), code, 30, (width, height))
    for frame in islice((frame for _ in range(count) for frame in frames), count):
        writer.write(frame[:, :, ::-1])
    writer.release()
    return path
