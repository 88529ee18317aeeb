"""A layer on paper: its shapes and its cost, in integers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Shape = tuple[int, ...]
"""Shape of one sample: `(features,)`, `(channels, height, width)`, or of a sequence `(tokens, features)`."""


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


def describe(shape: Shape) -> str:
    """A shape in words."""
    if len(shape) == 1:
        return f"a feature vector of {shape[0]}"
    if len(shape) == 2:
        return f"a sequence of {shape[0]} tokens of {shape[1]} features"
    return f"an image of {' x '.join(map(str, shape))} (channels x height x width)"


def image(shape: Shape, kind: str, instead: str) -> Shape:
    """The shape of an image.

    Raises:
        DoesNotFit: it is none; `kind` of layer takes nothing else, and `instead` is what to do without it.
    """
    if len(shape) != 3:
        raise DoesNotFit(
            f"{kind} takes an image and receives {describe(shape)}; use it on image data and "
            f"before any flatten layer, or {instead}"
        )
    return shape


def slide(pixels: int, window: int, stride: int, padding: int, what: str) -> int:
    """Places a window can take along one axis.

    Raises:
        DoesNotFit: it is wider than the image.
    """
    room = pixels + 2 * padding
    if window > room:
        raise DoesNotFit(
            f"the {what} spans {window} pixels and the image only {room}"
            + (f", padding of {padding} on each side included" if padding else "")
            + f"; give a smaller {what}, more padding, or fewer layers that shrink the image",
            "kernel_size",
        )
    return (room - window) // stride + 1
