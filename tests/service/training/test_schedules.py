"""Every registered schedule against torch's scheduler, step by step."""

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from tests.strategies import optimizations
from torch.optim import lr_scheduler

from dropnorm import spec as dn
from dropnorm_service.training import learning_rates
from dropnorm_service.training.plateau import Plateau
from dropnorm_service.training.schedules import SCHEDULES
from dropnorm_service.training.timetable import Timetable

LR = 0.3
EPOCHS = 12
STEPS_PER_EPOCH = 5
STEPS = EPOCHS * STEPS_PER_EPOCH

Scheduler = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


def rates_of(optimization: dn.Optimization, steps_per_epoch: int = STEPS_PER_EPOCH) -> list[float]:
    timetable = Timetable.of(optimization, optimization.batch_size * steps_per_epoch)
    return [
        rate
        for epoch in range(1, optimization.epochs + 1)
        for rate in learning_rates(optimization, timetable, epoch)
    ]


def ours(schedule: dn.Schedule, warmup: dn.Warmup | None = None) -> list[float]:
    return rates_of(
        dn.Optimization(
            optimizer=dn.SGD(lr=LR), schedule=schedule, warmup=warmup, epochs=EPOCHS, batch_size=8
        )
    )


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
    assert rates_of(optimization, 1) == pytest.approx([LR, LR / 2])
    assert rates_of(optimization.model_copy(update={"epochs": 1}), 1) == [LR]


def test_multi_step_is_torchs_once_an_epoch() -> None:
    expected = torchs(
        lambda o: lr_scheduler.MultiStepLR(o, [2, 3, 9], gamma=0.3), every=STEPS_PER_EPOCH
    )
    schedule = dn.MultiStepSchedule(milestones=(2, 3, 9), gamma=0.3)
    assert ours(schedule) == pytest.approx(expected, rel=1e-12)


def test_exponential_is_torchs_once_an_epoch() -> None:
    expected = torchs(lambda o: lr_scheduler.ExponentialLR(o, 0.8), every=STEPS_PER_EPOCH)
    assert ours(dn.ExponentialSchedule(gamma=0.8)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial_is_torchs(power: float) -> None:
    expected = torchs(lambda o: lr_scheduler.PolynomialLR(o, 7 * STEPS_PER_EPOCH, power))
    schedule = dn.PolynomialSchedule(epochs=7, power=power)
    assert ours(schedule) == pytest.approx(expected, rel=1e-9)
    ended = ours(schedule.model_copy(update={"final_factor": 0.25}))
    assert ended == pytest.approx([0.25 * LR + 0.75 * rate for rate in expected])


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_cosine_restarts_are_torchs(growth: int) -> None:
    expected = torchs(
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(
            o, 2 * STEPS_PER_EPOCH, growth, eta_min=0.1 * LR
        )
    )
    schedule = dn.CosineRestartsSchedule(first_epochs=2, growth=growth, final_factor=0.1)
    assert ours(schedule) == pytest.approx(expected, rel=1e-9)


def test_inverse_sqrt_is_vaswanis() -> None:
    model, warmup = 512, 17
    lr = (model * warmup) ** -0.5
    paper = [
        model**-0.5 * min(step**-0.5, step * warmup**-1.5)  # equation 3
        for step in range(1, STEPS + 1)
    ]
    rates = ours(dn.InverseSqrtSchedule(warmup_steps=warmup))
    assert [rate / LR * lr for rate in rates] == pytest.approx(paper, rel=1e-12)
    assert max(rates) == rates[warmup - 1] == LR


class TestPlateau:
    @pytest.mark.parametrize("cooldown", [0, 2])
    @pytest.mark.parametrize("patience", [1, 2, 4])
    @pytest.mark.parametrize("min_delta", [0.0, 0.2])
    def test_it_is_torchs(self, patience: int, cooldown: int, min_delta: float) -> None:
        schedule = dn.PlateauSchedule(
            gamma=0.5, patience=patience, cooldown=cooldown, min_delta=min_delta, final_factor=0.01
        )
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=LR)
        theirs = lr_scheduler.ReduceLROnPlateau(
            optimizer,
            factor=0.5,
            patience=patience - 1,
            threshold=min_delta,
            threshold_mode="abs",
            cooldown=cooldown,
            min_lr=0.01 * LR,
            eps=0.0,
        )
        plateau = Plateau()
        generator = torch.Generator().manual_seed(patience + cooldown)
        losses = torch.rand(60, generator=generator).tolist()
        for loss in losses:
            plateau.offer(schedule, -loss)
            theirs.step(loss)
            assert LR * plateau.factor == pytest.approx(optimizer.param_groups[0]["lr"])
        assert plateau.factor < 0.5

    def test_other_schedules_do_not_mind(self) -> None:
        plateau = Plateau()
        for _ in range(9):
            plateau.offer(dn.ConstantSchedule(), 0.0)
        assert plateau == Plateau()

    def test_its_factor_is_on_every_rate(self) -> None:
        optimization = dn.Optimization(optimizer=dn.SGD(lr=LR), schedule=dn.PlateauSchedule())
        timetable = Timetable.of(optimization, 300)
        assert learning_rates(optimization, timetable, 5, factor=0.1) == [LR * 0.1] * 3


class TestBatchSizeSchedule:
    """96 samples: 12 steps of 8, then 6 of 16, then 3 of 32."""

    @staticmethod
    def rates(schedule: dn.Schedule, scaling: Any = "none") -> list[list[float]]:
        optimization = dn.Optimization(
            optimizer=dn.SGD(lr=LR),
            schedule=schedule,
            epochs=4,
            batch_size=8,
            batch_size_schedule=dn.BatchSizeGrowth(milestones=(1, 2), lr_scaling=scaling),
        )
        timetable = Timetable.of(optimization, 96)
        return [learning_rates(optimization, timetable, epoch) for epoch in (1, 2, 3, 4)]

    def test_schedules_by_epochs_go_by_the_share_of_the_epoch(self) -> None:
        found = self.rates(dn.PolynomialSchedule())
        assert [len(rates) for rates in found] == [12, 6, 3, 3]
        assert [rates[0] / LR for rates in found] == pytest.approx([1.0, 0.75, 0.5, 0.25])
        assert found[2][1] / LR == pytest.approx(0.5 - 0.25 / 3)

    def test_schedules_by_steps_go_by_the_steps_that_there_are(self) -> None:
        found = self.rates(dn.OneCycleSchedule(final_factor=0.01))
        flat = [rate for rates in found for rate in rates]
        assert flat[-1] == pytest.approx(0.01 * LR)
        assert flat.index(max(flat)) == 6  # 0.3 of 24 steps, the first being step 0

    @pytest.mark.parametrize(
        ("scaling", "factors"),
        [("none", [1, 1, 1]), ("linear", [1, 2, 4]), ("square_root", [1, 2**0.5, 2])],
    )
    def test_the_rate_may_grow_with_the_batch(self, scaling: str, factors: list[float]) -> None:
        found = self.rates(dn.ConstantSchedule(), scaling)
        expected = [
            [LR * factor] * len(rates) for factor, rates in zip(factors, found, strict=False)
        ]
        assert found[:3] == [pytest.approx(rates) for rates in expected]


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
    sizes = optimization.batch_size_schedule
    grows = sizes is not None and sizes.lr_scaling != "none"
    for samples in (1, 100):
        timetable = Timetable.of(optimization, samples)
        for epoch in {1, 2, optimization.epochs // 2, optimization.epochs}:
            for rate in learning_rates(optimization, timetable, epoch):
                assert math.isfinite(rate)
                growth = samples if grows else 1.0
                assert 0.0 <= rate <= optimization.optimizer.lr * growth * (1 + 1e-12)
