"""The learning-rate range test (Smith 2017): a short training at rising rates, on a copy of the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import sqrt
from statistics import fmean

import torch
from torch import Tensor

from dropnorm.results import RangeTestPoint
from dropnorm.spec import AutoLearningRate, TrainingSpec
from dropnorm_service.training.augmentation import augmentation_of
from dropnorm_service.training.batching import Batching, derived_seed, epoch_order
from dropnorm_service.training.data import SplitData
from dropnorm_service.training.design import Design
from dropnorm_service.training.epochwise import Epochwise
from dropnorm_service.training.objectives import Objective
from dropnorm_service.training.state import TrainingState, trial
from dropnorm_service.training.step import Stepper

_PURPOSE = "range_test"
_SMOOTHING = 0.9
"""Decay of the mean of the loss, as Adam has it: without bias at the start."""
_LEAST_FALL = 0.01
"""Share of the loss that it must fall by."""
_LEAST_ERRORS = 5.0
"""Standard errors that it must fall by; of a hundred losses that are noise alone one in a thousand does."""
_DIVERGED = 4.0
"""Times the lowest smoothed loss, from where on the test says nothing any more."""


def range_test(
    spec: TrainingSpec,
    data: SplitData,
    paper: Design,
    state: TrainingState,
    objective: Objective,
    between_steps: Callable[[], None],
) -> tuple[RangeTestPoint, ...]:
    """Train a copy of a fresh state as in epoch 1, with one rate per step, and give each step's rate and loss.

    The state and torch's global random generators are afterwards as they were before. Batches and dropout come from
    generators seeded with `derived_seed(spec.seed, "range_test")`.

    Args:
        spec: with `auto_learning_rate`.
        data: its training split is trained on.
        paper: the network's layers.
        state: the start of the training.
        objective: gives the loss.
        between_steps: called after each step; may raise.
    """
    settings = spec.optimization.auto_learning_rate
    assert settings is not None
    device = data.device
    rates = _rates(settings, spec.optimization.optimizer.lr)
    losses = torch.zeros(len(rates), device=device)
    with state.other_random_numbers():
        torch.manual_seed(derived_seed(spec.seed, _PURPOSE))
        copy = trial(state, spec)
        step = Stepper(copy, objective, spec, augmentation_of(spec, data))
        Epochwise(copy.model, paper, spec).train(epoch=1)
        x, y = data.train.x, data.train.y
        for index, (rate, batch) in enumerate(zip(rates, _batches(spec, data), strict=False)):
            losses[index] = step(x.index_select(0, batch), y.index_select(0, batch), rate)
            between_steps()
    return tuple(
        RangeTestPoint(learning_rate=rate, loss=loss)
        for rate, loss in zip(rates, losses.tolist(), strict=True)
    )


def choose_rate(points: Sequence[RangeTestPoint]) -> float | None:
    """The first rate, behind the first fifth of the test, at which the smoothed loss has made half of its way down.

    Its way begins with the mean loss of the first fifth and ends with the lowest smoothed loss. Steeper places are
    noisier, and the lowest is at the edge of divergence.

    None: the loss does not fall, or by no more than the noise of batches explains, which the first fifth, where rates
    hardly matter, tells: one loss differs from the next there by noise alone.
    """
    smoothed = _smoothed(points)
    first = max(len(points) // 5, 2)
    if len(smoothed) <= first:
        return None
    losses = [point.loss for point in points[:first]]
    start, lowest = fmean(losses), min(smoothed)
    noise = sqrt(fmean((after - before) ** 2 for before, after in pairwise(losses)) / 2.0)
    # Of a difference between the mean of some losses and a smoothed one.
    error = noise * sqrt(1.0 / first + (1.0 - _SMOOTHING) / (1.0 + _SMOOTHING))
    if start - lowest <= max(_LEAST_FALL * abs(start), _LEAST_ERRORS * error):
        return None
    middle = (start + lowest) / 2.0
    return next(
        (
            point.learning_rate
            for point, value in zip(points[first:], smoothed[first:], strict=False)
            if value <= middle
        ),
        None,
    )


def _smoothed(points: Sequence[RangeTestPoint]) -> list[float]:
    """The smoothed loss of each step up to where it diverges."""
    smoothed: list[float] = []
    mean, lowest = 0.0, math.inf
    for count, point in enumerate(points, start=1):
        mean = _SMOOTHING * mean + (1.0 - _SMOOTHING) * point.loss
        value = mean / (1.0 - _SMOOTHING**count)
        if not math.isfinite(value) or (lowest > 0.0 and value > _DIVERGED * lowest):
            break
        smoothed.append(value)
        lowest = min(lowest, value)
    return smoothed


def _rates(settings: AutoLearningRate, lr: float) -> list[float]:
    """From the lowest to the highest rate, each by the same factor above the one before."""
    growth = settings.highest_factor / settings.lowest_factor
    last = settings.steps - 1
    return [lr * settings.lowest_factor * growth ** (step / last) for step in range(last + 1)]


def _batches(spec: TrainingSpec, data: SplitData) -> Iterator[Tensor]:
    """Full batches of the training split, in orders of their own, without end."""
    size = Batching.of(len(data.train), spec.optimization.batch_size).batch_size
    seed, epoch = derived_seed(spec.seed, _PURPOSE), 0
    while True:
        epoch += 1
        order = epoch_order(len(data.train), seed, epoch).to(data.device)
        yield from order[: len(order) // size * size].split(size)
