"""What a waiting person sees: a bar with loss and time left on a terminal, else plain lines."""

from __future__ import annotations

import csv
import io
import logging
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from .learner import StepFigures

log = logging.getLogger(__name__)


class EpochRow(NamedTuple):
    """One row of log.csv. Losses are means over the steps of the epoch."""

    epoch: int
    learning_rate: float
    loss: float
    cosine: float
    skip: float
    reconstruction: float
    gradient_norm: float
    held_out_cosine: float
    restores: int
    seconds: float

    @staticmethod
    def of(
        epoch: int,
        rate: float,
        figures: Sequence[StepFigures],
        held_out: float,
        restores: int,
        seconds: float,
    ) -> EpochRow:
        return EpochRow(
            epoch=epoch + 1,
            learning_rate=rate,
            loss=_mean([figure.total for figure in figures]),
            cosine=_mean([figure.cosine for figure in figures]),
            skip=_mean([figure.skip for figure in figures]),
            reconstruction=_mean([figure.reconstruction for figure in figures]),
            gradient_norm=_mean([figure.gradient_norm for figure in figures]),
            held_out_cosine=held_out,
            restores=restores,
            seconds=round(seconds, 3),
        )


def _mean(values: Sequence[float]) -> float:
    """NaN without values: an epoch whose every step was undone."""
    return sum(values) / len(values) if values else float("nan")


def log_text(rows: Sequence[EpochRow]) -> str:
    """The text of log.csv."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(EpochRow._fields)
    writer.writerows(rows)
    return buffer.getvalue()


class Progress:
    """Fed with every step and epoch; writes to stderr only."""

    def __init__(
        self, epochs: int, steps_per_epoch: int, first_epoch: int, quiet: bool = False
    ) -> None:
        self.epochs = epochs
        self._quiet = quiet
        self._first = first_epoch
        self._started = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and not quiet:
            from tqdm import tqdm

            self._bar = tqdm(
                total=epochs * steps_per_epoch,
                initial=first_epoch * steps_per_epoch,
                unit="step",
                desc="train",
            )

    def step(self, loss: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self._bar.update()

    def epoch(self, row: EpochRow) -> None:
        if self._bar is not None or self._quiet:
            return
        spent = time.monotonic() - self._started
        left = spent / (row.epoch - self._first) * (self.epochs - row.epoch)
        log.info(
            "epoch %d/%d  loss %.4f  held-out cosine %.4f  %.1f s  ETA %d:%02d",
            row.epoch,
            self.epochs,
            row.loss,
            row.held_out_cosine,
            row.seconds,
            *divmod(round(left), 60),
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
