"""The non-linearities, each with the gain that initialisation recommends in front of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn.init import calculate_gain

from dropnorm.spec import ActivationFunction
from dropnorm.spec.layers import Activation


@dataclass(frozen=True)
class Nonlinearity:
    """An activation function.

    Attributes:
        make: builds its module.
        gain: factor on the standard deviation of the weights before it. Where
            `torch.nn.init.calculate_gain` knows none, it is the one that keeps the mean square of a
            standard normal input: `E[f(z)^2] ** -0.5` (He et al. 2015, which gives ReLU sqrt(2)).
    """

    make: Callable[[], nn.Module]
    gain: float


def nonlinearity(activation: Activation) -> Nonlinearity:
    """What an activation layer computes."""
    slope = activation.negative_slope
    if slope is None:
        return ACTIVATIONS[activation.function]
    return Nonlinearity(partial(nn.LeakyReLU, slope), calculate_gain("leaky_relu", slope))


ACTIVATIONS: Mapping[ActivationFunction, Nonlinearity] = {
    "relu": Nonlinearity(nn.ReLU, calculate_gain("relu")),
    "leaky_relu": Nonlinearity(nn.LeakyReLU, calculate_gain("leaky_relu")),
    "elu": Nonlinearity(nn.ELU, 1.2452),
    "selu": Nonlinearity(nn.SELU, calculate_gain("selu")),
    "gelu": Nonlinearity(nn.GELU, 1.5335),
    "silu": Nonlinearity(nn.SiLU, 1.6765),
    "tanh": Nonlinearity(nn.Tanh, calculate_gain("tanh")),
    "sigmoid": Nonlinearity(nn.Sigmoid, calculate_gain("sigmoid")),
}


class Maxout(nn.Module):
    """The larger of each two neighbouring features (Goodfellow et al. 2013): `[..., 2 * units]` -> `[..., units]`."""

    def forward(self, x: Tensor) -> Tensor:
        pairs: Tensor = x.unflatten(-1, (-1, 2))
        return pairs.amax(dim=-1)
