"""Layers as modules, and the arithmetic of what a layer makes of its input.

A layer is a pure function and a thin module around it. `blueprints` is where a layer of the spec
becomes a module: models never build one themselves, so a new kind is added in one place.
"""

from dropnorm_service.training.layers.activation import ACTIVATIONS, nonlinearity
from dropnorm_service.training.layers.attention import Attention, attention
from dropnorm_service.training.layers.blueprints import (
    BLUEPRINTS,
    Attend,
    Blueprint,
    DoesNotFit,
    DropsBranch,
    InnerLayer,
    Reshape,
    Shape,
    Upsampling,
    attend,
    describe,
    meeting_shape,
    shortcut,
)
from dropnorm_service.training.layers.branches import Branches, Meeting, Side
from dropnorm_service.training.layers.context import Context, Contextual, RecurrentState, pass_on
from dropnorm_service.training.layers.dropout import Dropout, StochasticDepth, dropout
from dropnorm_service.training.layers.nesting import Series, nest
from dropnorm_service.training.layers.pooling import GlobalAveragePool

__all__ = [
    "ACTIVATIONS",
    "BLUEPRINTS",
    "Attend",
    "Attention",
    "Blueprint",
    "Branches",
    "Context",
    "Contextual",
    "DoesNotFit",
    "Dropout",
    "DropsBranch",
    "GlobalAveragePool",
    "InnerLayer",
    "Meeting",
    "RecurrentState",
    "Reshape",
    "Series",
    "Shape",
    "Side",
    "StochasticDepth",
    "Upsampling",
    "attend",
    "attention",
    "describe",
    "dropout",
    "meeting_shape",
    "nest",
    "nonlinearity",
    "pass_on",
    "shortcut",
]
