"""Checkpoints of the released RD4AD and SK-RD4AD code, loaded into our network.

Those files are {"bn": ..., "decoder": ...}: "bn" is the bottleneck, with a 1x1 convolution
(conv4, bn4) that the released code builds and never uses. The projections of preset `poster` keep
their identity, so a loaded network computes exactly what the released one does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ConfigError
from .network import Network
from .teacher import read_tensor_file

log = logging.getLogger(__name__)

BOTTLENECK_NAMES = {
    "conv1": "reduce1.0.0",
    "bn1": "reduce1.0.1",
    "conv2": "reduce1.1.0",
    "bn2": "reduce1.1.1",
    "conv3": "reduce2.0",
    "bn3": "reduce2.1",
    "bn_layer": "embed",
}
STUDENT_NAMES = {"layer1": "stage3", "layer2": "stage2", "layer3": "stage1"}
UNUSED = ("conv4", "bn4")
"""Built, optimised without a gradient and saved by the released code, but in no forward pass."""


def load_official(network: Network, path: Path) -> None:
    """Copy bottleneck and student of a released checkpoint into `network`.

    Raises ConfigError when the file is missing, unreadable, of another backbone, or holds the
    decoder alone: without the bottleneck that it was trained behind, a decoder is of no use.
    """
    if network.bottleneck is None or network.spec.fusion == "corresponding":
        raise ConfigError(
            "a released checkpoint fits only a network with a bottleneck and fusion poster,"
            " official or none"
        )
    document = read_tensor_file(path)
    bottleneck, decoder = document.get("bn"), document.get("decoder")
    if not isinstance(bottleneck, Mapping) or not isinstance(decoder, Mapping):
        if isinstance(decoder, Mapping) or _looks_like_decoder(document):
            raise ConfigError(
                f"{path} holds a decoder without its bottleneck ('bn'): the released training with"
                " --seg 1 saves only the decoder, and such a file cannot be used",
                "save both state dicts, or train again",
            )
        raise ConfigError(
            f"{path} is not a released checkpoint: expected the entries 'bn' and 'decoder'",
            "teacher weights go to --backbone-weights",
        )
    _copy(network.bottleneck, bottleneck, BOTTLENECK_NAMES, path)
    _copy(network.student, decoder, STUDENT_NAMES, path)
    log.info("bottleneck and student from the released checkpoint %s", path.name)


def _looks_like_decoder(document: Mapping[str, object]) -> bool:
    return any(name.removeprefix("module.").startswith("layer1.0.upsample") for name in document)


def _copy(
    part: torch.nn.Module, state: Mapping[str, object], names: Mapping[str, str], path: Path
) -> None:
    target = part.state_dict()
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        head, _, rest = name.removeprefix("module.").partition(".")
        if head in UNUSED or not isinstance(value, Tensor):
            continue
        renamed[f"{names.get(head, head)}.{rest}"] = value
    for name, tensor in target.items():
        if name.startswith("project"):
            continue  # the poster's Conv1x1: starts, and here stays, the identity
        loaded = renamed.pop(name, None)
        if loaded is None and name.endswith("num_batches_tracked"):
            continue
        if loaded is None or loaded.shape != tensor.shape:
            found = "missing" if loaded is None else f"of shape {tuple(loaded.shape)}"
            raise ConfigError(
                f"{path} does not fit this backbone: '{name}' is {found},"
                f" expected {tuple(tensor.shape)}",
                "choose the --backbone it was trained with",
            )
        if not torch.isfinite(loaded).all():
            raise ConfigError(f"{path} holds values that are not finite in '{name}'")
        with torch.no_grad():
            tensor.copy_(loaded)
    if renamed:
        raise ConfigError(f"{path} holds a tensor that this network lacks: '{min(renamed)}'")
