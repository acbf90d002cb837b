"""The training images in memory: decoded once, seen by the teacher once.

The teacher never changes, so without augmentation its features are constants and are computed a
single time when they fit into memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..engine.images import read_rgb
from ..engine.preprocess import crop_and_resize, normalise
from ..engine.spec import InputSpec
from .network import Network
from .nuisance import Nuisance, disturb

log = logging.getLogger(__name__)

GIB = 1 << 30


class ImageStore:
    """Good parts as the network sees them. Raises DataError at once if any cannot be read."""

    def __init__(self, paths: Sequence[Path], spec: InputSpec, cache_gib: float) -> None:
        self.paths = tuple(paths)
        self.spec = spec
        need = len(self.paths) * spec.height * spec.width * 3
        self._pixels: list[NDArray[np.uint8]] | None = None
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            # Also without a cache every file is read now: a corrupt one must be named before
            # hours of training, not in the middle of them.
            if need <= cache_gib * GIB:
                self._pixels = list(pool.map(self._read, self.paths))
            else:
                log.info("%d images exceed image_cache_gib: read when needed", len(self.paths))
                for _ in pool.map(lambda path: self._read(path).shape, self.paths):
                    pass

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, index: int) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) of one image."""
        return self._read(self.paths[index]) if self._pixels is None else self._pixels[index]

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """float32 (n, 3, H, W), normalised, on the CPU."""
        return self._stack([self.pixels(int(index)) for index in indices])

    def disturbed_batch(
        self, indices: NDArray[np.int64], nuisance: Nuisance, key: list[int], first_place: int
    ) -> Tensor:
        """The same under nuisances that depend on key and place in the whole batch alone."""
        return self._stack(
            [
                disturb(self.pixels(int(index)), nuisance, np.random.default_rng([*key, 2, place]))
                for place, index in enumerate(indices, first_place)
            ]
        )

    def _stack(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        return torch.from_numpy(np.stack([normalise(image, self.spec) for image in images]))

    def _read(self, path: Path) -> NDArray[np.uint8]:
        return crop_and_resize(read_rgb(path), self.spec)


class Lessons:
    """Batches of teacher features (and images where the loss wants them) for a list of images."""

    def __init__(
        self,
        images: ImageStore,
        network: Network,
        *,
        device: torch.device,
        memory_format: torch.memory_format,
        cache_gib: float,
    ) -> None:
        self.images = images
        self.network = network
        self.device = device
        self.memory_format = memory_format
        self._cache: tuple[Tensor, ...] | None = None
        if len(images) and self._bytes_needed() <= cache_gib * GIB:
            self._cache = self._teach_all()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def cached(self) -> bool:
        return self._cache is not None

    def inputs(self, indices: NDArray[np.int64]) -> Tensor:
        """float32 (n, 3, H, W) on the device."""
        return self._to_device(self.images.batch(indices))

    def disturbed(
        self, indices: NDArray[np.int64], nuisance: Nuisance, key: list[int], first_place: int
    ) -> Tensor:
        """float32 (n, 3, H, W) on the device, each image under nuisances of its own."""
        return self._to_device(self.images.disturbed_batch(indices, nuisance, key, first_place))

    def _to_device(self, batch: Tensor) -> Tensor:
        return batch.to(self.device, memory_format=self.memory_format)

    def taught(
        self, indices: NDArray[np.int64], inputs: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """E1, E2, E3[, E4] of the images, from the cache or from `inputs`."""
        if self._cache is None:
            with torch.no_grad():
                return self.network.teach(self.inputs(indices) if inputs is None else inputs)
        rows = torch.from_numpy(indices).to(self.device)
        return tuple(
            level.index_select(0, rows).contiguous(memory_format=self.memory_format)
            for level in self._cache
        )

    @torch.no_grad()
    def _bytes_needed(self) -> int:
        one = self.network.teach(self.inputs(np.zeros(1, np.int64)))
        return sum(level.numel() * level.element_size() for level in one) * len(self.images)

    @torch.no_grad()
    def _teach_all(self) -> tuple[Tensor, ...]:
        levels: list[Tensor] = []
        for start in range(0, len(self.images), 16):
            indices = np.arange(start, min(start + 16, len(self.images)), dtype=np.int64)
            taught = self.network.teach(self.inputs(indices))
            if not levels:
                levels = [
                    torch.empty(
                        (len(self.images), *level.shape[1:]),
                        dtype=level.dtype,
                        device=self.device,
                        memory_format=self.memory_format,
                    )
                    for level in taught
                ]
            for cache, level in zip(levels, taught, strict=True):
                cache[start : start + len(indices)] = level
        return tuple(levels)
