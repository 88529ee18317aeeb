"""Batch norm folded into the layer before it, and dropout taken out: what a model that only predicts can do without.

With running statistics batch norm is affine for each channel, `y = scale * z + shift` with
`scale = gamma / sqrt(variance + eps)` and `shift = beta - scale * mean`. Behind `z = W x + b` that is one layer
of weights `scale * W` and bias `scale * b + shift` (Jacob et al. 2018, section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from dropnorm_service.training.layers.dropout import DropConnect, Dropout, StochasticDepth

_Weighted = nn.Linear | nn.Conv2d | nn.ConvTranspose2d


@dataclass(frozen=True)
class Folding:
    """What `fold` did.

    Attributes:
        folded_norms: batch norms that are part of the layer before them now.
        kept_norms: batch norms that stay: another kind of layer stands before them, or they keep no statistics.
        removed_dropouts: layers that let everything through in evaluation, and are gone.
    """

    folded_norms: int
    kept_norms: int
    removed_dropouts: int


def fold(network: nn.Module) -> Folding:
    """Take out dropout, then fold each batch norm that directly follows a linear layer or a convolution.

    The network then predicts what it did before in eval mode, up to rounding; it is not to be trained. What was
    folded or removed is an `nn.Identity` in its place. Weights are worked out in double precision. On the
    meta device the shapes change alike, so that a folded state can be loaded into a network built anew.
    """
    removed = _remove_dropout(network)
    folded = 0
    for first, second in _neighbours(network):
        if _foldable(first.module, second.module):
            _absorb(first.module, second.module)
            second.replace(nn.Identity())
            folded += 1
    return Folding(folded, count_norms(network), removed)


def count_norms(network: nn.Module) -> int:
    """Batch norms in a network."""
    return sum(isinstance(module, _BatchNorm) for module in network.modules())


@dataclass
class _Spot:
    """A module in its place."""

    parent: nn.Module
    name: str
    module: nn.Module

    def replace(self, module: nn.Module) -> None:
        self.parent.add_module(self.name, module)


def _remove_dropout(network: nn.Module) -> int:
    spots = [
        _Spot(parent, name, module)
        for parent in network.modules()
        for name, module in parent.named_children()
        if isinstance(module, Dropout | DropConnect | StochasticDepth)
    ]
    removed = 0
    for spot in spots:
        if isinstance(spot.module, DropConnect):
            spot.replace(_plain(spot.module))
        elif _lets_through(spot.module):
            spot.replace(nn.Identity())
        else:  # it scales in evaluation too
            continue
        removed += 1
    return removed


def _lets_through(module: nn.Module) -> bool:
    """Whether evaluation leaves a dropout's input as it is."""
    if not isinstance(module, Dropout) or module.rate == 0.0:
        return True
    return module.method in ("alpha", "gaussian") or module.rescaling == "inverted"


def _plain(layer: DropConnect) -> nn.Linear:
    """The linear layer that a dropping one is in evaluation; the parameters are the same."""
    with torch.device("meta"):
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain.train(layer.training)


def _neighbours(network: nn.Module) -> Iterator[tuple[_Spot, _Spot]]:
    """Pairs of which the first's output goes into the second and nowhere else, but for identities in between."""
    within: set[nn.Module] = set()
    for module in network.modules():  # a row comes before those that stand in it
        if isinstance(module, nn.Sequential) and module not in within:
            row = list(_row(module, within))
            yield from pairwise(spot for spot in row if not isinstance(spot.module, nn.Identity))


def _row(series: nn.Sequential, within: set[nn.Module]) -> Iterator[_Spot]:
    """The modules of a series in order, those of series in it included."""
    for name, module in series.named_children():
        if isinstance(module, nn.Sequential):
            within.add(module)
            yield from _row(module, within)
        else:
            yield _Spot(series, name, module)


def _foldable(layer: nn.Module, norm: nn.Module) -> bool:
    return (
        isinstance(layer, _Weighted)
        and isinstance(norm, _BatchNorm)
        and norm.running_mean is not None
        and not is_parametrized(layer)
    )


@torch.no_grad()
def _absorb(layer: nn.Module, norm: nn.Module) -> None:
    assert isinstance(layer, _Weighted)
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.double()
    shift = -scale * norm.running_mean.double()
    if norm.affine:
        shift = shift + norm.bias.double()
    bias = shift if layer.bias is None else shift + scale * layer.bias.double()
    weight = layer.weight
    layer.weight = nn.Parameter((weight.double() * _per_output(layer, scale)).to(weight.dtype))
    layer.bias = nn.Parameter(bias.to(weight.dtype))


def _per_output(layer: _Weighted, scale: Tensor) -> Tensor:
    """A factor per output channel, shaped so that it multiplies the layer's weights."""
    if isinstance(layer, nn.ConvTranspose2d):  # weights [inputs, outputs / groups, height, width]
        inputs = layer.in_channels // layer.groups
        return scale.view(layer.groups, -1).repeat_interleave(inputs, dim=0)[:, :, None, None]
    return scale.view(-1, *(1 for _ in layer.weight.shape[1:]))
