"""Dropout of units and of branches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from dropnorm.spec.dropout import DropoutSettings
from dropnorm_service.training.layers.blueprints.paper import Blueprint, Shape
from dropnorm_service.training.layers.dropout import Dropout, StochasticDepth


@dataclass(frozen=True)
class DropsBranch:
    """The end of a residual branch that is dropped for a share of the samples; no layer that a spec lists."""

    rate: float
    kind: ClassVar[str] = "stochastic_depth"


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
