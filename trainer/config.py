"""The training configuration: one frozen record, YAML and options on top of its defaults.

An unknown key is an error that names the nearest known one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from ..built_types import built
from ..engine.preprocess import check_input_spec
from ..engine.spec import Backbone, InputSpec, NetworkSpec, Record, Roi, ScoreContract
from ..errors import ConfigError, nearest
from .groups import check_group_pattern
from .nuisance import Nuisance, check_nuisance
from .preset import PRESETS, LossWeights, Precision, Preset, SkipLoss

MIN_BATCH = 4
"""Below four images the batch statistics of the deepest layers are noise."""


class TrainConfig(Record, frozen=True, kw_only=True):
    """Everything that decides what a run learns. None means: as the preset says."""

    data: str
    out: str
    category: str | None = None
    backbone: Backbone = "resnet18"
    backbone_weights: str | None = None
    """A file, "random", or None for torchvision's download."""
    random_layer4: bool = False
    initial_checkpoint: str | None = None
    """A checkpoint of the released RD4AD or SK-RD4AD code; with epochs 0 it is used as it is."""
    preset: Preset = "poster"

    fusion: Literal["poster", "official", "none", "corresponding"] | None = None
    additional_skip: bool = False
    bottleneck: bool = True
    skip_gate: Literal["none", "cosine"] = "none"
    loss_reconstruction: float | None = None
    loss_cosine: float | None = None
    loss_skip: float | None = None
    skip_loss: SkipLoss | None = None

    image_size: tuple[int, int] = (256, 256)
    """Height and width of the network's input, multiples of 32."""
    roi: Roi | None = None
    score: Literal["max", "top-mean"] = "max"
    top_fraction: float = 0.0

    epochs: int = 100
    batch: int = 16
    seed: int = 0
    learning_rate: float = 5e-3
    warmup_epochs: float = 1.0
    final_rate_share: float = 0.01
    """The cosine decay ends at this share of learning_rate."""
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    calibration_share: float = 0.2
    folds: int = 0
    """Cross-fitting: hold out part `fold` (from 1) of `folds`, instead of calibration_share."""
    fold: int = 0
    group_pattern: str | None = None
    """A regular expression over file names; what its parentheses catch is the image's group.
    Images of one group (part, lot, session) are all learned from or all held out."""
    group_table: str | None = None
    """A CSV file with columns image,group instead (paths relative to it)."""

    nuisance: Nuisance = Nuisance()
    """Disturbances to be learned as normal; the teacher then runs in every step."""
    precision: Precision = "fp32"
    """Of the student's convolutions; losses, norms, averages and the teacher stay float32."""
    compile: bool = False
    """Let torch.compile fuse the student (needs a C++ compiler; slow first step)."""
    tensorboard: bool = True

    feature_cache_gib: float = 2.0
    """Teacher features of all images are kept in memory when they fit (0: never)."""
    image_cache_gib: float = 4.0
    """Decoded images are kept in memory when they fit; otherwise they are read when needed."""
    checkpoint_s: float = 60.0
    """The state for --resume is written after an epoch when this long has passed."""
    channels_last: bool = True
    deterministic: bool = False
    """Refuse operations whose result depends on scheduling (needed on a GPU only)."""
    device: str = "auto"

    def network_spec(self) -> NetworkSpec:
        preset = PRESETS[self.preset]
        return NetworkSpec(
            backbone=self.backbone,
            fusion=self.fusion or preset.fusion,
            additional_skip=self.additional_skip,
            bottleneck=self.bottleneck,
            skip_gate=self.skip_gate,
        )

    def loss_weights(self) -> LossWeights:
        preset = PRESETS[self.preset]
        given = (self.loss_reconstruction, self.loss_cosine, self.loss_skip)
        standard = (preset.reconstruction, preset.cosine, preset.skip)
        alpha, beta, gamma = (
            default if value is None else value
            for value, default in zip(given, standard, strict=True)
        )
        return LossWeights(alpha, beta, gamma, self.skip_loss or preset.skip_loss)

    def input_spec(self) -> InputSpec:
        return InputSpec(height=self.image_size[0], width=self.image_size[1], roi=self.roi)

    def score_contract(self) -> ScoreContract:
        return ScoreContract(score=self.score, top_fraction=self.top_fraction)


def load_config(path: Path | None, overrides: dict[str, Any]) -> TrainConfig:
    """Defaults, then the YAML file, then the options that were given.

    Raises ConfigError for an unreadable file, an unknown key, or a value of the wrong kind.
    """
    values = _read_yaml(path) if path else {}
    where = str(path) if path else "the options"
    for key in values:
        _check_key(str(key), where)
    values |= {key: value for key, value in overrides.items() if value is not None}
    for key, option in (("data", "--data"), ("out", "--out")):
        if key not in values:
            raise ConfigError(f"the training needs {option}", f"give {option} or '{key}' in YAML")
    if isinstance(values.get("image_size"), int):
        values["image_size"] = [values["image_size"]] * 2
    try:
        config = msgspec.convert(values, built(TrainConfig))
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}", "see configs/transistor.yaml") from error
    check_config(config)
    return config


def check_config(config: TrainConfig) -> None:
    """Refuse values that cannot train. Raises ConfigError naming the key."""
    from .network import check_network_spec

    check_input_spec(config.input_spec())
    check_network_spec(config.network_spec())
    check_nuisance(config.nuisance)
    if config.group_pattern is not None:
        check_group_pattern(config.group_pattern)
        if config.group_table is not None:
            raise ConfigError("group_pattern and group_table are both given", "choose one")
    limits = (
        (
            "epochs",
            config.epochs >= (0 if config.initial_checkpoint else 1),
            "at least 1 (0 with initial_checkpoint)",
        ),
        ("batch", config.batch >= MIN_BATCH, f"at least {MIN_BATCH} (batch statistics)"),
        ("seed", config.seed >= 0, "not negative"),
        ("learning_rate", 0.0 < config.learning_rate <= 1.0, "in (0, 1]"),
        ("warmup_epochs", config.warmup_epochs >= 0.0, "not negative"),
        ("final_rate_share", 0.0 <= config.final_rate_share <= 1.0, "in [0, 1]"),
        ("clip_norm", config.clip_norm > 0.0, "positive"),
        ("ema_decay", 0.0 <= config.ema_decay < 1.0, "in [0, 1)"),
        ("calibration_share", 0.0 < config.calibration_share < 1.0, "in (0, 1)"),
        ("fold", min(config.folds, 1) <= config.fold <= config.folds, "1 to folds"),
        ("folds", config.folds != 1, "0 or at least 2"),
        ("feature_cache_gib", config.feature_cache_gib >= 0.0, "not negative"),
        ("image_cache_gib", config.image_cache_gib >= 0.0, "not negative"),
        ("checkpoint_s", config.checkpoint_s >= 0.0, "not negative"),
        ("loss_cosine", min(config.loss_weights()[:3]) >= 0.0, "loss weights not negative"),
        ("loss_cosine", config.loss_weights().cosine > 0.0, "positive"),
        (
            "top_fraction",
            config.score == "max" or 0.0 < config.top_fraction <= 1.0,
            "in (0, 1] with score top-mean",
        ),
    )
    for key, fine, expected in limits:
        if not fine:
            raise ConfigError(f"{key} is {getattr(config, key)}, expected {expected}")


def parse_image_size(text: str) -> tuple[int, int]:
    """ "256" or "256,512" (height,width). Raises ConfigError."""
    try:
        sides = [int(part) for part in text.lower().replace("x", ",").split(",")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise ConfigError(f"image size '{text}' is not a number or HEIGHT,WIDTH", "such as 256")
    return sides[0], sides[-1]


def parse_seeds(text: str | None, default: int) -> list[int]:
    """ "0,1,2" as numbers; None gives the one default. Raises ConfigError."""
    if text is None:
        return [default]
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"seeds '{text}' are not whole numbers", "such as 0,1,2") from error
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ConfigError(f"seeds '{text}' repeat or are negative", "such as 0,1,2")
    return seeds


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"there is no configuration file {path}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a table of keys and values")
    return document


def _check_key(key: str, where: str) -> None:
    known = TrainConfig.__struct_fields__
    if key in known:
        return
    meant = nearest(key, known)
    raise ConfigError(
        f"{where}: unknown key '{key}'" + (f"; {meant}" if meant else ""),
        "the known keys are: " + ", ".join(known),
    )
