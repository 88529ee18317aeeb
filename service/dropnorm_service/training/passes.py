"""What several passes of a network say together: mean, variance and entropy."""

from __future__ import annotations

import torch
from torch import Tensor


class PassMoments:
    """Mean and variance of tensors of one shape that come one after the other (Welford 1962)."""

    def __init__(self) -> None:
        self._count = 0
        self.mean = torch.zeros(())
        self._squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Take note of another tensor; sums are kept in its type."""
        self._count += 1
        before = values - self.mean
        self.mean = self.mean + before / self._count
        self._squares = self._squares + before * (values - self.mean)

    def extend(self, values: Tensor) -> None:
        """Likewise of several at once, `[tensors, ...]` (Chan et al. 1979)."""
        count, mean = len(values), values.mean(dim=0)
        shift, total = mean - self.mean, self._count + count
        squares = (values - mean).square().sum(dim=0)
        self._squares = self._squares + squares + shift.square() * (self._count * count / total)
        self.mean = self.mean + shift * (count / total)
        self._count = total

    def variance(self, *, correction: int) -> Tensor:
        """The sum of squares over the number of tensors less the correction."""
        return self._squares / (self._count - correction)


def entropy(probabilities: Tensor) -> Tensor:
    """`-sum p log p` in nats over the second dimension: `[inputs, classes]` -> `[inputs]`."""
    parts: Tensor = torch.special.entr(probabilities)
    return parts.sum(dim=1)
