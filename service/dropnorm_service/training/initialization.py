"""How weights start: one rule per scheme, drawn from torch's global generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod, sqrt

from torch import Tensor, nn

from dropnorm.spec import Initialization
from dropnorm_service.training.layers.recurrent import Recurrent


def xavier(weight: Tensor, settings: Initialization, gain: float) -> None:
    """Standard deviation `gain * sqrt(2 / (fan_in + fan_out))` (Glorot & Bengio 2010)."""
    fan_in, fan_out = fans(weight)
    _draw(weight, settings, gain * sqrt(2.0 / (fan_in + fan_out)))


def kaiming(weight: Tensor, settings: Initialization, gain: float) -> None:
    """Standard deviation `gain / sqrt(fan_in)` (He et al. 2015)."""
    _draw(weight, settings, gain / sqrt(fans(weight)[0]))


def lecun(weight: Tensor, settings: Initialization, gain: float) -> None:
    """Standard deviation `1 / sqrt(fan_in)` (LeCun et al. 1998); it takes no gain."""
    _draw(weight, settings, 1.0 / sqrt(fans(weight)[0]))


def orthogonal(weight: Tensor, settings: Initialization, gain: float) -> None:
    """Orthonormal rows or columns, whichever are fewer, times the gain (Saxe et al. 2013)."""
    nn.init.orthogonal_(weight, gain)


def truncated_normal(weight: Tensor, settings: Initialization, gain: float) -> None:
    """Normal with `settings.std`, cut at two of it on either side; it takes no gain."""
    nn.init.trunc_normal_(weight, std=settings.std, a=-2.0 * settings.std, b=2.0 * settings.std)


SCHEMES: Mapping[str, Callable[[Tensor, Initialization, float], None]] = {
    "xavier": xavier,
    "kaiming": kaiming,
    "lecun": lecun,
    "orthogonal": orthogonal,
    "truncated_normal": truncated_normal,
}
"""Scheme -> how it draws a weight in place. `default` leaves what torch drew for the module."""


def initialize(
    module: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, settings: Initialization, gain: float
) -> None:
    """Draw the weights of one module anew, unless the scheme is `default` or the device is meta.

    Args:
        module: its bias, where it has one, becomes `settings.bias`.
        settings: scheme, distribution, and the gain where the spec gives one.
        gain: that of the activation which follows; a gain in the settings precedes it.
    """
    if settings.scheme == "default" or module.weight.is_meta:
        return
    gain = gain if settings.gain is None else settings.gain
    SCHEMES[settings.scheme](module.weight, settings, gain)
    if module.bias is not None:
        nn.init.constant_(module.bias, settings.bias)


def initialize_recurrent(module: Recurrent, settings: Initialization) -> None:
    """Likewise of each gate by itself, its weights of inputs and those of the last output apart, at a gain of 1."""
    if settings.scheme == "default" or module.weight.is_meta:
        return
    gain = 1.0 if settings.gain is None else settings.gain
    for weight in module.gate_weights():
        SCHEMES[settings.scheme](weight.detach(), settings, gain)
    nn.init.constant_(module.bias, settings.bias)


def initialize_embedding(module: nn.Embedding, settings: Initialization) -> None:
    """Draw an embedding anew by the scheme that knows no inputs and outputs, `truncated_normal`."""
    if settings.scheme == "truncated_normal" and not module.weight.is_meta:
        truncated_normal(module.weight, settings, 1.0)


def fans(weight: Tensor) -> tuple[int, int]:
    """Fan-in and fan-out of a weight `[outputs, inputs, *kernel]`, counted as torch counts them.

    In a grouped convolution `inputs` are those of one group and `outputs` those of all.
    """
    kernel = prod(weight.shape[2:])
    return weight.shape[1] * kernel, weight.shape[0] * kernel


def _draw(weight: Tensor, settings: Initialization, std: float) -> None:
    if settings.distribution == "normal":
        nn.init.normal_(weight, std=std)
    else:
        bound = sqrt(3.0) * std
        nn.init.uniform_(weight, -bound, bound)
