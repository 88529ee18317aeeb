"""Training samples changed at random, a batch at a time, on its device.

Everything is drawn from torch's global generators, which a checkpoint holds, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dropnorm.spec import TrainingSpec
from dropnorm_service.training.augmentation.geometry import Crops, Displacement
from dropnorm_service.training.augmentation.mixing import Mixing
from dropnorm_service.training.data import SplitData

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From inputs `[batch, *input_shape]` and targets to changed ones, new tensors; classes may become their shares,
float32 `[batch, classes]`."""


def augmentation_of(spec: TrainingSpec, data: SplitData) -> Augment | None:
    """What a spec, which fits its data, does to a training batch; None: nothing."""
    settings = spec.data.augmentation
    if settings is None:
        return None
    images: list[Callable[[Tensor], Tensor]] = []
    if settings.horizontal_flip or settings.vertical_flip or settings.shift:
        assert data.inputs is not None  # tokens are no images
        black = data.inputs(torch.zeros(1, *data.input_shape, device=data.device))
        images.append(Displacement(settings, black))
    if settings.crop:
        images.append(Crops(settings.crop))
    mixing = None
    if settings.mixup_alpha or settings.cutmix_alpha:
        classes = data.outputs if data.summary.task == "classification" else None
        mixing = Mixing(settings.mixup_alpha, settings.cutmix_alpha, classes, data.device)
    noise = settings.noise_std

    def augment(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        for change in images:
            x = change(x)
        if mixing is not None:
            x, y = mixing(x, y)
        if noise is not None:
            x = torch.add(x, torch.randn_like(x), alpha=noise)
        return x, y

    return augment


__all__ = ["Augment", "augmentation_of"]
