"""The run folder: everything a training run leaves behind, readable without running any of it.

weights.safetensors   teacher.*, bottleneck.*, student.*: complete, needs no other file
run.yaml              specification, origin of the teacher, training configuration
split.csv             path, sha256, role (fit | calibration) of every good part
log.csv               one row per epoch
metrics.json          figures by section: "training" from `train`, others from `evaluate`
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..built_types import built
from ..engine.atomic import write_atomically
from ..engine.spec import InputSpec, NetworkSpec, Record, RunOrigin, ScoreContract, TeacherOrigin
from ..errors import ConfigError, MissingExtra
from .split import SplitRow, read_split

if TYPE_CHECKING:
    from .network import Network

RUN_SCHEMA = "skrd4ad-run/1"
WEIGHTS, RUN_FILE, SPLIT, LOG, METRICS = (
    "weights.safetensors",
    "run.yaml",
    "split.csv",
    "log.csv",
    "metrics.json",
)


class RunFile(Record, frozen=True, kw_only=True):
    """`run.yaml`."""

    schema: str = RUN_SCHEMA
    network: NetworkSpec
    input: InputSpec
    score: ScoreContract
    teacher: TeacherOrigin
    origin: RunOrigin
    config: dict[str, Any]
    """The training configuration in full, for the reader and for repeating the run."""


@dataclass(frozen=True)
class Run:
    """A finished run; `network` is in eval mode on the CPU and holds the exported weights."""

    folder: Path
    network: Network
    spec: NetworkSpec
    input: InputSpec
    score: ScoreContract
    teacher: TeacherOrigin
    origin: RunOrigin
    split: tuple[SplitRow, ...]

    def fit_paths(self) -> list[Path]:
        """The images that were learned from."""
        return [row.path for row in self.split if row.role == "fit"]

    def calibration_paths(self) -> list[Path]:
        """The images held out for the threshold."""
        return [row.path for row in self.split if row.role == "calibration"]


def read_run_file(folder: Path) -> RunFile:
    """`run.yaml` alone, without torch. Raises ConfigError when `folder` is not a run."""
    source = folder / RUN_FILE
    if not source.is_file():
        raise ConfigError(
            f"{folder} is not a run folder: it has no {RUN_FILE}",
            "give the folder that `skrd4ad train --out` wrote",
        )
    try:
        run_file = msgspec.yaml.decode(source.read_bytes(), type=built(RunFile))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} is damaged: {error}", "train again") from error
    except Exception as error:  # PyYAML's own errors share no base class with msgspec's
        import yaml

        if not isinstance(error, yaml.YAMLError):
            raise
        raise ConfigError(f"{source} is not YAML: {error}", "train again") from error
    if run_file.schema != RUN_SCHEMA:
        raise ConfigError(
            f"{source} has schema '{run_file.schema}', this version reads '{RUN_SCHEMA}'",
            "train again with this version",
        )
    return run_file


def read_run_split(folder: Path) -> list[SplitRow]:
    """The rows of the run's split.csv, without torch."""
    source = folder / SPLIT
    if not source.is_file():
        raise ConfigError(f"the run folder {folder} has no {SPLIT}", "train again")
    return read_split(source.read_text(encoding="utf-8"), str(source))


def load_run(folder: Path | str) -> Run:
    """Rebuild a finished run. Raises ConfigError naming the file that is missing or damaged.

    Weights and split must be the ones `run.yaml` recorded: a swapped file is refused.
    """
    folder = Path(folder)
    run_file = read_run_file(folder)
    split = read_run_split(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ConfigError(f"the run folder {folder} has no {WEIGHTS}", "train again")
    for source, expected in (
        (weights, run_file.origin.weights_sha256),
        (folder / SPLIT, run_file.origin.split_sha256),
    ):
        if hashlib.sha256(source.read_bytes()).hexdigest() != expected:
            raise ConfigError(
                f"{source} is not the file that {RUN_FILE} recorded (SHA-256 differs)",
                "restore the folder, or train again",
            )
    return Run(
        folder=folder,
        network=_rebuild(run_file.network, weights),
        spec=run_file.network,
        input=run_file.input,
        score=run_file.score,
        teacher=run_file.teacher,
        origin=run_file.origin,
        split=tuple(split),
    )


def write_metrics(folder: Path, section: str, values: dict[str, Any]) -> None:
    """Replace one section of metrics.json and keep the others."""
    target = folder / METRICS
    document = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else {}
    document[section] = values
    write_atomically(target, (json.dumps(document, indent=2) + "\n").encode())


def run_file_bytes(run_file: RunFile) -> bytes:
    """`run.yaml` in the order of the record, so that a person finds things where they were."""
    import yaml

    text = yaml.safe_dump(msgspec.to_builtins(run_file), sort_keys=False, allow_unicode=True)
    return str(text).encode()


def weights_bytes(network: Network) -> bytes:
    """The network's tensors as a safetensors file."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise MissingExtra("safetensors", "train", "writing a run folder") from error
    tensors = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    return bytes(save({name: value.contiguous() for name, value in tensors.items()}))


def _rebuild(spec: NetworkSpec, weights: Path) -> Network:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise MissingExtra("safetensors", "train", "reading a run folder") from error
    # Imported here: `calibrate` and reports read a run's split and figures without torch.
    from .network import Network

    network = Network(spec)
    try:
        network.load_state_dict(load(weights.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        raise ConfigError(
            f"{weights} does not fit its {RUN_FILE}: {str(error).splitlines()[0]}", "train again"
        ) from error
    return network.eval()
