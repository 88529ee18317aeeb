"""What a training took."""

from __future__ import annotations

import torch

from dropnorm.results import TrainingCost
from dropnorm_service.training.design import Design
from dropnorm_service.training.device import device_name, peak_memory_bytes
from dropnorm_service.training.state import TrainingState


def training_cost(state: TrainingState, paper: Design, samples: int) -> TrainingCost:
    """The cost of a training that is done and has seen so many samples, one as often as it was seen."""
    device = state.losses.device
    seconds = sum(metrics.seconds for metrics in state.history)
    return TrainingCost(
        parameters=paper.parameters,
        forward_flops=paper.forward_flops,
        seconds=state.watch.seconds,
        training_seconds=seconds,
        seconds_to_best=state.selection.seconds,
        samples_per_second=samples / seconds,
        peak_memory_bytes=peak_memory_bytes(device),
        device=device_name(device),
        threads=torch.get_num_threads(),
    )
