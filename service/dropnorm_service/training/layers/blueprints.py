"""What a layer of the spec makes of its input, what that costs, and how its module is built.

Everything here is integer arithmetic, so a network of any size is judged before memory is taken for
it. FLOPs are those of one sample's forward pass. A multiply-add counts as two; only matrix products
and convolutions count, and biases do not, as in `torch.utils.flop_counter`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, ClassVar

from torch import nn

from dropnorm.spec.layers import Activation, Conv, Flatten, Linear, Pool
from dropnorm.spec.regularization import (
    BatchNormSettings,
    DropoutSettings,
    GroupNormSettings,
    SampleNormSettings,
)
from dropnorm_service.training.layers.activation import ACTIVATIONS
from dropnorm_service.training.layers.branches import Meeting
from dropnorm_service.training.layers.dropout import Dropout, StochasticDepth
from dropnorm_service.training.layers.norms import RMSNorm, groups_of
from dropnorm_service.training.layers.pooling import GlobalAveragePool

Shape = tuple[int, ...]
"""Shape of one sample: `(features,)` or `(channels, height, width)`."""


@dataclass(frozen=True)
class DropsBranch:
    """The end of a residual branch that is dropped for a share of the samples; no layer that a spec lists."""

    rate: float
    kind: ClassVar[str] = "stochastic_depth"


class DoesNotFit(Exception):
    """A layer cannot take the shape that reaches it.

    Attributes:
        field: the layer's field at fault; empty: the layer as such.
        message: what is wrong and what to do, one sentence.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """A layer whose input shape is known.

    Attributes:
        make: builds the module, on torch's default device.
        text: kind of layer with its settings, for people.
        output_shape: shape of one sample's output.
        parameters: learnable parameters.
        flops: floating-point operations of one sample's forward pass.
    """

    make: Callable[[], nn.Module]
    text: str
    output_shape: Shape
    parameters: int = 0
    flops: int = 0


def linear(layer: Linear, shape: Shape) -> Blueprint:
    """`(F,)` -> `(units,)`."""
    if len(shape) != 1:
        raise DoesNotFit(
            f"linear takes a feature vector and receives {describe(shape)}; "
            "add a flatten layer before it"
        )
    return _linear(shape[0], layer.units, bias=layer.bias)


def conv(layer: Conv, shape: Shape) -> Blueprint:
    """`(C, H, W)` -> `(channels, H', W')` with `H' = (H + 2 * padding - window) // stride + 1`."""
    channels, *size = _image(shape, "conv")
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
    height, width = (_slide(pixels, window, layer.stride, padding, "kernel") for pixels in size)
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


def pool(layer: Pool, shape: Shape) -> Blueprint:
    """`(C, H, W)` -> `(C, H', W')`; `global_average` -> `(C, 1, 1)`."""
    channels, *size = _image(shape, "pool")
    if layer.mode == "global_average":
        return Blueprint(
            make=GlobalAveragePool, text="GlobalAveragePool", output_shape=(channels, 1, 1)
        )
    kernel, stride = layer.kernel_size, layer.stride or layer.kernel_size
    height, width = (_slide(pixels, kernel, stride, layer.padding, "window") for pixels in size)
    kind = nn.MaxPool2d if layer.mode == "max" else nn.AvgPool2d
    return Blueprint(
        make=partial(kind, kernel, stride=stride, padding=layer.padding),
        text=f"{kind.__name__}(window {kernel}, stride {stride})",
        output_shape=(channels, height, width),
    )


def flatten(layer: Flatten, shape: Shape) -> Blueprint:
    """`(C, H, W)` -> `(C * H * W,)`; a feature vector stays as it is."""
    return Blueprint(make=nn.Flatten, text="Flatten", output_shape=(prod(shape),))


def activation(layer: Activation, shape: Shape) -> Blueprint:
    """Any shape, which it keeps."""
    make = ACTIVATIONS[layer.function].make
    return Blueprint(make=make, text=layer.function, output_shape=shape)


def dropout(layer: DropoutSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps."""
    return Blueprint(
        make=partial(Dropout, layer.rate, layer.rescaling, layer.method),
        text=f"Dropout({layer.rate:g}, {_how(layer)})",
        output_shape=shape,
    )


def _how(layer: DropoutSettings) -> str:
    if layer.method in ("gaussian", "alpha"):
        return layer.method
    return layer.rescaling if layer.method == "unit" else f"{layer.method}, {layer.rescaling}"


def stochastic_depth(layer: DropsBranch, shape: Shape) -> Blueprint:
    """Any shape, which it keeps."""
    return Blueprint(
        make=partial(StochasticDepth, layer.rate),
        text=f"StochasticDepth({layer.rate:g})",
        output_shape=shape,
    )


def batch_norm(layer: BatchNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: per feature of a vector, per channel of an image."""
    kind = nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d
    return Blueprint(
        make=partial(
            kind,
            shape[0],
            eps=layer.eps,
            momentum=layer.momentum,
            affine=layer.affine,
            track_running_stats=layer.track_running_stats,
        ),
        text=f"{kind.__name__}({shape[0]})",
        output_shape=shape,
        parameters=2 * shape[0] * layer.affine,
    )


def layer_norm(layer: SampleNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: all values of a sample together."""
    return _group_norm(layer, shape, 1, "LayerNorm")


def group_norm(layer: GroupNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: groups of features or channels."""
    groups = groups_of(shape[0], layer.groups, prod(shape[1:]))
    return _group_norm(layer, shape, groups or 1, f"GroupNorm, {groups} groups")


def instance_norm(layer: SampleNormSettings, shape: Shape) -> Blueprint:
    """`(C, H, W)`, which it keeps: each channel by itself."""
    channels, *size = _image(shape, "instance_norm")
    if prod(size) == 1:
        raise DoesNotFit(
            f"instance norm has one value per channel in {describe(shape)}, which it would make zero; "
            "take a group or a layer norm, or let less pooling come before it"
        )
    return _group_norm(layer, shape, channels, "InstanceNorm")


def rms_norm(layer: SampleNormSettings, shape: Shape) -> Blueprint:
    """Any shape, which it keeps: all values of a sample together."""
    return Blueprint(
        make=partial(RMSNorm, shape[0], eps=layer.eps, affine=layer.affine),
        text=f"RMSNorm({shape[0]})",
        output_shape=shape,
        parameters=shape[0] * layer.affine,
    )


def _group_norm(layer: SampleNormSettings, shape: Shape, groups: int, name: str) -> Blueprint:
    if prod(shape) // groups == 1:
        raise DoesNotFit(
            f"a norm of single values makes them zero, and {describe(shape)} is one value; leave the norm out"
        )
    return Blueprint(
        make=partial(nn.GroupNorm, groups, shape[0], eps=layer.eps, affine=layer.affine),
        text=f"{name}({shape[0]})",
        output_shape=shape,
        parameters=2 * shape[0] * layer.affine,
    )


BLUEPRINTS: Mapping[str, Callable[[Any, Shape], Blueprint]] = {
    "linear": linear,
    "conv": conv,
    "pool": pool,
    "flatten": flatten,
    "activation": activation,
    "dropout": dropout,
    "stochastic_depth": stochastic_depth,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "rms_norm": rms_norm,
}
"""Kind of layer in the spec -> its blueprint. Blocks are no layers but places for them."""


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
        return _linear(source[0], target[0], bias=False)
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


def meeting_shape(meeting: Meeting, ways: Sequence[Shape]) -> Shape:
    """Shape of what ways of these shapes become where they meet.

    Raises:
        DoesNotFit: they cannot meet.
    """
    first, *others = ways
    if meeting == "concatenate":
        if all(way[1:] == first[1:] for way in others):
            return (sum(way[0] for way in ways), *first[1:])
    elif meeting == "gate":
        per_channel = (first[0], *(1 for _ in first[1:]))
        if all(way in (first, per_channel) for way in others):
            return first
    elif all(way == first for way in others):
        return first
    shapes = " and ".join(describe(way) for way in ways)
    raise DoesNotFit(f"the ways of this block end with {shapes}, which cannot meet by {meeting}")


def describe(shape: Shape) -> str:
    """A shape in words."""
    if len(shape) == 1:
        return f"a feature vector of {shape[0]}"
    return f"an image of {' x '.join(map(str, shape))} (channels x height x width)"


def _linear(inputs: int, units: int, *, bias: bool) -> Blueprint:
    return Blueprint(
        make=partial(nn.Linear, inputs, units, bias=bias),
        text=f"Linear({inputs} -> {units})",
        output_shape=(units,),
        parameters=units * (inputs + bias),
        flops=2 * inputs * units,
    )


def _ceil(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _image(shape: Shape, kind: str) -> Shape:
    if len(shape) != 3:
        raise DoesNotFit(
            f"{kind} takes an image and receives {describe(shape)}; use it on image data and "
            "before any flatten layer, or use linear layers"
        )
    return shape


def _slide(pixels: int, window: int, stride: int, padding: int, what: str) -> int:
    """Places a window can take along one axis."""
    room = pixels + 2 * padding
    if window > room:
        raise DoesNotFit(
            f"the {what} spans {window} pixels and the image only {room}"
            + (f", padding of {padding} on each side included" if padding else "")
            + f"; give a smaller {what}, more padding, or fewer layers that shrink the image",
            "kernel_size",
        )
    return (room - window) // stride + 1
