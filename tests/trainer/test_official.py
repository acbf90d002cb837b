"""Released checkpoints: written here with the released names, by an independent small model."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skrd4ad.engine.spec import NetworkSpec
from skrd4ad.errors import ConfigError
from skrd4ad.trainer.config import load_config
from skrd4ad.trainer.network import Network
from skrd4ad.trainer.official import load_official
from skrd4ad.trainer.train import train
from torch import nn
from torch.nn import functional

pytestmark = pytest.mark.usefixtures("one_thread")


class ReleasedBottleneck(nn.Module):
    """The ResNet-18 bottleneck under the released names, with its unused conv4 and bn4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(64, 128, 3, 2, 1, bias=False), nn.BatchNorm2d(128)
        self.conv2, self.bn2 = nn.Conv2d(128, 256, 3, 2, 1, bias=False), nn.BatchNorm2d(256)
        self.conv3, self.bn3 = nn.Conv2d(128, 256, 3, 2, 1, bias=False), nn.BatchNorm2d(256)
        self.conv4, self.bn4 = nn.Conv2d(1024, 512, 1, bias=False), nn.BatchNorm2d(512)
        self.bn_layer = nn.Sequential(block(768, 512, "down"), block(512, 512, ""))

    def forward(self, e: tuple[torch.Tensor, ...]) -> torch.Tensor:
        relu = functional.relu
        one = relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(e[0]))))))
        two = relu(self.bn3(self.conv3(e[1])))
        return self.bn_layer(torch.cat([one, two, e[2]], 1))


class Block(nn.Module):
    def __init__(self, parts: OrderedDict[str, nn.Module]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return functional.relu(x + y)


def block(c_in: int, c_out: int, kind: str) -> Block:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if kind == "up":
        parts["conv1"] = nn.ConvTranspose2d(c_in, c_out, 2, 2, bias=False)
    else:
        parts["conv1"] = nn.Conv2d(c_in, c_out, 3, 2 if kind == "down" else 1, 1, bias=False)
    parts["bn1"] = nn.BatchNorm2d(c_out)
    parts["conv2"] = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
    parts["bn2"] = nn.BatchNorm2d(c_out)
    if kind:
        change = (
            nn.ConvTranspose2d(c_in, c_out, 2, 2, bias=False)
            if kind == "up"
            else nn.Conv2d(c_in, c_out, 1, 2, bias=False)
        )
        parts["downsample" if kind == "down" else "upsample"] = nn.Sequential(
            change, nn.BatchNorm2d(c_out)
        )
    return Block(parts)


class ReleasedDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(block(512, 256, "up"), block(256, 256, ""))
        self.layer2 = nn.Sequential(block(256, 128, "up"), block(128, 128, ""))
        self.layer3 = nn.Sequential(block(128, 64, "up"), block(64, 64, ""))

    def forward(
        self, z: torch.Tensor, e: tuple[torch.Tensor, ...], skips: bool
    ) -> list[torch.Tensor]:
        d3 = self.layer1(z)
        d2 = self.layer2(functional.relu(d3 + e[2]) if skips else d3)
        d1 = self.layer3(functional.relu(d2 + e[1]) if skips else d2)
        return [d1, d2, d3]


@pytest.fixture(scope="module")
def released() -> tuple[ReleasedBottleneck, ReleasedDecoder]:
    torch.manual_seed(3)
    pair = ReleasedBottleneck().eval(), ReleasedDecoder().eval()
    for model in pair:
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.1, 0.1)
                part.weight.data.uniform_(0.5, 1.5)
    return pair


@pytest.mark.parametrize(
    ("fusion", "skips"), [("poster", True), ("official", True), ("none", False)]
)
@pytest.mark.parametrize("parallel", [False, True])
def test_a_released_checkpoint_computes_what_the_released_model_does(
    tmp_path: Path,
    released: tuple[ReleasedBottleneck, ReleasedDecoder],
    fusion: str,
    skips: bool,
    parallel: bool,
) -> None:
    prefix = "module." if parallel else ""
    bn, decoder = ({prefix + k: v for k, v in m.state_dict().items()} for m in released)
    path = tmp_path / "wres_transistor.pth"
    torch.save({"bn": bn, "decoder": decoder}, path)
    torch.manual_seed(0)
    network = Network(NetworkSpec(fusion=fusion)).eval()
    load_official(network, path)
    with torch.no_grad():
        features = network(torch.randn(2, 3, 64, 64))
        e = features.teacher
        expected = released[1](released[0](e), e, skips)
    for ours, theirs in zip(features.student, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("nested", [True, False])
def test_a_decoder_without_its_bottleneck_is_refused_with_the_reason(
    tmp_path: Path, released: tuple[ReleasedBottleneck, ReleasedDecoder], nested: bool
) -> None:
    path = tmp_path / "decoder.pth"
    state = released[1].state_dict()
    torch.save({"decoder": state} if nested else state, path)
    with pytest.raises(ConfigError, match="decoder without its bottleneck"):
        load_official(Network(NetworkSpec()), path)


def test_foreign_checkpoints_are_refused(
    tmp_path: Path, released: tuple[ReleasedBottleneck, ReleasedDecoder]
) -> None:
    path = tmp_path / "x.pth"
    bn, decoder = (m.state_dict() for m in released)
    torch.save({"model": bn}, path)
    with pytest.raises(ConfigError, match="expected the entries 'bn' and 'decoder'"):
        load_official(Network(NetworkSpec()), path)
    torch.save({"bn": bn, "decoder": decoder}, path)
    with pytest.raises(ConfigError, match="does not fit this backbone"):
        load_official(Network(NetworkSpec(backbone="resnet34")), path)
    with pytest.raises(ConfigError, match="bottleneck"):
        load_official(Network(NetworkSpec(bottleneck=False)), path)
    torch.save({"bn": bn | {"extra.weight": torch.zeros(1)}, "decoder": decoder}, path)
    with pytest.raises(ConfigError, match="lacks: 'extra"):
        load_official(Network(NetworkSpec()), path)


def test_a_released_checkpoint_becomes_a_run_without_training(
    tmp_path: Path, released: tuple[ReleasedBottleneck, ReleasedDecoder]
) -> None:
    (tmp_path / "good").mkdir()
    generator = np.random.default_rng(0)
    for index in range(4):
        pixels = generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "good" / f"{index}.png")
    bn, decoder = (m.state_dict() for m in released)
    torch.save({"bn": bn, "decoder": decoder}, tmp_path / "released.pth")
    values = {
        "data": str(tmp_path / "good"),
        "out": str(tmp_path / "run"),
        "backbone_weights": "random",
        "initial_checkpoint": str(tmp_path / "released.pth"),
        "image_size": 64,
        "epochs": 0,
        "tensorboard": False,
    }
    run = train(load_config(None, values))
    with torch.no_grad():
        features = run.network(torch.randn(1, 3, 64, 64))
        e = features.teacher
        expected = released[1](released[0](e), e, True)
    for ours, theirs in zip(features.student, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    with pytest.raises(ConfigError, match="epochs is 0"):
        load_config(None, values | {"initial_checkpoint": None, "epochs": 0})
