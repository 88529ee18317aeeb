"""The scale of the data's values between their least and their greatest."""

from __future__ import annotations

import torch
from torch import Tensor

from dropnorm_service.training.data.split_data import SplitData
from dropnorm_service.training.data.standardization import Standardization


class ValueRange:
    """Standardised values to and from 0 to 1, by the least and the greatest raw value of the training split.

    What lies outside, in other splits, becomes 0 or 1. A data set of a single value has the width 1.
    """

    def __init__(self, data: SplitData) -> None:
        assert data.inputs is not None  # tokens have no scale
        self._inputs: Standardization = data.inputs
        raw = data.inputs.undo(data.train.x)
        self._low, high = torch.aminmax(raw)
        width = high - self._low
        self._width = torch.where(width > 0.0, width, 1.0)

    def to_unit(self, x: Tensor) -> Tensor:
        """`[batch, *input_shape]`, standardised -> 0 to 1."""
        return ((self._inputs.undo(x) - self._low) / self._width).clamp(0.0, 1.0)

    def from_unit(self, values: Tensor) -> Tensor:
        """0 to 1 -> standardised values, as a network takes them."""
        return self._inputs(values * self._width + self._low)

    def scale(self, least: float, greatest: float) -> Standardization:
        """What undoes a scale on which the data runs from `least` to `greatest`, on the CPU."""
        std = (self._width / (greatest - least)).cpu().reshape(1)
        return Standardization((self._low.cpu() - least * std).reshape(1), std)
