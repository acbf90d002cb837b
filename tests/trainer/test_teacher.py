"""Where teacher weights come from, what is refused, and what is recorded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from skrd4ad.engine.spec import NetworkSpec
from skrd4ad.errors import ConfigError
from skrd4ad.trainer.network import Network
from skrd4ad.trainer.resnet import ResNetTrunk, calibrate_batch_norm
from skrd4ad.trainer.teacher import install_teacher, state_sha256, unfold_batch_norm

pytestmark = pytest.mark.usefixtures("one_thread")


def no_normals() -> list[torch.Tensor]:
    raise AssertionError("weights from a file need no images")


@pytest.fixture(scope="module")
def trunk_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    trunk = ResNetTrunk("resnet18")
    calibrate_batch_norm(trunk, trunk, [(torch.randn(4, 3, 64, 64),)])
    return dict(trunk.state_dict())


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(NetworkSpec())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_is_loaded_and_its_hash_recorded(
    tmp_path: Path,
    network: Network,
    trunk_state: dict[str, torch.Tensor],
    suffix: str,
    wrapped: bool,
) -> None:
    path = tmp_path / f"weights{suffix}"
    state = {f"module.{k}" if wrapped else k: v for k, v in trunk_state.items()}
    state["fc.weight"] = torch.zeros(2, 2)  # what the trunk does not have is ignored
    if suffix == ".pth":
        torch.save({"state_dict": state} if wrapped else state, path)
    else:
        save_file(state, path)
    origin = install_teacher(network, str(path), 0, no_normals)
    assert origin.kind == "file"
    assert origin.detail == path.name
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(network.teacher.layer3[1].conv2.weight, trunk_state["layer3.1.conv2.weight"])
    assert not any(p.requires_grad for p in network.teacher.parameters())


def test_a_file_with_folded_batch_norms_computes_the_same(
    tmp_path: Path, network: Network, trunk_state: dict[str, torch.Tensor]
) -> None:
    plain = ResNetTrunk("resnet18").eval()
    plain.load_state_dict(trunk_state)
    folded = {}
    for name, weight in trunk_state.items():
        conv = name.removesuffix(".weight")
        if weight.dim() != 4:
            continue
        norm = conv.replace("conv", "bn") if "downsample" not in conv else conv[:-1] + "1"
        scale = trunk_state[f"{norm}.weight"] / (trunk_state[f"{norm}.running_var"] + 1e-5).sqrt()
        folded[name] = weight * scale.view(-1, 1, 1, 1)
        folded[f"{conv}.bias"] = (
            trunk_state[f"{norm}.bias"] - trunk_state[f"{norm}.running_mean"] * scale
        )
    assert unfold_batch_norm(folded).keys() <= trunk_state.keys()
    path = tmp_path / "folded.pth"
    torch.save(folded, path)
    install_teacher(network, str(path), 0, no_normals)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(network.teacher(x), plain(x), strict=True):
            assert torch.allclose(a, b, atol=1e-4)


def test_the_shared_folded_weights_load(shared_data: Path, network: Network) -> None:
    path = shared_data / "weights" / "resnet18_imagenet1k_v1_l123_bnfolded.pth"
    origin = install_teacher(network, str(path), 0, no_normals)
    assert origin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with torch.no_grad():
        levels = network.teacher(torch.rand(1, 3, 64, 64))
    assert all(torch.isfinite(level).all() and float(level.max()) > 0 for level in levels)


def test_a_random_teacher_is_seeded_and_calibrated_on_the_normals(network: Network) -> None:
    normals = [torch.randn(4, 3, 64, 64) * 3 + 1 for _ in range(2)]
    first = install_teacher(network, "random", 5, lambda: normals)
    again = install_teacher(network, "random", 5, lambda: normals)
    assert first == again
    assert first.kind == "random"
    assert first.sha256 == state_sha256(network.teacher.state_dict())
    other = install_teacher(network, "random", 6, lambda: normals)
    assert other.sha256 != first.sha256
    with torch.no_grad():
        stem = network.teacher.bn1(network.teacher.conv1(torch.cat(normals)))
    # Calibrated: on the very images it was calibrated with, the stem is centred and scaled.
    assert float(stem.mean().abs()) < 0.01
    assert float(stem.std()) == pytest.approx(1.0, abs=0.05)


def truncated(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:5000])


def of_another_backbone(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state | {"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, path)


def without_a_layer(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({k: v for k, v in state.items() if not k.startswith("layer3")}, path)


def with_nan(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(state | {"bn1.bias": torch.full((64,), torch.nan)}, path)


def a_whole_model(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save(torch.nn.Conv2d(1, 1, 1), path)


def not_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    path.write_text("hello")


def numbers(path: Path, state: dict[str, torch.Tensor]) -> None:
    torch.save({"epoch": 3}, path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncated, "cannot be read"),
        (of_another_backbone, "are not a resnet18: 'layer1.0.conv1.weight'"),
        (without_a_layer, "lack 'layer3.0.conv1.weight'"),
        (with_nan, "not finite in 'bn1.bias'"),
        (a_whole_model, "cannot be read"),
        (not_weights, "cannot be read"),
        (numbers, "'epoch' is not a tensor"),
    ],
)
def test_foreign_weights_are_refused_with_the_reason(
    tmp_path: Path,
    network: Network,
    trunk_state: dict[str, torch.Tensor],
    damage: object,
    words: str,
) -> None:
    path = tmp_path / "weights.pth"
    damage(path, trunk_state)
    with pytest.raises(ConfigError, match=words) as caught:
        install_teacher(network, str(path), 0, no_normals)
    assert "\n" not in caught.value.sentence


def test_a_damaged_safetensors_file_and_a_missing_one_are_refused(
    tmp_path: Path, network: Network
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x00" * 64)
    with pytest.raises(ConfigError, match="cannot be read"):
        install_teacher(network, str(path), 0, no_normals)
    with pytest.raises(ConfigError, match="no weights file"):
        install_teacher(network, str(tmp_path / "absent.pth"), 0, no_normals)


def test_a_variant_that_reads_e4_needs_layer4_or_says_that_it_is_random(
    tmp_path: Path, trunk_state: dict[str, torch.Tensor]
) -> None:
    network = Network(NetworkSpec(additional_skip=True))
    path = tmp_path / "weights.pth"
    torch.save(trunk_state, path)
    with pytest.raises(ConfigError, match="lack 'layer4") as caught:
        install_teacher(network, str(path), 0, no_normals)
    assert "random_layer4" in caught.value.hint
    normals = [torch.randn(4, 3, 64, 64)]
    origin = install_teacher(network, str(path), 3, lambda: normals, random_layer4=True)
    assert origin.detail == "weights.pth + random layer4 (seed 3)"
    with torch.no_grad():
        assert network.teacher(normals[0])[3].shape == (4, 512, 2, 2)


def test_without_weights_and_network_the_error_says_how_to_supply_them(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A proxy on a closed port: the download fails at once on any machine, online or not.
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    # urllib keeps the opener of its first request, proxies and all, for the rest of the process.
    monkeypatch.setattr("urllib.request._opener", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="could not be downloaded") as caught:
        install_teacher(network, None, 0, no_normals)
    assert "--backbone-weights" in caught.value.hint
