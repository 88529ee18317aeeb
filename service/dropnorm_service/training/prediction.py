"""What a model says of a whole split, in batches as large as is sensible."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor, nn

from dropnorm_service.training.batching import Batching
from dropnorm_service.training.design import Design

_LARGEST_BATCH = 2048
_LARGEST_LAYER = 1 << 22
"""Values that the widest layer may hold for a batch: 16 MiB in float32. More leaves a CPU's cache and is slower."""


def prediction_batch_size(paper: Design) -> int:
    """Samples per batch without a backward pass: many, but so few that the widest layer stays small.

    A function of the network alone, so a resumed training measures with the same batches.
    """
    shapes = (paper.input_shape, *(layer.blueprint.output_shape for layer in paper.walk()))
    return max(1, min(_LARGEST_BATCH, _LARGEST_LAYER // max(map(prod, shapes))))


@torch.inference_mode()
def predict(
    model: nn.Module,
    x: Tensor,
    outputs: int,
    *,
    batch_size: int,
    autocast: torch.autocast,
    between_batches: Callable[[], None],
) -> Tensor:
    """Outputs of a model in eval mode over `x`, `[samples, ...]`: float32 `[samples, outputs]`.

    Args:
        model: the network; it is left in eval mode.
        x: standardised inputs on the model's device.
        outputs: width of the network's output.
        batch_size: samples per batch.
        autocast: context of the forward pass.
        between_batches: called after each batch; what it raises ends the prediction.
    """
    model.eval()
    result = torch.empty(len(x), outputs, device=x.device)
    for part in Batching.of(len(x), batch_size).slices:
        with autocast:
            result[part] = model(x[part])
        between_batches()
    return result
