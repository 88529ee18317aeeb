"""What flows into a batch norm: dropout and biases, followed through branches and over weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dropnorm.spec import layers as spec
from dropnorm_service.training.design import Design, DesignedLayer
from dropnorm_service.training.elements import Element, Meet
from dropnorm_service.training.layers import Attend, DropsBranch, InnerLayer, Upsampling
from dropnorm_service.training.layers.blueprints.recurrent import Recurrent

_Dropouts = frozenset[Element]
_NOTHING: _Dropouts = frozenset()


def drops(element: Element) -> bool:
    """Whether it drops units, weights or branches in training."""
    if isinstance(element.layer, spec.Linear):
        return bool(element.layer.dropconnect_rate)
    return (
        isinstance(element.layer, spec.Dropout | DropsBranch | Recurrent)
        and element.layer.rate > 0.0
    )


def chains(paper: Design) -> Iterator[tuple[DesignedLayer, ...]]:
    """Layers that follow one another: those of each part, and of each way of a block."""
    yield from paper.parts
    for layer in paper.walk():
        yield from layer.ways


@dataclass
class DropoutBeforeNorm:
    """Dropout that reaches a batch norm with running statistics.

    Attributes:
        direct: each such dropout with a norm that it reaches, no weights in between.
        upstream: likewise over weights.
    """

    direct: list[tuple[Element, Element]] = field(default_factory=list)
    upstream: list[tuple[Element, Element]] = field(default_factory=list)


def dropout_before_norm(paper: Design) -> DropoutBeforeNorm:
    """Every dropout that some path takes into a batch norm, in order."""
    found = DropoutBeforeNorm()
    for part in paper.parts:
        _follow_dropout(part, _NOTHING, _NOTHING, found)
    return found


def _follow_dropout(
    layers: Sequence[DesignedLayer],
    direct: _Dropouts,
    upstream: _Dropouts,
    found: DropoutBeforeNorm,
) -> tuple[_Dropouts, _Dropouts]:
    """What leaves the layers when `direct` and `upstream` dropout enters them."""
    for layer in layers:
        element = layer.element
        kind = element.layer
        if isinstance(kind, spec.Dropout):
            if kind.rate:
                direct |= {element}
        elif isinstance(kind, spec.BatchNorm):
            if kind.track_running_stats:
                found.direct += [(dropout, element) for dropout in _in_order(direct)]
                found.upstream += [(dropout, element) for dropout in _in_order(upstream)]
        elif isinstance(kind, spec.Linear | spec.Conv | Upsampling | Recurrent):
            direct, upstream = _NOTHING, upstream | direct
            if isinstance(kind, Recurrent) and kind.rate:
                direct = frozenset({element})  # what it drops changes the variance of what it gives
            if isinstance(kind, spec.Linear) and kind.dropconnect_rate:
                direct = frozenset(
                    {element}
                )  # dropped weights add to the variance of what they give
        elif layer.ways:
            ends = [_follow_dropout(way, direct, upstream, found) for way in layer.ways]
            if isinstance(kind, Meet) and kind.meeting == "side":
                continue
            direct = _NOTHING.union(*(end[0] for end in ends))
            upstream = _NOTHING.union(*(end[1] for end in ends))
    return direct, upstream


def _in_order(dropouts: _Dropouts) -> list[Element]:
    return sorted(dropouts, key=lambda element: element.dropped_by)


def in_one_place(dropout: Element, norm: Element) -> bool:
    """Whether the regularization put both around one activation, or both at the input or the output."""
    placed = all(each.field.startswith("regularization.") for each in (dropout, norm))
    return placed and dropout.name.rpartition(".")[0] == norm.name.rpartition(".")[0]


def biases_before_norm(paper: Design) -> list[DesignedLayer]:
    """The linear and convolutional layers whose bias the next batch norm subtracts exactly."""
    found: list[DesignedLayer] = []
    for part in paper.parts:
        _follow_biases(part, found)
    return found


def _follow_biases(
    layers: Sequence[DesignedLayer], found: list[DesignedLayer]
) -> list[DesignedLayer]:
    """The layers whose bias leaves `layers` as a constant per channel."""
    constant: list[DesignedLayer] = []
    for layer in layers:
        kind = layer.element.layer
        if isinstance(kind, spec.Linear | spec.Conv | Upsampling):
            constant = [layer] if kind.bias else []
        elif isinstance(kind, spec.BatchNorm):
            found += constant
            constant = []
        elif isinstance(kind, Meet):
            # What enters the block goes several ways, so a norm on one of them does not take it away.
            ends = [end for way in layer.ways for end in _follow_biases(way, found)]
            constant = [] if kind.meeting in ("gate", "side") else ends
        elif not _keeps_constants(kind):
            constant = []
    return constant


def weights_before_norm(paper: Design) -> list[Element]:
    """The linear and convolutional layers that go straight into a batch norm, which takes their scale away."""
    return [
        layer.element
        for chain in chains(paper)
        for layer, following in pairwise(chain)
        if isinstance(layer.element.layer, spec.Linear | spec.Conv)
        and isinstance(following.element.layer, spec.BatchNorm)
    ]


def _keeps_constants(layer: spec.Layer | InnerLayer | Attend) -> bool:
    """Whether a constant added to each channel is still one behind the layer."""
    if isinstance(layer, spec.Pool):
        return layer.mode != "average" or layer.padding == 0
    return isinstance(layer, spec.Flatten)
