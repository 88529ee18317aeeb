"""The module that a whole network is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import nn


class Network(nn.Module):
    """A whole network.

    Its modules are named after their places: `hidden.0.linear`, `layers.3.conv`, `output.linear`.

    Attributes:
        fields: name of a module -> path of the spec's field that asked for it; empty: the data did.
        lr_factors: first part of a parameter's name -> factor on its learning rate, where that is not 1.
        output_layers: names of the modules whose output no other one with weights takes in.
        opponents: its parts, where each learns by a loss of its own; empty: all of it learns by one.
    """

    fields: dict[str, str]
    lr_factors: Mapping[str, float] = {}
    output_layers: Sequence[str] = ()
    opponents: Sequence[str] = ()


class FeedForward(nn.Sequential, Network):
    """Layers one after the other: `[batch, *input_shape]` -> `[batch, *output_shape]`."""

    def __init__(self, modules: nn.Sequential, fields: Mapping[str, str]) -> None:
        super().__init__(OrderedDict(modules.named_children()))
        self.fields = dict(fields)
