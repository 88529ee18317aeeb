"""From a few numbers to an image: what generators need besides the layers that a spec lists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import ClassVar

from torch import nn

from dropnorm_service.training.layers.blueprints.paper import Blueprint, Shape


@dataclass(frozen=True)
class Reshape:
    """A feature vector becomes an image of this shape; no layer that a spec lists."""

    shape: Shape
    kind: ClassVar[str] = "reshape"


@dataclass(frozen=True)
class Upsampling:
    """A transposed convolution that doubles an image: 4x4, stride 2, padding 1; no layer that a spec lists."""

    channels: int
    bias: bool = True
    kind: ClassVar[str] = "upsampling"


def reshape(layer: Reshape, shape: Shape) -> Blueprint:
    """`(F,)` -> `layer.shape`, which has as many values."""
    assert prod(shape) == prod(layer.shape)  # only families place it
    return Blueprint(
        make=partial(nn.Unflatten, 1, layer.shape), text="Reshape", output_shape=layer.shape
    )


def upsampling(layer: Upsampling, shape: Shape) -> Blueprint:
    """`(C, H, W)` -> `(channels, 2 H, 2 W)`."""
    channels, height, width = shape
    weights = channels * layer.channels * 16
    return Blueprint(
        make=partial(
            nn.ConvTranspose2d, channels, layer.channels, 4, stride=2, padding=1, bias=layer.bias
        ),
        text=f"ConvTranspose2d({channels} -> {layer.channels}, kernel 4, stride 2)",
        output_shape=(layer.channels, 2 * height, 2 * width),
        parameters=weights + layer.bias * layer.channels,
        flops=2 * weights * height * width,
    )
