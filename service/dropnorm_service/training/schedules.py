"""Learning rates, as pure functions of the step.

`lr(step) = optimizer.lr * warmup(step) * schedule(step)`, with steps counted from 0. Without state
a resumed training cannot disagree with an uninterrupted one; only the steps that `plateau` took are
handed in, from `Plateau`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from math import cos, pi, sqrt
from typing import Any, NamedTuple

from dropnorm.spec import (
    ConstantSchedule,
    CosineRestartsSchedule,
    CosineSchedule,
    ExponentialSchedule,
    InverseSqrtSchedule,
    MultiStepSchedule,
    OneCycleSchedule,
    Optimization,
    PlateauSchedule,
    PolynomialSchedule,
    StepSchedule,
    Warmup,
)
from dropnorm_service.training.timetable import Timetable


class Moment(NamedTuple):
    """A step on the two clocks that schedules go by.

    Attributes:
        step: optimizer steps done.
        steps: of the whole training.
        elapsed: epochs done, and the share done of the current one; epochs may differ in steps.
        epochs: of the whole training.
    """

    step: int
    steps: int
    elapsed: float
    epochs: int


def constant(schedule: ConstantSchedule | PlateauSchedule, now: Moment) -> float:
    """1 throughout."""
    return 1.0


def stepwise(schedule: StepSchedule, now: Moment) -> float:
    """`gamma ** (epoch // step_size)`, epochs from 0: torch's `StepLR`, stepped once an epoch."""
    return float(schedule.gamma ** (int(now.elapsed) // schedule.step_size))


def multi_step(schedule: MultiStepSchedule, now: Moment) -> float:
    """`gamma ** (milestones passed)`: torch's `MultiStepLR`, stepped once an epoch."""
    return float(schedule.gamma ** bisect_right(schedule.milestones, int(now.elapsed)))


def exponential(schedule: ExponentialSchedule, now: Moment) -> float:
    """`gamma ** epoch`, epochs from 0: torch's `ExponentialLR`, stepped once an epoch."""
    return float(schedule.gamma ** int(now.elapsed))


def polynomial(schedule: PolynomialSchedule, now: Moment) -> float:
    """`final + (1 - final) * (1 - elapsed / length) ** power`, then `final`.

    With a final factor of 0 torch's `PolynomialLR` with the length in steps as `total_iters`.
    """
    left = 1.0 - min(now.elapsed / (schedule.epochs or now.epochs), 1.0)
    return schedule.final_factor + (1.0 - schedule.final_factor) * float(left**schedule.power)


def cosine(schedule: CosineSchedule, now: Moment) -> float:
    """`final + (1 - final) * (1 + cos(pi * elapsed / length)) / 2`, then `final`.

    Up to its length it is torch's `CosineAnnealingLR` with the length in steps as `T_max`
    (Loshchilov & Hutter 2016).
    """
    length = schedule.epochs or now.epochs
    return _half_cosine(1.0, schedule.final_factor, min(now.elapsed / length, 1.0))


def cosine_restarts(schedule: CosineRestartsSchedule, now: Moment) -> float:
    """Half a cosine from 1 to `final` over `first_epochs`, again over `growth` times as many, and so on.

    Torch's `CosineAnnealingWarmRestarts` (Loshchilov & Hutter 2016), stepped by fractions of an epoch.
    """
    length, since = schedule.first_epochs, now.elapsed
    if schedule.growth == 1:
        since %= length
    while since >= length:
        since -= length
        length *= schedule.growth
    return _half_cosine(1.0, schedule.final_factor, since / length)


def one_cycle(schedule: OneCycleSchedule, now: Moment) -> float:
    """Half a cosine up from `start` to 1 by step `rise * steps - 1`, another down to `final`.

    Torch's `OneCycleLR` (Smith & Topin 2017) with `div_factor = 1 / start` and
    `final_div_factor = start / final`. A training too short to rise starts at its peak.
    """
    peak, last = schedule.rise * now.steps - 1.0, now.steps - 1
    if now.step < peak:
        return _half_cosine(schedule.start_factor, 1.0, now.step / peak)
    peak = max(peak, 0.0)
    return _half_cosine(1.0, schedule.final_factor, (now.step - peak) / max(last - peak, 1.0))


def inverse_sqrt(schedule: InverseSqrtSchedule, now: Moment) -> float:
    """`min(n / warmup, sqrt(warmup / n))`, steps n from 1: Vaswani et al. (2017), equation 3, over its peak."""
    share = (now.step + 1) / schedule.warmup_steps
    return min(share, 1.0 / sqrt(share))


SCHEDULES: Mapping[str, Callable[[Any, Moment], float]] = {
    "constant": constant,
    "step": stepwise,
    "multi_step": multi_step,
    "exponential": exponential,
    "polynomial": polynomial,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "inverse_sqrt": inverse_sqrt,
    "plateau": constant,
}
"""Kind in the spec -> the schedule's factor at a step."""


def warmup_factor(warmup: Warmup | None, now: Moment) -> float:
    """`start + (1 - start) * elapsed / epochs` up to its epochs, then 1: torch's `LinearLR`; none: 1."""
    if warmup is None:
        return 1.0
    return warmup.start_factor + (1.0 - warmup.start_factor) * min(now.elapsed / warmup.epochs, 1.0)


def learning_rates(
    optimization: Optimization, timetable: Timetable, epoch: int, *, factor: float = 1.0
) -> list[float]:
    """The learning rate of each optimizer step of an epoch.

    Args:
        optimization: optimizer, schedule, warm-up and number of epochs.
        timetable: the steps of every epoch.
        epoch: from 1.
        factor: on all of them; what `plateau` came to.
    """
    schedule, warmup = optimization.schedule, optimization.warmup
    first, steps = timetable.steps_before(epoch), timetable.batching(epoch).steps_per_epoch
    lr = optimization.optimizer.lr * factor * _scaling(optimization, timetable, epoch)
    shape, total, rates = SCHEDULES[schedule.kind], timetable.steps, []
    for index in range(steps):
        now = Moment(first + index, total, epoch - 1 + index / steps, optimization.epochs)
        rates.append(lr * warmup_factor(warmup, now) * shape(schedule, now))
    return rates


def _scaling(optimization: Optimization, timetable: Timetable, epoch: int) -> float:
    """What the growth of batches does to the rate."""
    schedule = optimization.batch_size_schedule
    if schedule is None or schedule.lr_scaling == "none":
        return 1.0
    growth = timetable.batching(epoch).batch_size / timetable.batching(1).batch_size
    return growth if schedule.lr_scaling == "linear" else sqrt(growth)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1.0 + cos(pi * share)) / 2.0
