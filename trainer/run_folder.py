"""Writing a run folder: all of it or nothing, and resumable after a power cut.

Work happens in `<out>.partial`, which holds the state of the last finished epoch; the finished
folder appears under its name in one rename.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .. import __version__
from ..engine.atomic import write_atomically
from ..engine.spec import RunOrigin, TeacherOrigin
from ..errors import ConfigError
from .checkpoint import (
    LOG,
    RUN_FILE,
    SPLIT,
    WEIGHTS,
    RunFile,
    run_file_bytes,
    weights_bytes,
    write_metrics,
)
from .config import TrainConfig
from .distributed import Team
from .event_log import EventLog
from .learner import Learner
from .network import Network
from .progress import EpochRow, log_text
from .split import SplitRow, write_split

log = logging.getLogger(__name__)

STATE = "state.safetensors"
FREE_KEYS = ("out", "checkpoint_s", "feature_cache_gib", "image_cache_gib", "tensorboard")
"""Keys that may differ between an interrupted run and its continuation."""


class RunFolder:
    """The folder of one training run, from the first epoch to the rename.

    Raises ConfigError when `target` is taken, or holds no interrupted run to resume.
    """

    def __init__(self, target: Path, config: TrainConfig, resume: bool, mates: Team) -> None:
        self.target = target
        self.mates = mates
        """Only the leader touches the disk; the others are sent the state of a resumed run."""
        self.config = config
        self.resume = resume
        self.rows: list[EpochRow] = []
        self._work = target.with_name(target.name + ".partial")
        self._split_text = ""
        self._written = monotonic()
        self._events: EventLog | None = None
        self._lock: int | None = None
        if not mates.leads:
            return
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ConfigError(
                f"{target} exists already", "choose another --out, or remove it to train again"
            )
        if resume and not self._work.is_dir():
            raise ConfigError(
                f"there is no interrupted run to resume for {target}", "leave out --resume"
            )
        if self._work.is_dir():
            self._claim()

    def close(self) -> None:
        """Let others have the folder, whatever became of the run."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _claim(self) -> None:
        """Lock the work folder itself: the lock survives its renaming and leaves no file behind.

        Raises ConfigError when another process trains into it.
        """
        self._lock = os.open(self._work, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise ConfigError(
                f"another process is training into {self._work}",
                "wait for it or stop it, or choose another --out",
            ) from error
        except OSError as error:  # some network file systems lock no folders
            log.warning("%s cannot be locked: %s", self._work, error.strerror)

    def begin(self, learner: Learner, split: Sequence[SplitRow]) -> int:
        """Make the work folder, or read its state; returns the first epoch to run (0-based)."""
        self._split_text = write_split(split)
        self.mates.check_same(_digest([(row.sha256, row.role) for row in split]), "images")
        first = self.mates.leaders_number(self._prepare(learner) if self.mates.leads else 0)
        if self.mates.size > 1:
            state = learner.state()
            learner.restore({name: self.mates.from_leader(state[name]) for name in sorted(state)})
            learner.mark_good()
        if self.config.tensorboard and self.mates.leads:
            self._events = EventLog(self._work, first)
        return first

    def _prepare(self, learner: Learner) -> int:
        if self.resume and (self._work / STATE).is_file():
            for leftover in self._work.glob(".*.tmp"):  # of a write that was killed
                leftover.unlink(missing_ok=True)
            return self._read_state(learner)
        if self._work.exists():
            if self.resume:
                log.warning("the run was interrupted before its first checkpoint: starting anew")
            else:
                log.warning("%s of an interrupted run is replaced", self._work)
            shutil.rmtree(self._work)
            self.close()
        try:
            self._work.mkdir(parents=True)
        except OSError as error:
            raise ConfigError(f"{self._work} cannot be made: {error.strerror}") from error
        self._claim()
        return 0

    def epoch_done(self, learner: Learner, row: EpochRow) -> None:
        """Add the row to the log; write the state when `checkpoint_s` have passed."""
        self.rows.append(row)
        if not self.mates.leads:
            return
        write_atomically(self._work / LOG, log_text(self.rows).encode())
        if self._events is not None:
            self._events.add(row)
        if monotonic() - self._written >= self.config.checkpoint_s:
            self._write_state(learner)
            self._written = monotonic()

    def finish(self, network: Network, teacher: TeacherOrigin, figures: dict[str, Any]) -> None:
        """Write the finished files, then give the folder its name."""
        if not self.mates.leads:
            return
        weights, split = weights_bytes(network), self._split_text.encode()
        roles = [line.rpartition(",")[2] for line in self._split_text.splitlines()[1:]]
        origin = RunOrigin(
            name=self.target.name,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            split_sha256=hashlib.sha256(split).hexdigest(),
            seed=self.config.seed,
            epochs=self.config.epochs,
            n_fit=roles.count("fit"),
            n_calibration=roles.count("calibration"),
            preset=self.config.preset,
            loss=self.config.loss_weights().text(),
            product_version=__version__,
        )
        run_file = RunFile(
            network=network.spec,
            input=self.config.input_spec(),
            score=self.config.score_contract(),
            teacher=teacher,
            origin=origin,
            config=msgspec.to_builtins(self.config),
        )
        write_atomically(self._work / WEIGHTS, weights)
        write_atomically(self._work / SPLIT, split)
        write_atomically(self._work / LOG, log_text(self.rows).encode())
        write_metrics(self._work, "training", figures)
        write_atomically(self._work / RUN_FILE, run_file_bytes(run_file))
        if self._events is not None:
            self._events.close()
        if self.target.is_dir():
            self.target.rmdir()  # empty, as checked at the start
        os.replace(self._work, self.target)
        # Only now: killed one line earlier, the run could still be resumed.
        (self.target / STATE).unlink(missing_ok=True)

    def _fingerprint(self) -> str:
        """What must be the same for a continuation to be the same run."""
        values = msgspec.to_builtins(self.config)
        kept = {key: value for key, value in values.items() if key not in FREE_KEYS}
        return _digest([kept, self._split_text]).hex()

    def _write_state(self, learner: Learner) -> None:
        tensors = {name: value.cpu().contiguous() for name, value in learner.state().items()}
        metadata = {"fingerprint": self._fingerprint(), "rows": json.dumps(self.rows)}
        write_atomically(self._work / STATE, save(tensors, metadata))

    def _read_state(self, learner: Learner) -> int:
        source = self._work / STATE
        try:
            with safe_open(str(source), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("fingerprint") != self._fingerprint():
                    raise ConfigError(
                        f"the interrupted run in {self._work} had other options or images",
                        "repeat its options exactly, or train anew without --resume",
                    )
                learner.restore({name: file.get_tensor(name) for name in sorted(file.keys())})
                self.rows = [EpochRow(*row) for row in json.loads(metadata["rows"])]
        except (SafetensorError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{source} cannot be resumed from: {error}", "train anew without --resume"
            ) from error
        learner.mark_good()
        log.info("resuming after epoch %d", len(self.rows))
        return len(self.rows)


def _digest(values: Any) -> bytes:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).digest()
