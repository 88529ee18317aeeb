"""Layers without weights that are there in training and evaluation alike, and how ways meet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod

from torch import nn

from dropnorm.spec.layers import Activation, Flatten, Pool
from dropnorm_service.training.layers.activation import nonlinearity
from dropnorm_service.training.layers.blueprints.paper import (
    Blueprint,
    DoesNotFit,
    Shape,
    describe,
    image,
    slide,
)
from dropnorm_service.training.layers.branches import Meeting
from dropnorm_service.training.layers.pooling import GlobalAveragePool


def pool(layer: Pool, shape: Shape) -> Blueprint:
    """`(C, H, W)` -> `(C, H', W')`; `global_average` -> `(C, 1, 1)`."""
    channels, *size = image(shape, "pool", "leave it out")
    if layer.mode == "global_average":
        return Blueprint(
            make=GlobalAveragePool, text="GlobalAveragePool", output_shape=(channels, 1, 1)
        )
    kernel, stride = layer.kernel_size, layer.stride or layer.kernel_size
    height, width = (slide(pixels, kernel, stride, layer.padding, "window") for pixels in size)
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
    slope = "" if layer.negative_slope is None else f"({layer.negative_slope:g})"
    return Blueprint(
        make=nonlinearity(layer).make, text=f"{layer.function}{slope}", output_shape=shape
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
