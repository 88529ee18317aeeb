"""What a layer of the spec makes of its input, what that costs, and how its module is built.

Everything here is integer arithmetic, so a network of any size is judged before memory is taken for
it. FLOPs are those of one sample's forward pass. A multiply-add counts as two; only matrix products
and convolutions count, and biases do not, as in `torch.utils.flop_counter`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dropnorm_service.training.layers.blueprints import (
    dropout,
    norms,
    plain,
    recurrent,
    sequences,
    upsampling,
    weights,
)
from dropnorm_service.training.layers.blueprints.dropout import DropsBranch
from dropnorm_service.training.layers.blueprints.paper import Blueprint, DoesNotFit, Shape, describe
from dropnorm_service.training.layers.blueprints.plain import meeting_shape
from dropnorm_service.training.layers.blueprints.recurrent import RecurrentLayer
from dropnorm_service.training.layers.blueprints.sequences import Attend, SequenceLayer, attend
from dropnorm_service.training.layers.blueprints.upsampling import Reshape, Upsampling
from dropnorm_service.training.layers.blueprints.weights import shortcut

BLUEPRINTS: Mapping[str, Callable[[Any, Shape], Blueprint]] = {
    "linear": weights.linear,
    "conv": weights.conv,
    "pool": plain.pool,
    "flatten": plain.flatten,
    "activation": plain.activation,
    "dropout": dropout.dropout,
    "stochastic_depth": dropout.stochastic_depth,
    "batch_norm": norms.batch_norm,
    "layer_norm": norms.layer_norm,
    "group_norm": norms.group_norm,
    "instance_norm": norms.instance_norm,
    "rms_norm": norms.rms_norm,
    "reshape": upsampling.reshape,
    "upsampling": upsampling.upsampling,
    "embedding": sequences.embedding,
    "learned_positions": sequences.learned_positions,
    "sinusoidal_positions": sequences.sinusoidal_positions,
    "segments": sequences.segments,
    "memory": sequences.memory,
    "tied_linear": sequences.tied_linear,
    "first_token": sequences.first_token,
    "recurrent": recurrent.recurrent,
    "last_token": recurrent.last_token,
    "summary": recurrent.summary,
    "maxout": recurrent.maxout,
}
"""Kind of layer, of the spec or placed by a family -> its blueprint. Blocks are no layers but places for them."""

InnerLayer = DropsBranch | Reshape | Upsampling | SequenceLayer | RecurrentLayer
"""Layers that no spec lists."""

__all__ = [
    "BLUEPRINTS",
    "Attend",
    "Blueprint",
    "DoesNotFit",
    "DropsBranch",
    "InnerLayer",
    "Reshape",
    "Shape",
    "Upsampling",
    "attend",
    "describe",
    "meeting_shape",
    "shortcut",
]
