"""Layers of sequences of tokens. No spec lists them: families place them.

A sample is `(T,)`, T tokens, until it is embedded, and then `(T, features)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from dropnorm_service.training.layers import embedding as modules
from dropnorm_service.training.layers.attention import FromMemory
from dropnorm_service.training.layers.blueprints.paper import Blueprint, Shape


@dataclass(frozen=True)
class Embedding:
    """A vector for each token, drawn with standard deviation `std` and multiplied by `scale`."""

    tokens: int
    width: int
    std: float
    scale: float = 1.0
    kind: ClassVar[str] = "embedding"


@dataclass(frozen=True)
class LearnedPositions:
    """A learned vector for each of `length` places, drawn with standard deviation `std`."""

    length: int
    width: int
    std: float
    kind: ClassVar[str] = "learned_positions"


@dataclass(frozen=True)
class SinusoidalPositions:
    """Sines and cosines for each of `length` places."""

    length: int
    width: int
    kind: ClassVar[str] = "sinusoidal_positions"


@dataclass(frozen=True)
class Segments:
    """A learned vector for each of `types` parts of an input, each ended by the token `separator`."""

    types: int
    width: int
    separator: int
    std: float
    kind: ClassVar[str] = "segments"


@dataclass(frozen=True)
class Memory:
    """What the encoder made of the source, `length` tokens of `width` features, in place of the input."""

    length: int
    width: int
    kind: ClassVar[str] = "memory"


@dataclass(frozen=True)
class TiedLinear:
    """Scores of tokens by their embedding."""

    tokens: int
    kind: ClassVar[str] = "tied_linear"


@dataclass(frozen=True)
class FirstToken:
    """The features of the first token alone."""

    kind: ClassVar[str] = "first_token"


SequenceLayer = (
    Embedding | LearnedPositions | SinusoidalPositions | Segments | Memory | TiedLinear | FirstToken
)


@dataclass(frozen=True)
class Attend:
    """What ends the ways `query`, `key` and `value` of a block: multi-head attention.

    Attributes:
        heads: number of heads.
        causal: no token looks at a later one.
        of_memory: key and value are of the encoder's memory.
    """

    heads: int
    causal: bool = False
    of_memory: bool = False


def embedding(layer: Embedding, shape: Shape) -> Blueprint:
    """`(T,)` -> `(T, width)`."""
    return Blueprint(
        make=partial(
            modules.Embedding, layer.tokens, layer.width, std=layer.std, scale=layer.scale
        ),
        text=f"Embedding({layer.tokens} -> {layer.width})",
        output_shape=(*shape, layer.width),
        parameters=layer.tokens * layer.width,
    )


def learned_positions(layer: LearnedPositions, shape: Shape) -> Blueprint:
    """`(T,)` -> `(T, width)`."""
    return Blueprint(
        make=partial(modules.LearnedPositions, layer.length, layer.width, std=layer.std),
        text=f"LearnedPositions({layer.length} x {layer.width})",
        output_shape=(*shape, layer.width),
        parameters=layer.length * layer.width,
    )


def sinusoidal_positions(layer: SinusoidalPositions, shape: Shape) -> Blueprint:
    """`(T,)` -> `(T, width)`."""
    return Blueprint(
        make=partial(modules.SinusoidalPositions, layer.length, layer.width),
        text=f"SinusoidalPositions({layer.width})",
        output_shape=(*shape, layer.width),
    )


def segments(layer: Segments, shape: Shape) -> Blueprint:
    """`(T,)` -> `(T, width)`."""
    return Blueprint(
        make=partial(
            modules.Segments, layer.types, layer.width, separator=layer.separator, std=layer.std
        ),
        text=f"Segments({layer.types} x {layer.width})",
        output_shape=(*shape, layer.width),
        parameters=layer.types * layer.width,
    )


def memory(layer: Memory, shape: Shape) -> Blueprint:
    """Any shape -> `(length, width)`."""
    return Blueprint(make=FromMemory, text="Memory", output_shape=(layer.length, layer.width))


def tied_linear(layer: TiedLinear, shape: Shape) -> Blueprint:
    """`(T, features)` -> `(T, tokens)`; the weights are counted where they are embedded with."""
    length, features = shape
    return Blueprint(
        make=partial(modules.TiedLinear, layer.tokens),
        text=f"TiedLinear({features} -> {layer.tokens})",
        output_shape=(length, layer.tokens),
        parameters=layer.tokens,
        flops=2 * length * features * layer.tokens,
    )


def first_token(layer: FirstToken, shape: Shape) -> Blueprint:
    """`(T, features)` -> `(features,)`."""
    return Blueprint(make=modules.FirstToken, text="FirstToken", output_shape=shape[1:])


def attend(ending: Attend, ways: Sequence[Shape], make: Callable[[], nn.Module]) -> Blueprint:
    """Query, key and value, `(T, width)` and twice `(S, width)` -> `(T, width)`.

    Its FLOPs are those of two products for every pair of tokens, whether or not one is hidden.
    """
    (length, width), (others, _), (_, values) = ways[:3]
    return Blueprint(
        make=make,
        text=f"Attention({ending.heads} heads{', causal' if ending.causal else ''})",
        output_shape=(length, values),
        flops=2 * length * others * (width + values),
    )
