"""Folded networks predict what they did, and only norms that directly follow weights are folded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.service.training import test_families, test_generative
from tests.service.training.made import classification, split_of
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dropnorm import spec as dn
from dropnorm_service.training import build_model
from dropnorm_service.training.dropout_rates import Drops
from dropnorm_service.training.folding import Folding, fold
from dropnorm_service.training.layers import Branches
from dropnorm_service.training.layers.dropout import DropConnect, Dropout
from dropnorm_service.training.layers.norms import TokenBatchNorm
from dropnorm_service.training.layers.synchronized import SynchronizedBatchNorm

SMALL = test_families.SMALL | test_generative.SMALL


def lived_in(network: nn.Module) -> nn.Module:
    """The network with statistics and affine parameters as a training might leave them."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.2, 3.0)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return network.double().eval()


def folded(network: nn.Module, x: Tensor) -> Folding:
    """Fold, having made sure that the outputs stay."""
    lived_in(network)
    with torch.no_grad():
        before = network(x)
        what = fold(network)
        assert torch.allclose(network(x), before, rtol=1e-9, atol=1e-9)
    return what


FLAT, IMAGE, TOKENS = (5,), (4, 6, 6), (3, 5)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: [nn.Linear(5, 7), nn.BatchNorm1d(7)], FLAT),
        (lambda: [nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7, affine=False)], FLAT),
        (lambda: [nn.Linear(5, 7), Dropout(0.4), nn.BatchNorm1d(7), nn.ReLU()], FLAT),
        (lambda: [DropConnect(5, 7, 0.4), nn.BatchNorm1d(7)], FLAT),
        (lambda: [nn.Linear(5, 7), TokenBatchNorm(7)], TOKENS),
        (lambda: [nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)], IMAGE),
        (lambda: [nn.Conv2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)], IMAGE),
        (lambda: [nn.Conv2d(4, 6, 3), SynchronizedBatchNorm(6)], IMAGE),
        (lambda: [nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)], IMAGE),
        (lambda: [nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), nn.BatchNorm2d(6)], IMAGE),
        (lambda: [nn.Sequential(nn.Linear(5, 7)), nn.Sequential(nn.BatchNorm1d(7))], FLAT),
    ],
)
def test_a_norm_behind_weights_is_folded(
    make: Callable[[], list[nn.Module]], shape: tuple[int, ...]
) -> None:
    network = nn.Sequential(*make())
    what = folded(network, torch.randn(3, *shape, dtype=torch.float64))
    assert (what.folded_norms, what.kept_norms) == (1, 0)
    assert not any(isinstance(module, _BatchNorm | Drops) for module in network.modules())


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: [nn.BatchNorm1d(5), nn.Linear(5, 7)], FLAT),
        (lambda: [nn.Linear(5, 7), nn.ReLU(), nn.BatchNorm1d(7)], FLAT),
        (lambda: [nn.Conv2d(4, 6, 3), nn.MaxPool2d(2), nn.BatchNorm2d(6)], IMAGE),
        (lambda: [nn.Linear(5, 7), Dropout(0.4, "at_inference"), nn.BatchNorm1d(7)], FLAT),
        (lambda: [nn.Linear(5, 7), nn.BatchNorm1d(7, track_running_stats=False)], FLAT),
        (
            lambda: [
                Branches("add", {"a": nn.Linear(5, 5), "b": nn.Identity()}),
                nn.BatchNorm1d(5),
            ],
            FLAT,
        ),
        (
            lambda: [
                nn.Linear(5, 5),
                Branches("add", {"a": nn.Sequential(nn.BatchNorm1d(5)), "b": nn.Identity()}),
            ],
            FLAT,
        ),
    ],
)
def test_a_norm_elsewhere_stays(
    make: Callable[[], list[nn.Module]], shape: tuple[int, ...]
) -> None:
    what = folded(nn.Sequential(*make()), torch.randn(3, *shape, dtype=torch.float64))
    assert (what.folded_norms, what.kept_norms) == (0, 1)


@pytest.mark.parametrize("order", ["norm_then_dropout", "dropout_then_norm"])
@pytest.mark.parametrize("position", ["before_activation", "after_activation"])
@pytest.mark.parametrize("name", SMALL)
def test_every_family_predicts_the_same(name: str, position: str, order: str) -> None:
    regularization = dn.Regularization(
        dropout=dn.Dropout(rate=0.2, stochastic_depth_rate=0.1),
        batch_norm=dn.BatchNorm(position=position),  # type: ignore[arg-type]
        order=order,  # type: ignore[arg-type]
    )
    training = test_families.spec(SMALL[name], regularization)
    facts = split_of(training, classification(1, 12, 12, samples=60)).summary
    network = build_model(training, facts.input_shape, facts.outputs)
    norms = sum(isinstance(module, _BatchNorm) for module in network.modules())
    noise = isinstance(training.architecture, dn.GAN)
    shape = (training.architecture.latent,) if noise else facts.input_shape  # type: ignore[union-attr]

    what = folded(network, torch.randn(2, *shape, dtype=torch.float64))

    assert what.folded_norms + what.kept_norms == norms
    if position == "before_activation" and training.architecture.kind in ("vgg", "mlp"):
        assert what.kept_norms == 0
    assert what.removed_dropouts > 0
    assert not any(isinstance(module, Drops) for module in network.modules())


def test_a_folded_state_fits_a_network_built_anew() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), Dropout(0.2))

    network = lived_in(make())
    fold(network)
    with torch.device("meta"):
        other = make().eval()
    fold(other)
    other.load_state_dict(network.state_dict(), assign=True)
    x = torch.randn(2, 1, 5, 5, dtype=torch.float64)
    assert torch.equal(other(x), network(x))
