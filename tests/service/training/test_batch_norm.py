"""Batch norm as the models place it, against values worked out by hand."""

import torch
from tests.service.training.shorthand import mlp
from torch import nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import build_model
from dropnorm_service.training.layers import BLUEPRINTS

X = torch.tensor([[1.0, 10.0], [3.0, 30.0]])


def norm(shape: tuple[int, ...], **settings: float | bool) -> nn.Module:
    layer = layers.BatchNorm(**settings)  # type: ignore[arg-type]  # each is what its field wants
    return BLUEPRINTS["batch_norm"](layer, shape).make()


def test_training_normalises_by_the_batch() -> None:
    y = norm((2,), eps=1e-5)(X)
    # Means 2 and 20, variances (of the batch, divided by n) 1 and 100.
    expected = (
        torch.tensor([[-1.0, -10.0], [1.0, 10.0]]) / torch.tensor([1.00001, 100.00001]).sqrt()
    )
    torch.testing.assert_close(y, expected)


def test_running_statistics_move_by_the_momentum_and_serve_evaluation() -> None:
    module = norm((2,), momentum=0.25, eps=1e-5)
    module(X)
    # From mean 0 and variance 1 a quarter of the way to 2 and 20, and to the unbiased 2 and 200.
    mean, variance = torch.tensor([0.5, 5.0]), torch.tensor([1.25, 50.75])
    torch.testing.assert_close(module.get_buffer("running_mean"), mean)
    torch.testing.assert_close(module.get_buffer("running_var"), variance)
    torch.testing.assert_close(module.eval()(X), (X - mean) / (variance + 1e-5).sqrt())


def test_without_running_statistics_evaluation_normalises_by_its_own_batch() -> None:
    module = norm((2,), track_running_stats=False)
    assert torch.equal(module.eval()(X), module.train()(X))


def test_an_image_is_normalised_over_its_pixels_too() -> None:
    x = torch.arange(16.0).reshape(2, 2, 2, 2)
    y = norm((2, 2, 2), affine=False, eps=1e-5)(x)
    for channel in range(2):
        values = x[:, channel]
        spread = (values.square().mean() - values.mean().square() + 1e-5).sqrt()
        torch.testing.assert_close(y[:, channel], (values - values.mean()) / spread)


def test_gamma_starts_at_one_and_beta_at_zero_whatever_the_initialisation() -> None:
    initialization = dn.Initialization(scheme="kaiming", bias=0.5)
    regularization = dn.Regularization(batch_norm=dn.BatchNorm())
    spec = mlp(8, initialization=initialization, regularization=regularization)
    placed = build_model(spec, (2,), 3).get_submodule("hidden.0.norm")
    assert torch.equal(placed.get_parameter("weight"), torch.ones(8))
    assert torch.equal(placed.get_parameter("bias"), torch.zeros(8))
