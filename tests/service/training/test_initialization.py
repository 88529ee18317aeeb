"""How weights start: exactly as torch.nn.init draws them, and with the statistics that the papers ask for."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from tests.service.training.shorthand import listed, mlp
from torch import Tensor, nn

from dropnorm import spec as dn
from dropnorm.spec import layers
from dropnorm_service.training import build_model
from dropnorm_service.training.initialization import SCHEMES, fans
from dropnorm_service.training.layers import ACTIVATIONS

SEED = 5


def weights(model: nn.Module) -> list[Tensor]:
    kinds = (nn.Linear, nn.Conv2d)
    return [module.weight for module in model.modules() if isinstance(module, kinds)]


def built(spec: dn.TrainingSpec, shape: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(SEED)
    return build_model(spec, shape, 10)


def test_every_scheme_is_registered() -> None:
    schemes = set(get_args(dn.Initialization.model_fields["scheme"].annotation))
    assert set(SCHEMES) == schemes - {"default"}


def test_default_is_what_torch_draws() -> None:
    model = built(mlp(32, 16), (8,))
    torch.manual_seed(SEED)
    for ours, (inputs, outputs) in zip(weights(model), ((8, 32), (32, 16), (16, 10)), strict=True):
        assert torch.equal(ours, nn.Linear(inputs, outputs).weight)


@pytest.mark.parametrize(
    ("initialization", "draw"),
    [
        (
            {"scheme": "xavier"},
            lambda weight, gain: nn.init.xavier_normal_(weight, gain),
        ),
        (
            {"scheme": "xavier", "distribution": "uniform"},
            lambda weight, gain: nn.init.xavier_uniform_(weight, gain),
        ),
        (
            {"scheme": "kaiming"},
            lambda weight, gain: nn.init.kaiming_normal_(
                weight, nonlinearity="relu" if gain > 1 else "linear"
            ),
        ),
        (
            {"scheme": "kaiming", "distribution": "uniform"},
            lambda weight, gain: nn.init.kaiming_uniform_(
                weight, nonlinearity="relu" if gain > 1 else "linear"
            ),
        ),
        (
            {"scheme": "lecun"},
            lambda weight, gain: nn.init.normal_(weight, std=fans(weight)[0] ** -0.5),
        ),
        (
            {"scheme": "orthogonal"},
            lambda weight, gain: nn.init.orthogonal_(weight, gain),
        ),
        (
            {"scheme": "truncated_normal", "std": 0.1},
            lambda weight, gain: nn.init.trunc_normal_(weight, std=0.1, a=-0.2, b=0.2),
        ),
    ],
)
def test_schemes_draw_exactly_as_torch_does(
    initialization: dict[str, str], draw: Callable[[Tensor, float], Tensor]
) -> None:
    settings = dn.Initialization.model_validate({**initialization, "bias": 0.25})
    spec = listed(
        layers.Conv(channels=6, groups=2),
        layers.Activation(),
        layers.Flatten(),
        layers.Linear(units=12),
        layers.Activation(),
        initialization=settings,
    )
    model = built(spec, (2, 4, 4))
    torch.manual_seed(SEED)
    by_hand = weights(
        nn.Sequential(nn.Conv2d(2, 6, 3, groups=2), nn.Linear(96, 12), nn.Linear(12, 10))
    )
    for weight, gain in zip(by_hand, (math.sqrt(2), math.sqrt(2), 1.0), strict=True):
        draw(weight, gain)
    for ours, theirs in zip(weights(model), by_hand, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    biases = [value for name, value in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 3
    assert all(torch.equal(bias, torch.full_like(bias, 0.25)) for bias in biases)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(
    ("scheme", "std"),
    [
        ("xavier", math.sqrt(2) * math.sqrt(2 / (400 + 600))),
        ("kaiming", math.sqrt(2 / 400)),
        ("lecun", math.sqrt(1 / 400)),
    ],
)
def test_standard_deviation(scheme: str, distribution: str, std: float) -> None:
    settings = dn.Initialization.model_validate({"scheme": scheme, "distribution": distribution})
    weight = weights(built(mlp(600, initialization=settings), (400,)))[0]
    assert weight.std().item() == pytest.approx(std, rel=0.01)
    assert weight.mean().item() == pytest.approx(0.0, abs=5 * std / math.sqrt(weight.numel()))
    if distribution == "uniform":
        assert weight.abs().max().item() <= math.sqrt(3) * std


def test_orthogonal_rows() -> None:
    settings = dn.Initialization(scheme="orthogonal", gain=2.0)
    weight = weights(built(mlp(16, initialization=settings), (32,)))[0]
    torch.testing.assert_close(weight @ weight.T, 4 * torch.eye(16), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", ["relu", "elu", "gelu", "silu"])
def test_gain_keeps_the_mean_square(function: dn.ActivationFunction) -> None:
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    y = ACTIVATIONS[function].make()(z)
    mean_square = torch.trapezoid(y.square() * density, z).item()
    assert ACTIVATIONS[function].gain == pytest.approx(mean_square**-0.5, rel=1e-4)


@pytest.mark.parametrize("function", get_args(dn.ActivationFunction))
def test_gain_is_that_of_the_activation_which_follows(function: dn.ActivationFunction) -> None:
    """Past norm, dropout, pooling, flatten and the sum of a residual block; 1 before other weights."""
    activation = layers.Activation(function=function)
    spec = listed(
        layers.Conv(channels=64),
        layers.BatchNorm(),
        layers.Dropout(rate=0.5),
        activation,
        layers.Conv(channels=64),
        layers.Residual(layers=(layers.Conv(channels=128), activation, layers.Conv(channels=128))),
        activation,
        layers.Flatten(),
        layers.Linear(units=400),
        layers.Linear(units=400),
        initialization=dn.Initialization(scheme="kaiming"),
    )
    model = built(spec, (8, 4, 4))
    gain = ACTIVATIONS[function].gain
    expected = {
        "layers.0.conv": gain,
        "layers.4.conv": 1.0,
        "layers.5.residual.layers.0.conv": gain,
        "layers.5.residual.layers.2.conv": gain,
        "layers.5.residual.shortcut": gain,
        "layers.8.linear": 1.0,
        "layers.9.linear": 1.0,
        "output.linear": 1.0,
    }
    for name, wanted in expected.items():
        weight = model.get_submodule(name).get_parameter("weight")
        found = weight.std().item() * math.sqrt(fans(weight)[0])
        assert found == pytest.approx(wanted, rel=6 / math.sqrt(2 * weight.numel())), name


def test_what_stands_before_a_block_goes_into_its_branch() -> None:
    preactivated = layers.Residual(
        layers=(layers.BatchNorm(), layers.Activation(function="tanh"), layers.Linear(units=400))
    )
    spec = listed(
        layers.Linear(units=400),
        layers.Residual(layers=(preactivated, layers.Linear(units=400))),
        initialization=dn.Initialization(scheme="kaiming"),
    )
    weight = weights(built(spec, (400,)))[0]
    assert weight.std().item() * 20 == pytest.approx(5 / 3, rel=0.02)


def test_a_gain_in_the_spec_precedes_the_activations() -> None:
    settings = dn.Initialization(scheme="xavier", gain=3.0)
    weight = weights(built(mlp(500, initialization=settings), (500,)))[0]
    assert weight.std().item() == pytest.approx(3 / math.sqrt(500), rel=0.01)
