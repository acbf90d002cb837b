"""The same figures as log.csv, as TensorBoard events beside it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from .progress import EpochRow

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class EventLog:
    """Writes events into `folder`, or says once that tensorboard is not installed."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        self._writer: SummaryWriter | None = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("no TensorBoard events: tensorboard is not installed (extra 'train')")
            return
        # Events of epochs that a resumed run repeats are hidden.
        self._writer = SummaryWriter(str(folder), purge_step=first_epoch + 1)

    def add(self, row: EpochRow) -> None:
        if self._writer is None:
            return
        for name, value in row._asdict().items():
            if name != "epoch":
                self._writer.add_scalar(f"train/{name}", value, row.epoch)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
