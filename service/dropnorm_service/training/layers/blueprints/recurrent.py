"""Recurrent layers, and what stands around them. No spec lists them: families place them.

A sample is `(T, features)`, the features of T tokens; what sums it up is `(features,)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

from dropnorm_service.training.layers import embedding as modules
from dropnorm_service.training.layers.activation import Maxout as MaxoutModule
from dropnorm_service.training.layers.blueprints.paper import Blueprint, Shape
from dropnorm_service.training.layers.recurrent import CELLS


@dataclass(frozen=True)
class Recurrent:
    """A recurrent layer.

    Attributes:
        cell: kind of its units.
        units: how many.
        depth: number of its state, which a layer of the decoder shares with one of the encoder.
        summary: features of the vector that enters each step besides the input; 0: there is none.
        rate: share of the units dropped of what each step takes from the last.
    """

    cell: Literal["lstm", "gru"]
    units: int
    depth: int = 0
    summary: int = 0
    rate: float = 0.0
    kind: ClassVar[str] = "recurrent"


@dataclass(frozen=True)
class LastToken:
    """The features of the last token alone."""

    kind: ClassVar[str] = "last_token"


@dataclass(frozen=True)
class Summary:
    """The vector of `width` features that sums the source up, at each token in place of the input."""

    width: int
    kind: ClassVar[str] = "summary"


@dataclass(frozen=True)
class Maxout:
    """The larger of each two features."""

    kind: ClassVar[str] = "maxout"


RecurrentLayer = Recurrent | LastToken | Summary | Maxout


def recurrent(layer: Recurrent, shape: Shape) -> Blueprint:
    """`(T, inputs)` -> `(T, units)`."""
    length, inputs = shape
    cell, units = CELLS[layer.cell], layer.units
    incoming = inputs + layer.summary + units
    text = f"{cell.__name__}({inputs + layer.summary} -> {units}"
    return Blueprint(
        make=partial(
            cell, inputs, units, depth=layer.depth, summary=layer.summary, rate=layer.rate
        ),
        text=text + (f", drops {layer.rate:g} of its last step)" if layer.rate else ")"),
        output_shape=(length, units),
        parameters=cell.gates * units * (incoming + 1),
        flops=2 * length * cell.gates * units * incoming,
    )


def last_token(layer: LastToken, shape: Shape) -> Blueprint:
    """`(T, features)` -> `(features,)`."""
    return Blueprint(make=modules.LastToken, text="LastToken", output_shape=shape[1:])


def summary(layer: Summary, shape: Shape) -> Blueprint:
    """`(T, anything)` -> `(T, width)`."""
    return Blueprint(make=modules.AtEachToken, text="Summary", output_shape=(shape[0], layer.width))


def maxout(layer: Maxout, shape: Shape) -> Blueprint:
    """`(..., 2 * features)` -> `(..., features)`."""
    return Blueprint(
        make=MaxoutModule, text="Maxout(2)", output_shape=(*shape[:-1], shape[-1] // 2)
    )
