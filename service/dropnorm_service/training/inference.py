"""A network in eval mode over whole splits, in batches as large as is sensible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn

from dropnorm_service.training.batching import Batching
from dropnorm_service.training.data import Split
from dropnorm_service.training.design import Design

_LARGEST_BATCH = 2048
_LARGEST_LAYER = 1 << 22
"""Values that the widest layer may hold for a batch: 16 MiB in float32. More leaves a CPU's cache and is slower."""


def inference_batch_size(paper: Design) -> int:
    """Samples per batch without a backward pass: many, but so few that the widest layer stays small.

    A function of the network alone, so a resumed training measures with the same batches.
    """
    inputs = (each.shape for each in paper.layout.inputs)
    shapes = (*inputs, *(layer.blueprint.output_shape for layer in paper.walk()))
    return max(1, min(_LARGEST_BATCH, _LARGEST_LAYER // max(map(prod, shapes))))


class Inference:
    """Runs a network, which it leaves in eval mode.

    Args:
        network: takes standardised inputs on its own device.
        batch_size: samples per batch.
        autocast: context of the forward pass.
        between_batches: called after each batch; what it raises ends the run.
        between_steps: the same for each step of another network that is trained to measure by; None: the same one.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        batch_size: int,
        autocast: torch.autocast,
        between_batches: Callable[[], None],
        between_steps: Callable[[], None] | None = None,
    ) -> None:
        self.network = network
        self._batch_size = batch_size
        self._autocast = autocast
        self.between_batches = between_batches
        self.between_steps = between_steps or between_batches

    @torch.inference_mode()
    def outputs(self, part: Split, width: int) -> Tensor:
        """What the network says of a split: float32 `[samples, width]`, on the device."""
        self.network.eval()
        result = torch.empty(len(part), width, device=part.x.device)
        for batch in self.slices(part):
            with self._autocast:
                result[batch] = self.network(part.x[batch])
            self.between_batches()
        return result

    @torch.inference_mode()
    def total(self, part: Split, measure: Callable[[nn.Module, Split], Tensor]) -> Tensor:
        """The sum over a split's batches of what `measure` makes of the network and a batch, on the device."""
        self.network.eval()
        totals = []
        for batch in self.slices(part):
            with self._autocast:
                totals.append(measure(self.network, Split(part.x[batch], part.y[batch])))
            self.between_batches()
        return torch.stack(totals).sum(dim=0)

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        """The network in eval mode, to be run in the arithmetic of the training and without gradients."""
        self.network.eval()
        with torch.inference_mode(), self._autocast:
            yield self.network

    def slices(self, part: Split) -> tuple[slice, ...]:
        """Where each batch of a split lies."""
        return Batching.of(len(part), self._batch_size).slices
