"""Where a network ends: the layers whose output no other layer with weights takes in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dropnorm.spec import layers as spec
from dropnorm_service.training.design import Design, DesignedLayer
from dropnorm_service.training.elements import Meet
from dropnorm_service.training.layers import Upsampling
from dropnorm_service.training.layers.blueprints.recurrent import Recurrent
from dropnorm_service.training.layers.blueprints.sequences import TiedLinear

WEIGHTED = (spec.Linear, spec.Conv, Upsampling, TiedLinear, Recurrent)


def output_layers(paper: Design) -> tuple[str, ...]:
    """Names of the layers that give a network's outputs, in order: the last with weights, whatever they are called.

    There is more than one where ways meet behind them, and in a network with auxiliary heads, which end with one each.
    """
    found, _ = _ends(paper.parts[-1])
    for layer in paper.walk():
        if _is_side(layer):
            for way in layer.ways:
                found |= _ends(way)[0]
    return tuple(layer.element.name for layer in paper.walk() if layer.element.name in found)


def _ends(layers: Sequence[DesignedLayer]) -> tuple[set[str], bool]:
    """The last layers with weights, and whether what enters may leave without meeting any."""
    found: set[str] = set()
    for layer in _backwards(layers):
        if isinstance(layer.element.layer, WEIGHTED):
            return found | {layer.element.name}, False
        if layer.ways:
            ends = [_ends(way) for way in layer.ways]
            found = found.union(*(names for names, _ in ends))
            if not any(passes for _, passes in ends):
                return found, False
    return found, True


def _backwards(layers: Sequence[DesignedLayer]) -> Iterator[DesignedLayer]:
    """From the end, without the auxiliary heads beside it."""
    return (layer for layer in reversed(layers) if not _is_side(layer))


def _is_side(layer: DesignedLayer) -> bool:
    kind = layer.element.layer
    return isinstance(kind, Meet) and kind.meeting == "side"
