"""The families of image networks: sizes to the parameter, shapes on every input, blocks against plain modules."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from tests.service.training.made import classification, split_of
from tests.service.training.shorthand import problems
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dropnorm import spec as dn
from dropnorm_service.training import build_model, fit
from dropnorm_service.training.design import design
from dropnorm_service.training.families import COMPOSITES, FAMILIES
from dropnorm_service.training.layers import Dropout

NORMED = dn.Regularization(batch_norm=dn.BatchNorm())
PLAIN = dn.Regularization()

REFERENCES: list[tuple[dn.Architecture, dn.Regularization, int]] = [
    (dn.AlexNet(), PLAIN, 61_100_840),
    (dn.VGG(), PLAIN, 138_357_544),
    (dn.VGG(), NORMED, 138_365_992),
    (dn.VGG(depth=11), PLAIN, 132_863_336),
    (dn.VGG(depth=13), PLAIN, 133_047_848),
    (dn.VGG(depth=19), PLAIN, 143_667_240),
    (dn.GoogLeNet(auxiliary_heads=False), NORMED, 6_624_904),
    (dn.GoogLeNet(), NORMED, 13_004_888),
    (dn.ResNet(), NORMED, 11_689_512),
    (dn.ResNet(depth=34), NORMED, 21_797_672),
    (dn.ResNet(depth=50), NORMED, 25_557_032),
    (dn.ResNet(depth=101), NORMED, 44_549_160),
    (dn.ResNet(depth=152), NORMED, 60_192_808),
    (dn.ResNet(depth=50, squeeze=16), NORMED, 28_088_024),
    (dn.DenseNet(), NORMED, 7_978_856),
    (dn.DenseNet(depth=169), NORMED, 14_149_480),
    (dn.DenseNet(depth=201), NORMED, 20_013_928),
]

SMALL: dict[str, dn.Architecture] = {
    "alexnet": dn.AlexNet(channels=(8, 12, 16, 12, 12), hidden=(32,)),
    "vgg": dn.VGG(depth=11, width=8, hidden=(32,)),
    "googlenet": dn.GoogLeNet(width=0.125),
    "resnet": dn.ResNet(blocks=(1, 1), width=8, zero_init=True),
    "resnet, squeezed bottlenecks": dn.ResNet(blocks=(1, 1), width=8, bottleneck=True, squeeze=4),
    "densenet": dn.DenseNet(blocks=(2, 2), growth=8),
}


def spec(
    architecture: dn.Architecture, regularization: dn.Regularization = NORMED, **parts: object
) -> dn.TrainingSpec:
    return dn.TrainingSpec.model_validate(
        {
            "architecture": architecture,
            "regularization": regularization,
            "data": dn.Data(dataset="made"),
            **parts,
        }
    )


def test_every_image_family_is_here():
    small = {architecture.kind for architecture in SMALL.values()}
    assert small == set(FAMILIES) - {"mlp", "sequential"}
    kinds = [each.model_fields["kind"].default for each in get_args(get_args(dn.Architecture)[0])]
    assert kinds == [*FAMILIES, *COMPOSITES]


@pytest.mark.parametrize(("architecture", "regularization", "parameters"), REFERENCES)
def test_parameters_at_the_reference_configuration(
    architecture: dn.Architecture, regularization: dn.Regularization, parameters: int
) -> None:
    training = spec(architecture, regularization)
    assert design(training, (3, 224, 224), 1000).parameters == parameters
    with torch.device("meta"):
        model = build_model(training, (3, 224, 224), 1000)
    assert sum(each.numel() for each in model.parameters()) == parameters


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 5, 3), (1, 1, 1), (3, 96, 64)]
)
@pytest.mark.parametrize("regularization", [NORMED, PLAIN], ids=["normed", "plain"])
@pytest.mark.parametrize("name", SMALL)
def test_small_and_large_images(
    name: str, regularization: dn.Regularization, shape: tuple[int, ...]
) -> None:
    """Shapes and FLOPs of the plan are those of the modules."""
    training = spec(SMALL[name], regularization)
    paper = design(training, shape, 10)
    model = build_model(training, shape, 10).eval()
    assert paper.parameters == sum(each.numel() for each in model.parameters())
    with FlopCounterMode(display=False) as counter:
        assert model(torch.randn(2, *shape)).shape == (2, 10)
    heads = sum(layer.blueprint.flops for layer in paper.walk() if ".head." in layer.element.name)
    assert counter.get_total_flops() == 2 * (paper.forward_flops - heads)


@pytest.mark.parametrize("name", SMALL)
def test_feature_vectors_are_refused(name: str) -> None:
    with pytest.raises(dn.InvalidSpecError) as refused:
        design(spec(SMALL[name]), (30,), 2)
    kind = SMALL[name].kind
    assert "takes images" in problems(refused.value)[f"architecture.{kind}"]


@pytest.mark.parametrize("name", SMALL)
def test_every_family_learns_and_repeats(name: str) -> None:
    training = spec(
        SMALL[name],
        dn.Regularization(dropout=dn.Dropout(rate=0.1), batch_norm=dn.BatchNorm()),
        optimization=dn.Optimization(epochs=4, batch_size=32, optimizer=dn.Adam(lr=0.01)),
    )
    data = split_of(training, classification(1, 8, 8, samples=240))
    first, second = (fit(training, data).evaluation for _ in range(2))
    assert first.history[-1].train_loss == second.history[-1].train_loss
    assert first.history[-1].train_loss < 0.8 * first.history[0].train_loss


@pytest.mark.parametrize("name", SMALL)
def test_the_same_regularization_acts_in_every_family(name: str) -> None:
    regularization = dn.Regularization(dropout=dn.Dropout(rate=0.25), batch_norm=dn.BatchNorm())
    bare = build_model(spec(SMALL[name], PLAIN), (1, 16, 16), 10)
    model = build_model(spec(SMALL[name], regularization), (1, 16, 16), 10)
    assert not [each for each in bare.modules() if isinstance(each, Dropout | nn.BatchNorm2d)]
    assert {each.rate for each in model.modules() if isinstance(each, Dropout)} == {0.25}
    assert [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]


def module(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name)


def test_a_residual_block_by_hand():
    training = spec(dn.ResNet(blocks=(1, 1), width=4), NORMED)
    model = build_model(training, (1, 8, 8), 3).eval()
    block = "stages.1.0"
    x = torch.randn(2, 4, 8, 8)

    def normed(name: str, y: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        weight = model.get_parameter(f"{block}.sum.{name}.conv.weight")
        found: Tensor = module(model, f"{block}.sum.{name}.norm")(
            F.conv2d(y, weight, None, stride, padding)
        )
        return found

    branch = normed("branch.0", x, stride=2, padding=1).relu()
    branch = normed("branch.1", branch, padding=1)
    expected = (branch + normed("shortcut.0", x, stride=2)).relu()
    torch.testing.assert_close(module(model, block)(x), expected)
    x = torch.randn(2, 4, 8, 8)
    same = module(model, "stages.0.0.sum")  # its shape stays, so its shortcut has no weights
    assert list(module(same, "shortcut").parameters()) == []


def test_zero_initialisation_starts_as_the_shortcuts():
    training = spec(dn.ResNet(blocks=(2,), width=4, zero_init=True), NORMED)
    model = build_model(training, (1, 8, 8), 3)
    x = torch.randn(2, 4, 8, 8).relu()
    torch.testing.assert_close(module(model, "stages.0")(x), x)
    unlearnt = dn.Regularization(batch_norm=dn.BatchNorm(affine=False))
    for regularization in (PLAIN, unlearnt):
        training = spec(dn.ResNet(blocks=(2,), width=4, zero_init=True), regularization)
        bare = build_model(training, (1, 8, 8), 3)
        torch.testing.assert_close(module(bare, "stages.0")(x), x)


def test_squeeze_and_excitation_by_hand():
    training = spec(dn.ResNet(blocks=(1,), width=8, squeeze=4), PLAIN)
    model = build_model(training, (1, 8, 8), 3)
    squeeze = module(model, "stages.0.0.sum.branch.squeeze")
    x = torch.randn(2, 8, 5, 5)
    weights = dict(squeeze.named_parameters())

    def linear(name: str, y: Tensor) -> Tensor:
        weight = weights[f"gate.{name}.weight"][:, :, 0, 0]
        return F.linear(y, weight, weights[f"gate.{name}.bias"])

    scale = linear("expand", linear("reduce", x.mean((2, 3))).relu()).sigmoid()
    torch.testing.assert_close(squeeze(x), x * scale[:, :, None, None])


def test_a_dense_block_hands_on_all_that_came_before():
    training = spec(dn.DenseNet(blocks=(2,), growth=4), NORMED)
    model = build_model(training, (1, 8, 8), 3).eval()
    x = torch.randn(2, 8, 8, 8)
    y = module(model, "blocks.0")(x)
    assert y.shape == (2, 16, 8, 8)
    torch.testing.assert_close(y[:, :8], x)
    torch.testing.assert_close(y[:, 8:12], module(model, "blocks.0.0.new")(x))
    torch.testing.assert_close(y[:, 12:], module(model, "blocks.0.1.new")(y[:, :12]))


def test_an_inception_module_by_hand():
    training = spec(dn.GoogLeNet(width=0.125, auxiliary_heads=False), NORMED)
    model = build_model(training, (1, 32, 32), 3).eval()
    inception = module(model, "inception.3a")
    x = torch.randn(2, 24, 8, 8)
    ways = [module(inception, name)(x) for name in ("one", "three", "five")]
    pooled = module(inception, "pooled.0")(F.max_pool2d(x, 3, 1, 1))
    torch.testing.assert_close(inception(x), torch.cat([*ways, pooled], dim=1))


def test_auxiliary_heads_are_trained_and_only_in_training():
    training = spec(SMALL["googlenet"], optimization=dn.Optimization(epochs=1, batch_size=64))
    shape = (1, 16, 16)
    model = build_model(training, shape, 3)
    heads = [name for name, _ in model.named_parameters() if ".head." in name]
    assert {name.split(".head.")[0] for name in heads} == {
        "inception.auxiliary4a",
        "inception.auxiliary4d",
    }
    data = split_of(training, classification(*shape, samples=100))
    torch.manual_seed(training.seed)
    before = build_model(training, shape, 3).state_dict()
    trained = fit(training, data).model
    after = dict(trained.named_parameters())
    assert all(not torch.equal(before[name], after[name]) for name in heads if "weight" in name)
    with FlopCounterMode(display=False) as counter:
        trained(torch.randn(1, *shape))
    without = spec(dn.GoogLeNet(width=0.125, auxiliary_heads=False))
    assert counter.get_total_flops() == design(without, shape, 3).forward_flops


def test_a_depth_is_written_out_and_never_beside_blocks():
    assert dn.ResNet().depth == 18
    assert dn.ResNet(blocks=(2, 2)).depth is None
    assert dn.DenseNet().depth == 121
    with pytest.raises(ValueError, match="either depth or blocks"):
        dn.ResNet(depth=18, blocks=(2, 2))
    resolved = dn.ResNet(blocks=(2, 2)).model_dump(mode="json")
    assert dn.ResNet.model_validate(resolved) == dn.ResNet(blocks=(2, 2))


def test_a_layer_that_would_be_too_wide_is_refused():
    training = spec(dn.ResNet(blocks=(1, 1, 1, 1), bottleneck=True, width=2**16))
    with pytest.raises(dn.InvalidSpecError) as refused:
        design(training, (1, 8, 8), 10)
    assert (
        "comes to a layer of 2,097,152 channels" in problems(refused.value)["architecture.resnet"]
    )
