"""Networks between training and evaluation: some of their layers as in the one, the others as in the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dropnorm_service.training.dropout_rates import Drops
from dropnorm_service.training.recalibration import tracking_norms


@contextmanager
def dropping(network: nn.Module) -> Iterator[None]:
    """Inside the block a network in eval mode drops as in training; all else stays as it is."""
    drops = [module for module in network.modules() if isinstance(module, Drops)]
    for module in drops:
        module.training = True
    try:
        yield
    finally:
        for module in drops:
            module.training = False


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block torch's global generators are seeded; afterwards they are as they were before.

    A checkpoint that is written between two such blocks therefore holds a training's own random state.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Inside the block running statistics may move; afterwards they are what they were before, bit for bit."""
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])


@contextmanager
def adapting(network: nn.Module) -> Iterator[None]:
    """Inside the block the batch norms of a network in eval mode normalise by the batches that they see.

    What that does to their running statistics is undone afterwards (prediction-time batch norm, Nado et al. 2020).
    """
    norms = [norm for _, norm in tracking_norms(network)]
    with buffers_kept(network):
        for norm in norms:
            norm.training = True
        try:
            yield
        finally:
            for norm in norms:
                norm.training = False
