"""Dropout rates over a training, as pure functions of the epoch.

`rate(epoch) = rate * factor(epoch)` for every rate of the spec's regularization, with epochs counted
from 1. Within an epoch rates stand still, so that a compiled network is compiled once for each of them.
Without state a resumed training cannot disagree with an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import expm1
from typing import Any, Protocol, runtime_checkable

from torch import nn

from dropnorm.spec import (
    CurriculumDropoutSchedule,
    Dropout,
    LinearDropoutSchedule,
    OffAfterDropoutSchedule,
    TrainingSpec,
)
from dropnorm_service.training.design import Design
from dropnorm_service.training.elements import Element
from dropnorm_service.training.network import Network

_PATH = "regularization.dropout."


@runtime_checkable
class Drops(Protocol):
    """A module that drops at a rate, which may change between steps."""

    rate: float


def linear(schedule: LinearDropoutSchedule, epochs: int, epoch: int) -> float:
    """`start` up to `from_epoch`, `end` from `to_epoch` on, and equal steps in between."""
    length = (schedule.to_epoch or epochs) - schedule.from_epoch
    share = min(max((epoch - schedule.from_epoch) / max(length, 1), 0.0), 1.0)
    return schedule.start_factor + (schedule.end_factor - schedule.start_factor) * share


def off_after(schedule: OffAfterDropoutSchedule, epochs: int, epoch: int) -> float:
    """1 for the schedule's epochs, then 0 (early dropout, Liu et al. 2023)."""
    return 1.0 if epoch <= schedule.epochs else 0.0


def curriculum(schedule: CurriculumDropoutSchedule, epochs: int, epoch: int) -> float:
    """`1 - exp(-gamma * t)` with t the epochs done before this one (Morerio et al. 2017, equation 4)."""
    return -expm1(-(schedule.gamma or 10.0 / epochs) * (epoch - 1))


FACTORS: Mapping[str, Callable[[Any, int, int], float]] = {
    "linear": linear,
    "off_after": off_after,
    "curriculum": curriculum,
}
"""Kind in the spec -> the factor in an epoch, of the schedule, the number of epochs and the epoch."""


def dropout_factor(dropout: Dropout, *, epoch: int, epochs: int) -> float:
    """The factor, 0 to 1, on every dropout rate in one epoch.

    Args:
        dropout: its settings.
        epoch: number of the epoch, from 1.
        epochs: epochs of the whole training.
    """
    if dropout.schedule is None:
        return 1.0
    return FACTORS[dropout.schedule.kind](dropout.schedule, epochs, epoch)


def is_scheduled(element: Element) -> bool:
    """Whether a schedule changes the rate of a layer: all that `regularization.dropout` drops by."""
    return element.dropped_by.startswith(_PATH)


def acting_rates(paper: Design) -> frozenset[str]:
    """Names of the rates of `regularization.dropout` that something in a network drops by."""
    return frozenset(
        layer.element.dropped_by.removeprefix(_PATH)
        for layer in paper.walk()
        if is_scheduled(layer.element)
    )


class DropoutRates:
    """The rates of a network, epoch by epoch; those of dropout layers in a list stay as they are.

    Args:
        network: as it was built, so that its rates are the spec's.
        paper: what it was built from.
        spec: says how rates change.
    """

    def __init__(self, network: Network, paper: Design, spec: TrainingSpec) -> None:
        self._dropout, self._epochs = spec.regularization.dropout, spec.optimization.epochs
        self._acting = acting_rates(paper)
        self._scheduled: list[tuple[Drops, float]] = []
        if self._dropout is not None and self._dropout.schedule is not None:
            for element in (layer.element for layer in paper.walk() if is_scheduled(layer.element)):
                module = network.get_submodule(element.name)
                assert isinstance(module, Drops)  # its rate is what the field is about
                self._scheduled.append((module, module.rate))

    def enter(self, epoch: int) -> None:
        """Put the rates of an epoch in force."""
        if self._dropout is None:
            return
        factor = dropout_factor(self._dropout, epoch=epoch, epochs=self._epochs)
        for module, rate in self._scheduled:
            module.rate = rate * factor

    def of(self, epoch: int) -> dict[str, float]:
        """What each rate of the spec that acts in this network is in an epoch, by its name there."""
        if self._dropout is None:
            return {}
        factor = dropout_factor(self._dropout, epoch=epoch, epochs=self._epochs)
        return {name: rate * factor for name, rate in self._dropout if name in self._acting}


def rates_of(network: nn.Module) -> dict[str, float]:
    """The rates in force by the names of their modules."""
    return {
        name: module.rate for name, module in network.named_modules() if isinstance(module, Drops)
    }


def put_in_force(network: nn.Module, rates: Mapping[str, float]) -> None:
    """Set rates that `rates_of` gave."""
    for name, rate in rates.items():
        module = network.get_submodule(name)
        assert isinstance(module, Drops)  # the network is the one that the rates were read from
        module.rate = rate


def stop_dropping(network: nn.Module) -> None:
    """Put all that drops in eval mode; the rest stays in the mode that it is in."""
    for module in network.modules():
        if isinstance(module, Drops):
            module.training = False
