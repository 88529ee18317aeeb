"""Layers with weights: linear layers and convolutions."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod

from torch import nn

from dropnorm.spec.layers import Conv, Linear
from dropnorm_service.training.layers.blueprints.paper import (
    Blueprint,
    DoesNotFit,
    Shape,
    describe,
    image,
    slide,
)
from dropnorm_service.training.layers.dropout import DropConnect


def linear(layer: Linear, shape: Shape) -> Blueprint:
    """`(F,)` -> `(units,)`, and so each token of a sequence."""
    if len(shape) > 2:
        raise DoesNotFit(
            f"linear takes a feature vector and receives {describe(shape)}; "
            "add a flatten layer before it"
        )
    plain = _linear(shape, layer.units, bias=layer.bias)
    rate = layer.dropconnect_rate
    if not rate:
        return plain
    make = partial(DropConnect, shape[-1], layer.units, rate, bias=layer.bias)
    return replace(plain, make=make, text=f"{plain.text}, weights dropped {rate:g}")


def conv(layer: Conv, shape: Shape) -> Blueprint:
    """`(C, H, W)` -> `(channels, H', W')` with `H' = (H + 2 * padding - window) // stride + 1`."""
    channels, *size = image(shape, "conv", "use linear layers")
    if channels % layer.groups:
        raise DoesNotFit(
            f"{layer.groups} groups do not divide the {channels} channels of the input; "
            "give a divisor of both the input's and the output's channels",
            "groups",
        )
    padding = layer.padding
    if padding is None:
        padding = layer.dilation * (layer.kernel_size - 1) // 2
    window = layer.dilation * (layer.kernel_size - 1) + 1
    height, width = (slide(pixels, window, layer.stride, padding, "kernel") for pixels in size)
    output = (layer.channels, height, width)
    weights = layer.channels * channels // layer.groups * layer.kernel_size**2
    return Blueprint(
        make=partial(
            nn.Conv2d,
            channels,
            layer.channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=layer.bias,
        ),
        text=f"Conv2d({channels} -> {layer.channels}, "
        f"kernel {layer.kernel_size}, stride {layer.stride})",
        output_shape=output,
        parameters=weights + layer.bias * layer.channels,
        flops=2 * weights * height * width,
    )


def shortcut(source: Shape, target: Shape) -> Blueprint | None:
    """What takes a residual block's input to the shape of its branch; None: they agree already.

    A linear projection of a feature vector, a 1x1 convolution of an image, each without bias (He et
    al. 2015, option B). The convolution's stride is, per axis, the smallest that gives the size.

    Raises:
        DoesNotFit: neither can.
    """
    if source == target:
        return None
    if len(source) != len(target):
        raise DoesNotFit(
            f"the residual branch turns {describe(source)} into {describe(target)}, which cannot "
            "be added to it; move the flatten layer behind the block"
        )
    if len(source) == 1:
        return _linear(source, target[0], bias=False)
    strides = (_ceil(source[1], target[1]), _ceil(source[2], target[2]))
    if (_ceil(source[1], strides[0]), _ceil(source[2], strides[1])) != target[1:]:
        raise DoesNotFit(
            f"the residual branch turns {describe(source)} into {describe(target)}, and no stride "
            "of a 1x1 convolution does; give its layers padding that keeps or divides the size"
        )
    weights = source[0] * target[0]
    return Blueprint(
        make=partial(nn.Conv2d, source[0], target[0], 1, stride=strides, bias=False),
        text=f"Conv2d({source[0]} -> {target[0]}, kernel 1, stride {strides[0]}x{strides[1]})",
        output_shape=target,
        parameters=weights,
        flops=2 * weights * target[1] * target[2],
    )


def _linear(shape: Shape, units: int, *, bias: bool) -> Blueprint:
    *places, inputs = shape
    return Blueprint(
        make=partial(nn.Linear, inputs, units, bias=bias),
        text=f"Linear({inputs} -> {units})",
        output_shape=(*places, units),
        parameters=units * (inputs + bias),
        flops=2 * prod(places) * inputs * units,
    )


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)
