"""The scale of inputs and targets, measured on the training split alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

_BYTE_VALUES = 256


@dataclass(frozen=True)
class Standardization:
    """`(value - mean) / std`, broadcast over the values of one sample.

    Attributes:
        mean: float32, as many dimensions as a sample: `[features]` or `[channels, 1, 1]`.
        std: likewise; never 0.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Raw values, uint8 or float32, `[samples, ...]`, as float32 on the usual scale."""
        scaled = values.to(
            torch.float32, copy=True
        )  # once: fresh memory costs more than arithmetic
        return scaled.sub_(self.mean).div_(self.std)

    def undo(self, values: torch.Tensor) -> torch.Tensor:
        """Values on the usual scale in their own unit again."""
        return values * self.std + self.mean

    def to(self, device: torch.device) -> Standardization:
        """The same on another device."""
        return Standardization(self.mean.to(device), self.std.to(device))


def measure(
    values: torch.Tensor, mode: Literal["none", "per_feature", "global"]
) -> Standardization:
    """The standardization of raw values, uint8 or float32, `[samples, ...]`, on the CPU.

    Figures are computed in double precision, those of bytes exactly from their histogram, so they
    are the same on every device. A feature that never changes keeps its scale: its deviation counts
    as 1, or as 255 in bytes.

    Args:
        values: the training split.
        mode: `per_feature`: a mean and deviation for each feature, of an image for each channel;
            `global`: one for all; `none`: values stay as they are, bytes become 0 to 1.
    """
    axes = 1 if values.ndim > 2 else values.ndim - 1  # an image is measured by channels
    shape = (*values.shape[1 : 1 + axes], *(1 for _ in values.shape[1 + axes :]))
    is_bytes = values.dtype == torch.uint8
    unit = float(_BYTE_VALUES - 1) if is_bytes else 1.0
    if mode == "none":
        ones = torch.ones((1,) * (values.ndim - 1))
        return Standardization(ones * 0.0, ones * unit)
    if mode == "global":
        values, shape = values.reshape(len(values), 1, -1), (1,) * (values.ndim - 1)
    elif values.ndim == 2:
        values = values.unsqueeze(2)
    mean, deviation = _bytes(values) if is_bytes else _floats(values)
    # Rounding can leave a constant feature a deviation of a few units in the last place.
    constant = deviation <= 1e-12 * mean.abs()
    deviation = torch.where(constant | (deviation == 0.0), unit, deviation)
    return Standardization(mean.float().view(shape), deviation.float().view(shape))


def _floats(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    per_feature = values.to(torch.float64).movedim(1, 0).flatten(1)
    return per_feature.mean(dim=1), per_feature.std(dim=1, correction=0)


def _bytes(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    levels = torch.arange(_BYTE_VALUES, dtype=torch.float64)
    figures = []
    for feature in range(values.shape[1]):
        counts = torch.bincount(values[:, feature].reshape(-1), minlength=_BYTE_VALUES)
        shares = counts.to(torch.float64) / counts.sum()
        mean = (shares * levels).sum()
        figures.append((mean, (shares * (levels - mean) ** 2).sum().sqrt()))
    means, deviations = zip(*figures, strict=True)
    return torch.stack(means), torch.stack(deviations)
