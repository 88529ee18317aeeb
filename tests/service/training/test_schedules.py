"""Every registered schedule against torch's scheduler, step by step."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given
from tests.strategies import optimizations
from torch.optim import lr_scheduler

from dropnorm import spec as dn
from dropnorm_service.training import learning_rate
from dropnorm_service.training.schedules import SCHEDULES

LR = 0.3
EPOCHS = 12
STEPS_PER_EPOCH = 5
STEPS = EPOCHS * STEPS_PER_EPOCH

Scheduler = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def ours(schedule: dn.Schedule, warmup: dn.Warmup | None = None) -> list[float]:
    optimization = dn.Optimization(
        optimizer=dn.SGD(lr=LR), schedule=schedule, warmup=warmup, epochs=EPOCHS
    )
    return [
        learning_rate(optimization, step=step, steps_per_epoch=STEPS_PER_EPOCH)
        for step in range(STEPS)
    ]


def torchs(make: Scheduler, *, every: int = 1) -> list[float]:
    """The rate of each step under torch's scheduler, which moves after every so many steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = make(optimizer)
    rates = []
    for step in range(1, STEPS + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step % every == 0 and step < STEPS:
            scheduler.step()
    return rates


def test_every_kind_is_registered() -> None:
    kinds = {kind.model_fields["kind"].default for kind in get_args(get_args(dn.Schedule)[0])}
    assert set(SCHEDULES) == kinds


def test_constant() -> None:
    assert ours(dn.ConstantSchedule()) == [LR] * STEPS


def test_step_is_torchs_once_an_epoch() -> None:
    expected = torchs(lambda o: lr_scheduler.StepLR(o, 3, gamma=0.2), every=STEPS_PER_EPOCH)
    assert ours(dn.StepSchedule(step_size=3, gamma=0.2)) == pytest.approx(expected, rel=1e-12)


def test_cosine_is_torchs() -> None:
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS, eta_min=0.1 * LR))
    assert ours(dn.CosineSchedule(final_factor=0.1)) == pytest.approx(expected, rel=1e-9)


def test_a_shorter_cosine_stays_at_its_end() -> None:
    length = 4 * STEPS_PER_EPOCH
    rates = ours(dn.CosineSchedule(epochs=4, final_factor=0.1))
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, length, eta_min=0.1 * LR))
    assert rates[:length] == pytest.approx(expected[:length], rel=1e-9)
    assert rates[length:] == pytest.approx([0.1 * LR] * (STEPS - length))


@pytest.mark.parametrize(("rise", "start", "final"), [(0.3, 0.04, 4e-6), (0.51, 0.5, 0.1)])
def test_one_cycle_is_torchs(rise: float, start: float, final: float) -> None:
    schedule = dn.OneCycleSchedule(rise=rise, start_factor=start, final_factor=final)
    expected = torchs(
        lambda o: lr_scheduler.OneCycleLR(
            o,
            max_lr=LR,
            total_steps=STEPS,
            pct_start=rise,
            div_factor=1 / start,
            final_div_factor=start / final,
            cycle_momentum=False,
        )
    )
    assert ours(schedule) == pytest.approx(expected, rel=1e-9)


def test_one_cycle_too_short_to_rise_starts_at_its_peak() -> None:
    optimization = dn.Optimization(
        optimizer=dn.SGD(lr=LR), schedule=dn.OneCycleSchedule(final_factor=0.5), epochs=2
    )
    rates = [learning_rate(optimization, step=step, steps_per_epoch=1) for step in range(2)]
    assert rates == pytest.approx([LR, LR / 2])
    single = optimization.model_copy(update={"epochs": 1})
    assert learning_rate(single, step=0, steps_per_epoch=1) == LR


def test_warmup_is_torchs() -> None:
    expected = torchs(
        lambda o: lr_scheduler.LinearLR(
            o, start_factor=0.1, end_factor=1.0, total_iters=2 * STEPS_PER_EPOCH
        )
    )
    warmup = dn.Warmup(epochs=2, start_factor=0.1)
    assert ours(dn.ConstantSchedule(), warmup) == pytest.approx(expected, rel=1e-9)


def test_warmup_multiplies_any_schedule() -> None:
    warmup = dn.Warmup(epochs=2.5, start_factor=0.1)
    schedule = dn.CosineSchedule()
    rise = [factor / LR for factor in ours(dn.ConstantSchedule(), warmup)]
    assert rise[0] == pytest.approx(0.1)
    assert rise[12] < 1.0  # two and a half epochs are twelve and a half steps
    assert rise[13] == 1.0
    expected = [factor * rate for factor, rate in zip(rise, ours(schedule), strict=True)]
    assert ours(schedule, warmup) == pytest.approx(expected)


@given(optimizations())
def test_rates_are_finite_and_never_above_the_optimizers(optimization: dn.Optimization) -> None:
    for steps_per_epoch in (1, 3):
        last = optimization.epochs * steps_per_epoch - 1
        for step in {0, 1, last // 3, last // 2, last - 1, last}:
            rate = learning_rate(optimization, step=step, steps_per_epoch=steps_per_epoch)
            assert math.isfinite(rate)
            assert 0.0 <= rate <= optimization.optimizer.lr * (1 + 1e-12)
