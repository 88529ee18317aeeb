"""Learning rates, as pure functions of the step.

`lr(step) = optimizer.lr * warmup(step) * schedule(step)`, with steps counted from 0. Without state
a resumed training cannot disagree with an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi
from typing import Any

from dropnorm.spec import (
    ConstantSchedule,
    CosineSchedule,
    OneCycleSchedule,
    Optimization,
    StepSchedule,
    Warmup,
)


@dataclass(frozen=True)
class Span:
    """The length of a training: `epochs` of `steps_per_epoch` optimizer steps each."""

    epochs: int
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.epochs * self.steps_per_epoch


def constant(schedule: ConstantSchedule, span: Span, step: int) -> float:
    """1 throughout."""
    return 1.0


def stepwise(schedule: StepSchedule, span: Span, step: int) -> float:
    """`gamma ** (epoch // step_size)`, epochs from 0: torch's `StepLR`, stepped once an epoch."""
    return schedule.gamma ** (step // span.steps_per_epoch // schedule.step_size)


def cosine(schedule: CosineSchedule, span: Span, step: int) -> float:
    """`final + (1 - final) * (1 + cos(pi * step / length)) / 2`, then `final`.

    Up to `length`, the schedule's epochs in steps, it is torch's `CosineAnnealingLR` with that as
    `T_max` (Loshchilov & Hutter 2016).
    """
    length = (schedule.epochs or span.epochs) * span.steps_per_epoch
    return _half_cosine(1.0, schedule.final_factor, min(step / length, 1.0))


def one_cycle(schedule: OneCycleSchedule, span: Span, step: int) -> float:
    """Half a cosine up from `start` to 1 by step `rise * steps - 1`, another down to `final`.

    Torch's `OneCycleLR` (Smith & Topin 2017) with `div_factor = 1 / start` and
    `final_div_factor = start / final`. A training too short to rise starts at its peak.
    """
    peak, last = schedule.rise * span.steps - 1.0, span.steps - 1
    if step < peak:
        return _half_cosine(schedule.start_factor, 1.0, step / peak)
    peak = max(peak, 0.0)
    return _half_cosine(1.0, schedule.final_factor, (step - peak) / max(last - peak, 1.0))


SCHEDULES: Mapping[str, Callable[[Any, Span, int], float]] = {
    "constant": constant,
    "step": stepwise,
    "cosine": cosine,
    "one_cycle": one_cycle,
}
"""Kind in the spec -> the schedule's factor at a step."""


def warmup_factor(warmup: Warmup | None, span: Span, step: int) -> float:
    """`start + (1 - start) * step / length` up to `length`, then 1: torch's `LinearLR`; none: 1.

    `length` is the warm-up's epochs in steps, not necessarily a whole number.
    """
    if warmup is None:
        return 1.0
    risen = min(step / (warmup.epochs * span.steps_per_epoch), 1.0)
    return warmup.start_factor + (1.0 - warmup.start_factor) * risen


def learning_rate(optimization: Optimization, *, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one optimizer step.

    Args:
        optimization: optimizer, schedule, warm-up and number of epochs.
        step: number of the step since the start of the training, from 0.
        steps_per_epoch: optimizer steps per epoch, as `Batching` counts them.
    """
    span = Span(optimization.epochs, steps_per_epoch)
    factor = SCHEDULES[optimization.schedule.kind](optimization.schedule, span, step)
    return optimization.optimizer.lr * warmup_factor(optimization.warmup, span, step) * factor


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1.0 + cos(pi * share)) / 2.0
