"""Where the frozen teacher's weights come from, and how that is recorded.

A file of the user, torchvision's own download, the project's rendered teacher, or random weights:
whichever it was is named in the run, the plan and every report.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import socket
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ..engine.spec import RANDOM_LAYER4, Backbone, TeacherOrigin
from ..errors import ConfigError, MissingExtra
from .network import Network, needs_layer4
from .resnet import ResNetTrunk, calibrate_batch_norm

log = logging.getLogger(__name__)

SUPPLY = (
    "pass --backbone-weights FILE with torchvision's IMAGENET1K_V1 state dict for this backbone"
    " (.pth or .safetensors), or --backbone-weights random to try the program without any"
)
BATCH_NORM_EPS = 1e-5
DOWNLOAD_TIMEOUT_S = 30.0


def install_teacher(
    network: Network,
    source: str | None,
    seed: int,
    normals: Callable[[], list[Tensor]],
    random_layer4: bool = False,
) -> TeacherOrigin:
    """Load the weights `source` names into `network.teacher` and say where they came from.

    `source`: a file, "random", or None for torchvision's download. `normals()` gives
    batches (n, 3, H, W) of good parts; random weights take their batch statistics from it.
    `random_layer4` allows a file without layer4 for the two ablations that read E4, and says so.
    Raises ConfigError when the weights are missing, foreign, or not finite.
    """
    backbone, with_layer4 = network.spec.backbone, needs_layer4(network.spec)
    kind: Literal["file", "torchvision", "random"]
    if source == "random":
        state, kind, detail = _random_state(backbone, with_layer4, seed), "random", f"seed {seed}"
    elif source is None:
        state, kind, detail = _torchvision_state(backbone), "torchvision", "IMAGENET1K_V1"
    else:
        state, kind, detail = read_state_dict(Path(source)), "file", Path(source).name
    state = {name.removeprefix("module."): value for name, value in state.items()}
    state = unfold_batch_norm(state)
    borrowed = with_layer4 and random_layer4 and not any(n.startswith("layer4.") for n in state)
    if borrowed:
        fresh = _random_state(backbone, True, seed)
        state |= {name: value for name, value in fresh.items() if name.startswith("layer4.")}
        detail += f"{RANDOM_LAYER4} (seed {seed})"
    load_trunk(network.teacher, state, backbone, detail)
    if kind == "random":
        # It has never seen a photograph: without statistics of these parts most channels of a
        # random trunk say nothing about them.
        calibrate_batch_norm(network.teacher, network.teacher, ((batch,) for batch in normals()))
    elif borrowed:
        _calibrate_layer4(network.teacher, normals())
    network.teacher.eval().requires_grad_(False)
    digest = file_sha256(Path(source)) if kind == "file" and source else None
    origin = TeacherOrigin(
        kind=kind, detail=detail, sha256=digest or state_sha256(network.teacher.state_dict())
    )
    announce = log.warning if kind == "random" else log.info
    announce("teacher %s: %s (%s)", backbone, kind, detail)
    return origin


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a torch file, read without running its code.

    A nested {"state_dict": ...} is unwrapped. Raises ConfigError naming the file.
    """
    document = read_tensor_file(path)
    inner = document.get("state_dict", document)
    if not isinstance(inner, Mapping) or not inner:
        raise ConfigError(f"{path} holds no state dict", SUPPLY)
    wrong = [name for name, value in inner.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ConfigError(
            f"{path} is not a state dict: entry '{wrong[0]}' is not a tensor",
            "save model.state_dict(), not the model",
        )
    return dict(inner)


def read_tensor_file(path: Path) -> dict[str, object]:
    """The top-level mapping of a .safetensors or torch file. Raises ConfigError naming the file."""
    if not path.is_file():
        raise ConfigError(f"there is no weights file {path}", SUPPLY)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        # weights_only: a downloaded file must never be able to run code here.
        document = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise MissingExtra("safetensors", "train", "reading a .safetensors file") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise ConfigError(
            f"{path} cannot be read as weights: {str(error).splitlines()[0] if str(error) else ''}",
            SUPPLY,
        ) from error
    except Exception as error:
        # safetensors raises its own class, a direct subclass of Exception; anything else is ours.
        if type(error).__name__ != "SafetensorError" and not isinstance(error, zipfile.BadZipFile):
            raise
        raise ConfigError(f"{path} cannot be read as weights: {error}", SUPPLY) from error
    if not isinstance(document, Mapping):
        raise ConfigError(f"{path} holds a {type(document).__name__}, not a state dict", SUPPLY)
    return dict(document)


def unfold_batch_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a file whose BatchNorms were folded away (convolutions with bias) its BatchNorms back.

    Each becomes the identity plus the bias. Files that still have them are returned as they are.
    """
    unfolded = dict(state)
    for name, bias in state.items():
        conv, _, kind = name.rpartition(".")
        if kind != "bias" or f"{conv}.weight" not in state or state[f"{conv}.weight"].dim() != 4:
            continue
        norm = conv[: -len(".0")] + ".1" if ".downsample." in conv else conv.replace("conv", "bn")
        if f"{norm}.weight" in state:
            continue
        del unfolded[name]
        unfolded[f"{norm}.weight"] = torch.ones_like(bias)
        unfolded[f"{norm}.bias"] = bias
        unfolded[f"{norm}.running_mean"] = torch.zeros_like(bias)
        # sqrt(var + eps) == 1, so that the norm changes nothing but the offset.
        unfolded[f"{norm}.running_var"] = torch.full_like(bias, 1.0 - BATCH_NORM_EPS)
    return unfolded


def load_trunk(trunk: nn.Module, state: Mapping[str, Tensor], backbone: str, name: str) -> None:
    """Copy the tensors the trunk needs; extra ones (fc, layer4) are ignored.

    Raises ConfigError when one is missing, has another shape, or is not finite.
    """
    wanted = trunk.state_dict()
    for key, target in wanted.items():
        if key.endswith("num_batches_tracked"):
            continue
        value = state.get(key)
        if value is None:
            hint = SUPPLY
            if key.startswith("layer4."):
                hint = "this variant reads E4: supply a file with layer4, or set random_layer4"
            raise ConfigError(f"the weights '{name}' lack '{key}' of {backbone}", hint)
        if value.shape != target.shape:
            raise ConfigError(
                f"the weights '{name}' are not a {backbone}: '{key}' is {tuple(value.shape)},"
                f" expected {tuple(target.shape)}",
                "choose the matching --backbone",
            )
        if not torch.isfinite(value).all():
            raise ConfigError(f"the weights '{name}' hold values that are not finite in '{key}'")
        with torch.no_grad():
            target.copy_(value)


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of the tensors, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _random_state(backbone: Backbone, with_layer4: bool, seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(ResNetTrunk(backbone, with_layer4).state_dict())


def _calibrate_layer4(trunk: ResNetTrunk, normals: list[Tensor]) -> None:
    assert trunk.layer4 is not None
    with torch.no_grad():
        entries = [(trunk(batch)[2],) for batch in normals]
    calibrate_batch_norm(trunk.layer4, trunk.layer4, entries)


def _torchvision_state(backbone: Backbone) -> dict[str, Tensor]:
    """torchvision's IMAGENET1K_V1 weights, downloaded to its own cache and hash-checked by it."""
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtra("torchvision", "train", "downloading teacher weights") from error
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        weights = models.get_model_weights(backbone)["IMAGENET1K_V1"]
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"the ImageNet weights of {backbone} could not be downloaded: {error}", SUPPLY
        ) from error
    finally:
        socket.setdefaulttimeout(previous)
