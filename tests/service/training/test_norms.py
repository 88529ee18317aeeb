"""Norms of a sample by itself: against torch and by hand, in every family, in the places of a batch norm."""

from __future__ import annotations

import pytest
import torch
from tests.service.training.made import classification, split_of
from tests.service.training.shorthand import listed, mlp, problems
from tests.service.training.test_families import SMALL, spec
from tests.service.training.test_fit import numbers
from torch import nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import build_model, fit
from dropnorm_service.training.design import design
from dropnorm_service.training.layers.norms import RMSNorm, groups_of

NORMS: dict[str, dn.Norm] = {
    "batch_norm": dn.BatchNorm(),
    "layer_norm": dn.LayerNorm(),
    "group_norm": dn.GroupNorm(groups=4),
    "instance_norm": dn.InstanceNorm(),
    "rms_norm": dn.RMSNorm(),
}
IMAGES = ("batch_norm", "layer_norm", "group_norm", "rms_norm")
"""Those that families can have down to a single pixel."""


def normed(name: str) -> dn.Regularization:
    return dn.Regularization.model_validate({name: NORMS[name]})


def only_norm(model: nn.Module) -> nn.Module:
    [name] = [name for name, _ in model.named_modules() if name.endswith("norm")]
    return model.get_submodule(name)


def test_layer_norm_of_vectors_is_torchs():
    x = torch.randn(5, 7)
    norm = only_norm(build_model(mlp(7, regularization=normed("layer_norm")), (7,), 3))
    torch.testing.assert_close(norm(x), nn.LayerNorm(7)(x))


@pytest.mark.parametrize(
    ("layer", "groups"),
    [
        (layers.LayerNorm(eps=0.1), 1),
        (layers.GroupNorm(groups=4, eps=0.1), 3),
        (layers.InstanceNorm(eps=0.1), 6),
    ],
)
def test_norms_of_images_by_hand(layer: dn.Layer, groups: int):
    x = torch.randn(2, 6, 3, 5)
    norm = only_norm(build_model(listed(layer), (6, 3, 5), 3))
    parts = x.view(2, groups, -1)
    mean = parts.mean(2, keepdim=True)
    variance = (parts - mean).square().mean(2, keepdim=True)
    expected = ((parts - mean) / (variance + 0.1).sqrt()).view_as(x)
    torch.testing.assert_close(norm(x), expected)
    assert [tuple(each.shape) for each in norm.parameters()] == [(6,), (6,)]


@pytest.mark.parametrize("shape", [(6,), (6, 3, 5)])
def test_rms_norm_by_hand(shape: tuple[int, ...]):
    x = torch.randn(2, *shape)
    norm = RMSNorm(6, eps=0.1)
    nn.init.normal_(norm.get_parameter("weight"))
    root = (x.flatten(1).square().mean(1) + 0.1).sqrt().view(2, *(1 for _ in shape))
    gamma = norm.get_parameter("weight").view(6, *(1 for _ in shape[1:]))
    torch.testing.assert_close(norm(x), gamma * x / root)
    if len(shape) == 1:
        torch.testing.assert_close(RMSNorm(6, eps=0.1)(x), nn.RMSNorm(6, eps=0.1)(x))


def test_gradients_of_rms_norm():
    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(RMSNorm(4).double(), x)


def test_rms_norm_of_large_16_bit_floats_does_not_overflow():
    x = torch.full((1, 4), 1e4, dtype=torch.float16)
    torch.testing.assert_close(RMSNorm(4, affine=False)(x), torch.ones_like(x))


@pytest.mark.parametrize(
    ("channels", "most", "values", "groups"),
    [
        (64, 32, 16, 32),
        (64, 32, 1, 32),
        (32, 32, 1, 16),
        (10, 32, 1, 5),
        (7, 4, 9, 1),
        (1, 8, 1, 0),
    ],
)
def test_groups_divide_and_hold_two_values(channels: int, most: int, values: int, groups: int):
    assert groups_of(channels, most, values) == groups


@pytest.mark.parametrize("norm", IMAGES)
@pytest.mark.parametrize("family", [*SMALL, "mlp"])
def test_one_word_changes_the_norm_of_every_family(family: str, norm: str):
    architecture = dn.MLP(hidden=(16, 8)) if family == "mlp" else SMALL[family]
    batch, other = (
        build_model(spec(architecture, normed(name)), (1, 8, 8), 10)
        for name in ("batch_norm", norm)
    )

    def places(model: nn.Module) -> list[str]:
        return [name for name, _ in model.named_modules() if name.endswith(".norm")]

    assert places(other) == places(batch) != []
    assert design(spec(architecture, normed(norm)), (1, 8, 8), 10).parameters == sum(
        each.numel() for each in other.parameters()
    )


@pytest.mark.parametrize("norm", NORMS)
def test_each_trains_and_repeats(norm: str):
    training = listed(
        layers.Conv(channels=8),
        layers.Activation(),
        layers.Pool(),
        regularization=normed(norm),
        optimization=dn.Optimization(epochs=3, batch_size=32, optimizer=dn.Adam(lr=0.01)),
    )
    data = split_of(training, classification(1, 6, 6))
    first, second = (fit(training, data) for _ in range(2))
    assert numbers(first) == numbers(second)
    history = first.evaluation.history
    assert history[-1].train_loss < history[0].train_loss


@pytest.mark.parametrize(
    ("training", "shape", "field"),
    [
        (
            mlp(8, regularization=normed("instance_norm")),
            (4,),
            "regularization.instance_norm.hidden",
        ),
        (
            listed(layers.Pool(mode="global_average"), layers.InstanceNorm()),
            (4, 6, 6),
            "architecture.sequential.layers[1].instance_norm",
        ),
        (mlp(1, regularization=normed("layer_norm")), (4,), "regularization.layer_norm.hidden"),
        (mlp(1, regularization=normed("group_norm")), (4,), "regularization.group_norm.hidden"),
    ],
)
def test_a_norm_of_single_values_is_refused(
    training: dn.TrainingSpec, shape: tuple[int, ...], field: str
):
    with pytest.raises(dn.InvalidSpecError) as refused:
        design(training, shape, 3)
    assert field in problems(refused.value)


@pytest.mark.parametrize(
    ("training", "advice"),
    [
        (mlp(8, regularization=normed("instance_norm")), "or take layer_norm or group_norm"),
        (listed(layers.Pool()), "or leave it out"),
        (listed(layers.Conv(channels=4)), "or use linear layers"),
    ],
)
def test_what_takes_images_alone_says_what_else_to_do(training: dn.TrainingSpec, advice: str):
    with pytest.raises(dn.InvalidSpecError) as refused:
        design(training, (4,), 3)
    (text,) = problems(refused.value).values()
    assert text.endswith(f"before any flatten layer, {advice}")


def test_there_is_one_norm_at_most():
    with pytest.raises(ValueError, match="there is batch_norm already; give one norm at most"):
        dn.Regularization(batch_norm=dn.BatchNorm(), layer_norm=dn.LayerNorm())
