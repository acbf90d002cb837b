"""The graph: our ResNet is torchvision's, the skips are what the poster and the release say."""

from __future__ import annotations

import pytest
import torch
from skrd4ad.engine.spec import InputSpec, NetworkSpec, ScoreContract
from skrd4ad.errors import ConfigError
from skrd4ad.trainer.map_head import Inspector, cosine_distance
from skrd4ad.trainer.network import Network
from skrd4ad.trainer.resnet import SHAPES, ResNetTrunk

pytestmark = pytest.mark.usefixtures("one_thread")

BACKBONES = ("resnet18", "resnet34", "resnet50", "wide_resnet50_2")


def randomise_norms(module: torch.nn.Module) -> None:
    """Batch norms that are not the identity, so that a missing one would show."""
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2, generator=generator)
            part.running_var.uniform_(0.8, 1.2, generator=generator)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_our_names_and_shapes_are_torchvision_s(backbone: str) -> None:
    models = pytest.importorskip("torchvision").models
    with torch.device("meta"):
        theirs, ours = models.get_model(backbone, weights=None), ResNetTrunk(backbone, True)
    shapes = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == shapes


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_our_trunk_computes_what_torchvision_s_does(backbone: str) -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    theirs = models.get_model(backbone, weights=None).eval()
    randomise_norms(theirs)
    ours = ResNetTrunk(backbone, with_layer4=True).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for level, layer in zip(ours(x), ("layer1", "layer2", "layer3", "layer4"), strict=True):
            y = getattr(theirs, layer)(y)
            assert torch.allclose(level, y, rtol=1e-5, atol=1e-5 * float(y.abs().max()))


@pytest.mark.parametrize(
    ("backbone", "teacher", "bottleneck", "student"),
    [
        ("resnet18", 2_782_784, 11_680_000, 3_785_088),
        ("resnet34", 8_170_304, 16_400_640, 5_852_544),
        ("resnet50", 8_543_296, 30_829_568, 17_132_544),
        ("wide_resnet50_2", 24_862_528, 58_885_120, 26_228_224),
    ],
)
def test_parameter_counts_are_those_of_rd4ad_without_its_dead_layers(
    backbone: str, teacher: int, bottleneck: int, student: int
) -> None:
    with torch.device("meta"):
        network = Network(NetworkSpec(backbone=backbone))
    counts = [
        sum(p.numel() for p in part.parameters())
        for part in (network.teacher, network.bottleneck, network.student)
    ]
    assert counts == pytest.approx([teacher, bottleneck, student], rel=1e-4)


def same_weights(spec: NetworkSpec, source: Network) -> Network:
    twin = Network(spec).eval()
    missing = twin.load_state_dict(source.state_dict(), strict=False)
    assert not missing.missing_keys
    return twin


def test_an_untrained_poster_student_equals_the_official_one_exactly() -> None:
    torch.manual_seed(0)
    poster = Network(NetworkSpec(fusion="poster")).eval()
    randomise_norms(poster)
    official = same_weights(NetworkSpec(fusion="official"), poster)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        a, b = poster(x), official(x)
    for ours, theirs in zip((*a.student, *a.skips), (*b.student, *b.skips), strict=True):
        assert torch.equal(ours, theirs)


def test_the_skip_changes_the_lower_levels_and_never_the_deepest() -> None:
    torch.manual_seed(0)
    official = Network(NetworkSpec(fusion="official")).eval()
    plain = same_weights(NetworkSpec(fusion="none"), official)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        with_skip, without = official(x).student, plain(x).student
    assert torch.equal(with_skip[2], without[2])
    assert not torch.allclose(with_skip[1], without[1])
    assert not torch.allclose(with_skip[0], without[0])


def test_no_student_level_sees_its_own_target() -> None:
    """Changing E^k may change D^j for j < k only: E1 changes nothing, E2 D1, E3 D1 and D2."""
    torch.manual_seed(0)
    network = Network(NetworkSpec()).eval()
    touched = []
    with torch.no_grad():
        taught = network.teach(torch.randn(1, 3, 64, 64))
        z = network.bottleneck(*taught)  # fixed: only the path through the skips is looked at
        before = network.student(z, taught).student
        for level in range(3):
            changed = tuple(e + 1.0 if k == level else e for k, e in enumerate(taught))
            after = network.student(z, changed).student
            touched.append([k for k in range(3) if not torch.equal(before[k], after[k])])
    assert touched == [[], [0], [0, 1]]


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec(fusion="poster"),
        NetworkSpec(fusion="none"),
        NetworkSpec(fusion="corresponding"),
        NetworkSpec(additional_skip=True),
        NetworkSpec(bottleneck=False),
        NetworkSpec(skip_gate="cosine"),
        NetworkSpec(backbone="resnet50", fusion="corresponding", additional_skip=True),
    ],
    ids=str,
)
def test_every_variant_gives_matching_pyramids_and_gradients_for_the_student_only(
    spec: NetworkSpec,
) -> None:
    torch.manual_seed(0)
    network = Network(spec).train()
    features = network(torch.randn(2, 3, 64, 96))
    channels = [SHAPES[spec.backbone].channels(k) for k in (1, 2, 3)]
    expected = [(2, c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16), strict=True)]
    assert [tuple(level.shape) for level in features.teacher] == expected
    assert [tuple(level.shape) for level in features.student] == expected
    assert [tuple(skip.shape) for skip in features.skips] == expected[1:]
    assert all(float(level.detach().min()) >= 0.0 for level in features.student)
    sum(level.sum() for level in features.student).backward()
    assert all(p.grad is None for p in network.teacher.parameters())
    trained = [
        p for part in (network.bottleneck, network.student) if part for p in part.parameters()
    ]
    assert all(p.grad is not None for p in trained)
    assert not network.teacher.training
    assert network.student.training


def test_a_closed_gate_is_no_skip_and_an_open_one_the_whole_skip() -> None:
    from skrd4ad.trainer.student import cosine_gate

    feature = torch.rand(1, 8, 2, 2) + 0.1
    opposite = torch.zeros(1, 8, 2, 2)
    assert torch.allclose(cosine_gate(feature, 3.0 * feature), torch.ones(1, 1, 2, 2))
    assert torch.equal(cosine_gate(feature, opposite), torch.zeros(1, 1, 2, 2))
    assert torch.equal(cosine_gate(feature, -feature), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec(fusion="none", skip_gate="cosine"),
        NetworkSpec(additional_skip=True, bottleneck=False),
    ],
)
def test_combinations_without_a_meaning_are_refused(spec: NetworkSpec) -> None:
    with pytest.raises(ConfigError):
        Network(spec)


@pytest.mark.parametrize(
    "contract", [ScoreContract(), ScoreContract(score="top-mean", top_fraction=0.01)]
)
def test_the_torch_head_agrees_with_the_float64_reference(contract: ScoreContract) -> None:
    from skrd4ad.engine import score_map

    torch.manual_seed(0)
    network = Network(NetworkSpec()).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        anomaly_map, score = Inspector(network, InputSpec(height=64, width=96), contract).eval()(x)
        features = network(x)
    distances = [
        score_map.cosine_distance(e.numpy(), d.numpy())
        for e, d in zip(features.teacher, features.student, strict=True)
    ]
    reference = score_map.combine(distances, contract, (64, 96))
    assert abs(anomaly_map.numpy() - reference).max() < 2e-6
    assert abs(score.numpy() - score_map.image_score(reference, contract)).max() < 2e-6


def test_a_network_that_produced_nan_scores_infinity() -> None:
    network = Network(NetworkSpec()).eval()
    x = torch.zeros(2, 3, 64, 64)
    x[1, 0, 5, 5] = torch.nan
    with torch.no_grad():
        _, score = Inspector(network, InputSpec(height=64, width=64), ScoreContract()).eval()(x)
    assert torch.isfinite(score[0])
    assert score[1] == torch.inf


def test_zero_vectors_agree_with_each_other_and_with_nothing_else() -> None:
    a, b = torch.zeros(1, 4, 1, 3), torch.zeros(1, 4, 1, 3)
    a[0, :, 0, 1] = 1.0
    a[0, :, 0, 2] = b[0, :, 0, 2] = 2.0
    assert cosine_distance(a, b)[0, 0].tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)


def test_half_precision_features_of_a_perfect_student_are_at_distance_zero() -> None:
    feature = torch.rand(1, 1024, 4, 4).to(torch.bfloat16)
    assert float(cosine_distance(feature, feature).abs().max()) < 1e-6
