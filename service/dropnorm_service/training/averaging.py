"""Averages of a network's weights over its training, in a network of their own."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from dropnorm.spec import EMA, SWA, Optimization
from dropnorm_service.training.network import Network


class WeightAverage(ABC):
    """A second network, with an average of the first one's weights.

    Args:
        model: the network in training, on its device.

    Attributes:
        network: the averages, to be evaluated; before anything is averaged, the model's own weights.
        count: how often weights were taken in.
    """

    def __init__(self, model: Network) -> None:
        self.network = copy.deepcopy(model)
        self.count = 0
        self._weights = _unzipped(zip(self.network.parameters(), model.parameters(), strict=True))
        pairs = list(zip(self.network.buffers(), model.buffers(), strict=True))
        self._statistics = _unzipped(pair for pair in pairs if pair[0].is_floating_point())
        self._counters = _unzipped(pair for pair in pairs if not pair[0].is_floating_point())

    @abstractmethod
    def after_step(self) -> None:
        """The model has made a step."""

    @abstractmethod
    def after_epoch(self, epoch: int) -> bool:
        """The model has done an epoch; asked again, after a stop, it comes to the same.

        Returns:
            Whether running statistics have to be computed anew.
        """


class ExponentialAverage(WeightAverage):
    """`average <- d * average + (1 - d) * weights` at step t, with `d = min(decay, (1 + t) / (10 + t))`."""

    def __init__(self, model: Network, decay: float) -> None:
        super().__init__(model)
        self._decay = decay

    @torch.no_grad()
    def after_step(self) -> None:
        self.count += 1
        share = 1.0 - min(self._decay, (1 + self.count) / (10 + self.count))
        for averages, values in (self._weights, self._statistics):
            if averages:
                torch._foreach_lerp_(averages, values, share)
        _copy(*self._counters)

    def after_epoch(self, epoch: int) -> bool:
        return False


class StochasticAverage(WeightAverage):
    """The mean of the weights at the ends of the epochs from `start` on (Izmailov et al. 2018)."""

    def __init__(self, model: Network, start: int) -> None:
        super().__init__(model)
        self._start = start

    def after_step(self) -> None:
        pass

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> bool:
        number = epoch - self._start + 1
        if number < 1:
            _copy(*self._weights)
        elif self.count < number:
            self.count = number
            torch._foreach_lerp_(*self._weights, 1.0 / number)
        _copy(*self._statistics)
        _copy(*self._counters)
        return number >= 1


def average_of(model: Network, optimization: Optimization) -> WeightAverage | None:
    """The average that a spec asks for."""
    match optimization.averaging:
        case EMA(decay=decay):
            return ExponentialAverage(model, decay)
        case SWA() as settings:
            return StochasticAverage(model, first_averaged(settings, optimization.epochs))
        case None:
            return None


def first_averaged(settings: SWA, epochs: int) -> int:
    """The first epoch, from 1, whose weights count: that of the spec, or the first of the last quarter."""
    return settings.start_epoch or 3 * epochs // 4 + 1


def _unzipped(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    found = list(pairs)
    return [pair[0] for pair in found], [pair[1] for pair in found]


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)
