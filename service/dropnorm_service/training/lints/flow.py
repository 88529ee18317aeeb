"""What flows into a batch norm: dropout and biases, followed through branches and over weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dropnorm.spec import layers as spec
from dropnorm_service.training.design import Design, DesignedLayer

_Fields = frozenset[str]
_NOTHING: _Fields = frozenset()


@dataclass
class DropoutBeforeNorm:
    """Dropout that reaches a batch norm with running statistics, by the fields that asked for it.

    Attributes:
        direct: no weights in between.
        upstream: with weights in between, and not direct anywhere.
    """

    direct: list[str] = field(default_factory=list)
    upstream: list[str] = field(default_factory=list)


def dropout_before_norm(paper: Design) -> DropoutBeforeNorm:
    """Every dropout that some path takes into a batch norm; each field once, in order."""
    found = DropoutBeforeNorm()
    _follow_dropout(paper.layers, _NOTHING, _NOTHING, found)
    found.direct = list(dict.fromkeys(found.direct))
    found.upstream = [name for name in dict.fromkeys(found.upstream) if name not in found.direct]
    return found


def _follow_dropout(
    layers: Sequence[DesignedLayer], direct: _Fields, upstream: _Fields, found: DropoutBeforeNorm
) -> tuple[_Fields, _Fields]:
    """What leaves the layers when `direct` and `upstream` dropout enters them."""
    for layer in layers:
        kind = layer.element.layer
        if isinstance(kind, spec.Dropout):
            if kind.rate:
                direct |= {layer.element.field}
        elif isinstance(kind, spec.BatchNorm):
            if kind.track_running_stats:
                found.direct += sorted(direct)
                found.upstream += sorted(upstream)
        elif isinstance(kind, spec.Linear | spec.Conv):
            direct, upstream = _NOTHING, upstream | direct
        elif layer.branch:
            beside = (direct, upstream) if layer.shortcut is None else (_NOTHING, upstream | direct)
            through = _follow_dropout(layer.branch, direct, upstream, found)
            direct, upstream = through[0] | beside[0], through[1] | beside[1]
    return direct, upstream


def biases_before_norm(paper: Design) -> list[DesignedLayer]:
    """The linear and convolutional layers whose bias the next batch norm subtracts exactly."""
    found: list[DesignedLayer] = []
    _follow_biases(paper.layers, found)
    return found


def _follow_biases(
    layers: Sequence[DesignedLayer], found: list[DesignedLayer]
) -> list[DesignedLayer]:
    """The layers whose bias leaves `layers` as a constant per channel."""
    constant: list[DesignedLayer] = []
    for layer in layers:
        kind = layer.element.layer
        if isinstance(kind, spec.Linear | spec.Conv):
            constant = [layer] if kind.bias else []
        elif isinstance(kind, spec.BatchNorm):
            found += constant
            constant = []
        elif layer.branch:
            # What enters the block goes past the branch too, so a norm in there does not take it away.
            constant = _follow_biases(layer.branch, found)
        elif not _keeps_constants(kind):
            constant = []
    return constant


def _keeps_constants(layer: spec.Layer) -> bool:
    """Whether a constant added to each channel is still one behind the layer."""
    if isinstance(layer, spec.Pool):
        return layer.mode != "average" or layer.padding == 0
    return isinstance(layer, spec.Flatten)
