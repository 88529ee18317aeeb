"""Automatic values: the batch size is the largest that fits, the learning rate where the loss falls."""

import math
from itertools import pairwise

import pytest
import torch
from tests.service.training.made import classification, of_kind, split_of
from tests.service.training.resumption_cases import DROPOUT_SCHEDULES
from tests.service.training.shorthand import mlp, problems, summary
from tests.service.training.test_fit import numbers

from dropnorm import spec as dn
from dropnorm.results import LogLine, Payload, Progressed, RangeTestPoint, Warned
from dropnorm_service.training import FitResult, SplitData, check, fit, plan, with_batch_size
from dropnorm_service.training.dropout_rates import rates_of
from dropnorm_service.training.memory import StepMemory
from dropnorm_service.training.range_test import choose_rate

BOTH = dn.Regularization(dropout=dn.Dropout(rate=0.2), batch_norm=dn.BatchNorm())
RANGE = dn.AutoLearningRate(steps=40)


def asked(epochs: int = 2, batch_size: int = 24, **parts: object) -> dn.TrainingSpec:
    step = dn.Optimization.model_validate({"epochs": epochs, "batch_size": batch_size} | parts)
    return mlp(64, optimization=step, regularization=BOTH, seed=4)


def trained(spec: dn.TrainingSpec, limit: int | None = None) -> tuple[FitResult, list[Payload]]:
    data, events = split_of(spec, classification(6)), list[Payload]()
    return fit(spec, data, on_event=events.append, memory_limit_bytes=limit), events


class TestBatchSize:
    data = summary(6, train=5000)

    def found(self, limit: int | None, **parts: object) -> int:
        spec = asked(auto_batch_size=parts or dn.AutoBatchSize())
        found, _ = with_batch_size(spec, self.data, limit)
        return found.optimization.batch_size

    def needed(self, size: int) -> int:
        spec = asked()
        return StepMemory(spec, check(spec, self.data), self.data).of(size).total

    @pytest.mark.parametrize("size", [3, 6, 12, 24, 48, 96, 1536])
    def test_it_is_the_largest_that_fits(self, size: int) -> None:
        limit = math.ceil(self.needed(size) / 0.5)
        assert self.found(limit, memory_share=0.5) == size
        assert self.found(limit - 2, memory_share=0.5) == max(size // 2, 3)

    def test_there_are_always_two_samples(self) -> None:
        spec = asked(batch_size=1, auto_batch_size=dn.AutoBatchSize())
        assert with_batch_size(spec, self.data, 1)[0].optimization.batch_size == 2

    def test_limits_besides_memory(self) -> None:
        assert self.found(None) == 3072
        assert self.found(2**60, max_size=3071) == 1536
        assert self.found(2**60, max_size=2**20) == 3072  # of 5000 samples
        assert self.found(2**60, max_size=10) == 6

    def test_what_is_not_asked_for_stays(self) -> None:
        spec = asked()
        assert with_batch_size(spec, self.data, 1)[0] is spec

    def refused(self, samples: int, batch_size: int = 24, **parts: object) -> dict[str, str]:
        spec = asked(batch_size=batch_size, auto_batch_size=parts or dn.AutoBatchSize())
        with pytest.raises(dn.InvalidSpecError) as raised:
            with_batch_size(spec, summary(6, train=samples), None)
        return problems(raised.value)

    def test_it_is_one_that_batch_norm_can_take(self) -> None:
        """Batches of 44, 22 and 11 would leave one of 45 samples."""
        spec = asked(batch_size=22, auto_batch_size=dn.AutoBatchSize())
        found, _ = with_batch_size(spec, summary(6, train=45), None)
        assert found.optimization.batch_size == 5

    def test_without_one_the_automatic_size_is_blamed(self) -> None:
        (field, text), *others = self.refused(65, batch_size=128).items()
        assert (field, others) == ("optimization.auto_batch_size", [])
        assert "65 training samples in batches of 64 leave a last batch of one" in text

    def test_a_limit_below_what_batch_norm_takes_is_blamed(self) -> None:
        assert list(self.refused(66, max_size=1)) == ["optimization.auto_batch_size.max_size"]

    def test_plan_and_training_come_to_the_same(self) -> None:
        spec = asked(auto_batch_size=dn.AutoBatchSize(memory_share=0.5))
        data: SplitData = split_of(spec, classification(6))
        paper = check(spec, data.summary)
        limit = 2 * StepMemory(spec, paper, data.summary).of(48).total
        planned = plan(spec, data.summary, memory_limit_bytes=limit)
        result, events = trained(spec, limit)
        assert planned.batches[0].batch_size == 48
        assert planned.memory.total == limit // 2
        assert planned.spec == spec
        assert result.evaluation.auto is not None
        assert result.evaluation.auto.batch_size == 48
        assert [each.batch_size for each in result.evaluation.history] == [48, 48]
        assert result.evaluation.history[-1].step == planned.total_steps
        progress = of_kind(events, Progressed)
        assert {each.progress.steps for each in progress} == {planned.total_steps}
        assert any("batch size 48" in line.message for line in of_kind(events, LogLine))

    def test_it_trains_as_if_the_size_had_been_given(self) -> None:
        result, _ = trained(asked(auto_batch_size=dn.AutoBatchSize(max_size=48)))
        given, _ = trained(asked(batch_size=48))
        assert numbers(result) == numbers(given)

    def test_a_step_that_never_fits_is_refused(self) -> None:
        spec = asked(auto_batch_size=dn.AutoBatchSize()).model_copy(
            update={"regularization": dn.Regularization()}
        )
        with pytest.raises(dn.InvalidSpecError, match="a training step would take about"):
            plan(spec, self.data, memory_limit_bytes=1000)


class TestLearningRate:
    def test_it_trains_as_if_the_rate_had_been_given(self) -> None:
        """The test leaves no trace in weights, statistics, optimizer and random numbers."""
        result, events = trained(asked(auto_learning_rate=RANGE))
        auto = result.evaluation.auto
        assert auto is not None
        assert auto.learning_rate is not None
        given, _ = trained(asked(optimizer=dn.Adam(lr=auto.learning_rate)))
        assert numbers(result) == numbers(given)
        assert given.evaluation.auto is None
        assert result.evaluation.history[0].learning_rate == auto.learning_rate
        assert [each.progress.phase for each in of_kind(events, Progressed)][:2] == [
            "building",
            "tuning",
        ]
        assert any("range test" in line.message for line in of_kind(events, LogLine))

    @pytest.mark.parametrize("rescaling", ["inverted", "at_inference"])
    @pytest.mark.parametrize("schedule", DROPOUT_SCHEDULES, ids=lambda each: each.kind)
    def test_the_rates_of_dropout_are_as_if_it_had_been_given(
        self, schedule: dn.DropoutSchedule, rescaling: str
    ) -> None:
        """The test takes those of epoch 1 as they are, and what is judged later has those of its own epoch."""
        dropout = {"rate": 0.5, "schedule": schedule, "rescaling": rescaling}
        parts = {
            "regularization": BOTH.model_copy(
                update={"dropout": dn.Dropout.model_validate(dropout)}
            ),
            "evaluation": dn.EvaluationSettings(mc_dropout_passes=3),
        }
        result, _ = trained(asked(epochs=3, auto_learning_rate=RANGE).model_copy(update=parts))
        auto = result.evaluation.auto
        assert auto is not None
        assert auto.learning_rate is not None
        found = dn.Adam(lr=auto.learning_rate)
        given, _ = trained(asked(epochs=3, optimizer=found).model_copy(update=parts))
        assert rates_of(result.model) == rates_of(given.model)
        assert result.evaluation.mc_dropout == given.evaluation.mc_dropout
        assert numbers(result) == numbers(given)

    def test_rates_rise_by_one_factor_around_the_optimizers(self) -> None:
        result, _ = trained(asked(optimizer=dn.SGD(lr=0.5), auto_learning_rate=RANGE))
        assert result.evaluation.auto is not None
        points = result.evaluation.auto.range_test
        rates = [point.learning_rate for point in points]
        assert rates[0] == pytest.approx(5e-4)
        assert rates[-1] == pytest.approx(500.0)
        growth = [later / earlier for earlier, later in pairwise(rates)]
        assert growth == [pytest.approx(growth[0])] * 39
        assert points[0].loss == pytest.approx(math.log(3), abs=0.5)

    def test_each_of_its_steps_is_told_of_though_progress_counts_none(self) -> None:
        spec, steps = asked(auto_learning_rate=RANGE), 0

        def count() -> None:
            nonlocal steps
            steps += 1

        fit(spec, split_of(spec, classification(6)), on_uncounted_step=count)
        assert steps == RANGE.steps

    def test_it_is_the_same_every_time(self) -> None:
        first, again = (trained(asked(epochs=1, auto_learning_rate=RANGE)) for _ in range(2))
        assert first[0].evaluation.auto == again[0].evaluation.auto

    @pytest.mark.parametrize(
        "optimizer", [dn.SGD(lr=1e-4), dn.Adam(lr=1.0)], ids=lambda each: each.kind
    )
    def test_it_learns_where_a_bad_rate_does_not(self, optimizer: dn.Optimizer) -> None:
        bad, _ = trained(asked(epochs=5, optimizer=optimizer))
        good, _ = trained(
            asked(epochs=5, optimizer=optimizer, auto_learning_rate=dn.AutoLearningRate())
        )
        losses = [each.evaluation.validation.loss for each in (good, bad)]
        assert losses[0] < 0.9 * losses[1]

    def test_without_a_fall_the_optimizers_own_rate_stays_and_a_warning_tells(self) -> None:
        still = dn.SGD(lr=1e-12)
        spec = asked(batch_size=1000, optimizer=still, auto_learning_rate=RANGE)
        result, events = trained(spec.model_copy(update={"regularization": dn.Regularization()}))
        assert result.evaluation.auto is not None
        assert result.evaluation.auto.learning_rate is None
        assert result.evaluation.history[0].learning_rate == still.lr
        (warning,) = of_kind(events, Warned)
        assert (warning.code, warning.field) == (
            "NO_LEARNING_RATE_FOUND",
            "optimization.auto_learning_rate",
        )

    @pytest.mark.parametrize("seed", range(4))
    def test_batches_that_differ_are_no_fall(self, seed: int) -> None:
        still = dn.SGD(lr=1e-9)
        auto = dn.Optimization(
            epochs=1, batch_size=32, optimizer=still, auto_learning_rate=dn.AutoLearningRate()
        )
        spec = mlp(8, optimization=auto, seed=seed)
        result = fit(spec, split_of(spec, classification(6, samples=1000)))
        assert result.evaluation.auto is not None
        assert result.evaluation.auto.learning_rate is None
        assert result.evaluation.history[0].learning_rate == still.lr

    def test_seeds_agree_on_the_rate(self) -> None:
        rates = []
        for seed in range(4):
            auto = dn.Optimization(
                epochs=1,
                batch_size=32,
                optimizer=dn.SGD(lr=0.01),
                auto_learning_rate=dn.AutoLearningRate(),
            )
            spec = mlp(8, optimization=auto, seed=seed)
            found = fit(spec, split_of(spec, classification(6, samples=1000))).evaluation.auto
            assert found is not None
            assert found.learning_rate is not None
            rates.append(found.learning_rate)
        assert max(rates) < 3.0 * min(rates)

    def test_a_game_has_no_loss_that_falls(self) -> None:
        spec = dn.TrainingSpec(
            architecture=dn.GAN(),
            data=dn.Data(dataset="digits"),
            optimization=dn.Optimization(auto_learning_rate=RANGE),
        )
        with pytest.raises(dn.InvalidSpecError, match="do not fall"):
            check(spec, summary(1, 16, 16, task="generation"))


def test_a_plan_tells_of_the_range_test() -> None:
    found = plan(asked(auto_learning_rate=dn.AutoLearningRate()), summary(6))
    assert "learning rate to be found by 100 steps from 1e-06 to 1" in repr(found)


class TestChoice:
    @staticmethod
    def choice(losses: list[float]) -> float | None:
        return choose_rate(
            [RangeTestPoint(learning_rate=10.0**n, loss=loss) for n, loss in enumerate(losses)]
        )

    def test_half_of_the_way_down(self) -> None:
        """By hand: the losses that smooth to 2, 2, 1.6, 1.3, 1, 1.2 at a decay of 0.9."""
        wanted = [2.0, 2.0, 1.6, 1.3, 1.0, 1.2]
        weights = [1.0 - 0.9**count for count in range(1, 7)]
        means = [value * weight for value, weight in zip(wanted, weights, strict=True)]
        before = [0.0, *means[:-1]]
        losses = [(mean - 0.9 * last) / 0.1 for mean, last in zip(means, before, strict=True)]
        assert self.choice(losses) == 10.0**3

    def test_what_comes_after_divergence_does_not_count(self) -> None:
        falling = [2.0 - 0.1 * count for count in range(15)]
        found = self.choice(falling)
        assert found is not None
        assert self.choice([*falling, 1e6, -1e9]) == self.choice([*falling, math.nan, 0.0]) == found

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("steps", [20, 100])
    def test_noise_is_no_fall(self, steps: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        losses = 1.1 + 0.1 * torch.randn(steps, generator=generator)
        assert self.choice(losses.tolist()) is None
        falling = losses.clone()
        falling[steps // 2 :] -= 1.0
        assert self.choice(falling.tolist()) is not None

    @pytest.mark.parametrize(
        "losses", [[1.0] * 30, [float(n) for n in range(1, 30)], [math.nan] * 9]
    )
    def test_no_fall_no_rate(self, losses: list[float]) -> None:
        assert self.choice(losses) is None
