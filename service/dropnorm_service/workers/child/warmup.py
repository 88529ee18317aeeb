"""What the first training in a process pays for, paid before there is a job."""

from __future__ import annotations

import torch

from dropnorm.spec import (
    MLP,
    BatchNorm,
    Compute,
    Data,
    Dropout,
    Optimization,
    Regularization,
    TrainingSpec,
)
from dropnorm_service.training import choose_device, fit
from dropnorm_service.training.data import CATALOG, Dataset, split

_SPEC = TrainingSpec(
    architecture=MLP(hidden=(128, 64)),
    regularization=Regularization(dropout=Dropout(rate=0.5), batch_norm=BatchNorm()),
    optimization=Optimization(epochs=1, batch_size=512),
    data=Data(dataset="digits"),
    compute=Compute(),
)


def warm_up() -> None:
    """Train on noise for a moment: torch starts its threads, CUDA its context, libraries their tables."""
    info = CATALOG["digits"]
    x = torch.rand(info.samples, *info.input_shape)
    y = torch.arange(info.samples) % info.outputs
    dataset = Dataset(info, "", {"x": x, "y": y})
    fit(_SPEC, split(_SPEC, dataset, choose_device(_SPEC.compute)))
