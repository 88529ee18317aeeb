"""Batches over a training: their sizes by epoch, accumulated parts, and the gradients that come of them."""

from typing import Any

import pytest
import torch
from tests.service.training.made import classification, of_kind, pairs, split_of, text
from tests.service.training.shorthand import mlp, summary
from tests.service.training.test_fit import order_of
from torch import nn
from torch.nn import functional as F

from dropnorm import spec as dn
from dropnorm.results import Payload, PlannedBatches, Progressed
from dropnorm_service.training import SplitData, build_model, fit, plan
from dropnorm_service.training.batching import Batching
from dropnorm_service.training.data.tokens import PAD
from dropnorm_service.training.masking import mask
from dropnorm_service.training.timetable import Timetable, batch_sizes, part_sizes

GROWTH = dn.BatchSizeGrowth(milestones=(2, 3))


def optimization(**parts: Any) -> dn.Optimization:
    return dn.Optimization(**{"epochs": 4, "batch_size": 20, **parts})


class TestBatchSizes:
    def test_steps(self) -> None:
        schedule = dn.BatchSizeSteps(milestones=(3, 5), sizes=(64, 16))
        assert batch_sizes(32, schedule) == {1: 32, 4: 64, 6: 16}

    def test_growth_is_rounded_and_ends_at_its_limit(self) -> None:
        schedule = dn.BatchSizeGrowth(milestones=(1, 2, 3), factor=1.5, max_size=25)
        assert batch_sizes(10, schedule) == {1: 10, 2: 15, 3: 22, 4: 25}

    def test_the_longest_growth_stays_within_the_split(self) -> None:
        schedule = dn.BatchSizeGrowth(milestones=tuple(range(1, 65)), factor=1000.0)
        found = Timetable.of(optimization(epochs=66, batch_size_schedule=schedule), 50)
        assert [each.batching.batch_size for each in found.stretches] == [20, 50]

    def test_none(self) -> None:
        assert batch_sizes(32, None) == {1: 32}


class TestTimetable:
    def test_steps_are_those_of_every_epoch(self) -> None:
        found = Timetable.of(optimization(batch_size_schedule=GROWTH), 101)
        sizes = {1: 20, 2: 20, 3: 40, 4: 80}
        counts = {epoch: -(-101 // size) for epoch, size in sizes.items()}
        assert {epoch: found.batching(epoch).batch_size for epoch in sizes} == sizes
        assert {epoch: found.batching(epoch).steps_per_epoch for epoch in sizes} == counts
        before = [sum(counts[each] for each in range(1, epoch)) for epoch in range(1, 6)]
        assert [found.steps_before(epoch) for epoch in range(1, 6)] == before
        assert found.steps == before[-1]

    def test_without_a_schedule_it_is_one_stretch(self) -> None:
        found = Timetable.of(optimization(epochs=100_000), 101)
        assert found.batchings == (Batching.of(101, 20),)
        assert found.steps == 600_000

    def test_a_plan_shows_it(self) -> None:
        spec = mlp(8, optimization=optimization(batch_size_schedule=GROWTH))
        found = plan(spec, summary(6, train=101))
        assert found.batches == (
            PlannedBatches(first_epoch=1, batch_size=20, steps_per_epoch=6, last_batch_size=1),
            PlannedBatches(first_epoch=3, batch_size=40, steps_per_epoch=3, last_batch_size=21),
            PlannedBatches(first_epoch=4, batch_size=80, steps_per_epoch=2, last_batch_size=21),
        )
        assert found.total_steps == 6 + 6 + 3 + 2
        assert (
            "17 steps: 4 epochs of 6 steps, 20 samples each, the last batch of an epoch has 1, from epoch 3 on "
            "3 steps, 40 samples each" in repr(found)
        )

    def test_memory_is_that_of_the_largest_part(self) -> None:
        def activations(**parts: Any) -> int:
            spec = mlp(8, optimization=optimization(**parts))
            return plan(spec, summary(6, train=1000)).memory.activations

        assert activations(batch_size_schedule=GROWTH) == activations(batch_size=80)
        assert activations(batch_size=80, micro_batch_size=20) == activations(batch_size=20)
        assert activations(batch_size=80, micro_batch_size=70) == activations(batch_size=40)


def trained(spec: dn.TrainingSpec, samples: int = 200) -> tuple[Any, SplitData, list[Payload]]:
    data, events = split_of(spec, classification(6, samples=samples)), list[Payload]()
    return fit(spec, data, on_event=events.append), data, events


def test_every_epoch_is_trained_with_its_batches_and_tells_of_them() -> None:
    spec = mlp(8, optimization=optimization(batch_size_schedule=GROWTH))
    result, data, events = trained(spec)
    timetable = Timetable.of(spec.optimization, len(data.train))
    history = result.evaluation.history
    assert [each.batch_size for each in history] == [20, 20, 40, 80]
    assert [each.step for each in history] == [
        timetable.steps_before(epoch) for epoch in (2, 3, 4, 5)
    ]
    last = of_kind(events, Progressed)[-1].progress
    assert last.steps == timetable.steps
    assert max(each.progress.step for each in of_kind(events, Progressed)) <= last.steps


def test_train_loss_is_the_mean_over_samples_of_batches_of_any_size() -> None:
    growth = dn.BatchSizeGrowth(milestones=(1,), factor=2.0)
    sgd = dn.SGD(lr=1e-12)  # so that the weights of one moment are those of all
    spec = mlp(8, optimization=optimization(epochs=2, optimizer=sgd, batch_size_schedule=growth))
    result, _, _ = trained(spec)
    for each in result.evaluation.history:
        assert each.train_loss == pytest.approx(result.evaluation.train.loss, rel=1e-5)


class TestAccumulation:
    @pytest.mark.parametrize(
        ("samples", "micro", "sizes"),
        [(20, 7, (6, 7)), (20, 20, (20, 20)), (20, None, (20, 20)), (9, 4, (3, 3)), (3, 5, (3, 3))],
    )
    def test_parts_are_as_equal_as_can_be(
        self, samples: int, micro: int | None, sizes: Any
    ) -> None:
        assert part_sizes(samples, micro) == sizes

    @pytest.mark.parametrize("micro", [1, 3, 7, 19])
    def test_it_is_the_step_of_the_whole_batch(self, micro: int) -> None:
        """A short last batch, of 10 of 160 samples in batches of 50, included."""
        weights = []
        for size in (None, micro):
            spec = mlp(
                8,
                optimization=optimization(batch_size=50, micro_batch_size=size, optimizer=dn.SGD()),
            )
            result, data, _ = trained(spec)
            assert len(data.train) % 50
            weights.append((result.evaluation.history, result.model))
        (whole, one), (parts, other) = weights
        for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
        for a, b in zip(whole, parts, strict=True):
            assert (a.step, a.batch_size) == (b.step, b.batch_size)
            assert a.train_loss == pytest.approx(b.train_loss, rel=1e-5)

    @pytest.mark.parametrize("smoothing", [None, 0.1])
    @pytest.mark.parametrize(
        "architecture",
        [
            dn.Transformer(width=8, heads=2, encoder_layers=1, decoder_layers=1, feed_forward=16),
            dn.Seq2Seq(width=8, embedding_width=8, layers=1),
            dn.RNNEncoderDecoder(width=8, embedding_width=8, maxout_units=8),
        ],
        ids=lambda each: each.kind,
    )
    def test_parts_count_by_their_tokens(
        self, architecture: dn.Architecture, smoothing: float | None
    ) -> None:
        ends = []
        for size in (None, 3):
            step = optimization(
                epochs=1, batch_size=50, micro_batch_size=size, optimizer=dn.SGD(lr=0.5)
            )
            spec = dn.TrainingSpec(
                architecture=architecture,
                optimization=step,
                regularization=dn.Regularization(label_smoothing=smoothing),
                data=dn.Data(dataset="made"),
            )
            ends.append(fit(spec, split_of(spec, pairs())))
        whole, parts = ends
        for mine, theirs in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
        losses = [each.evaluation.history[0].train_loss for each in ends]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    def test_parts_count_by_their_chosen_tokens(self) -> None:
        """Masks are drawn part by part; against a mean over all that is chosen of them."""
        step = optimization(epochs=1, batch_size=1000, micro_batch_size=7, optimizer=dn.SGD(lr=0.5))
        spec = dn.TrainingSpec(
            architecture=dn.BERT(width=8, heads=2, layers=1, feed_forward=16),
            optimization=step,
            data=dn.Data(dataset="made"),
        )
        data = split_of(spec, text())
        result = fit(spec, data)
        torch.manual_seed(spec.seed)
        sequences = data.summary.sequences
        assert sequences is not None
        model = build_model(spec, data.input_shape, 0, sequences).train()
        order = order_of(len(data.train), spec.seed, 1)
        sums, counts = [], []
        for part in order.tensor_split(-(-len(order) // 7)):
            masked = mask(data.train.x[part], sequences.vocabulary, torch.rand)
            logits, targets = model(masked.tokens, masked.chosen), masked.targets
            sums.append(
                F.cross_entropy(
                    logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum"
                )
            )
            counts.append((targets != PAD).sum())
        assert len(set(torch.stack(counts).tolist())) > 1
        (torch.stack(sums).sum() / torch.stack(counts).sum()).backward()
        torch.optim.SGD(model.parameters(), lr=0.5).step()
        for mine, theirs in zip(model.parameters(), result.model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)

    def test_batch_norm_sees_each_part_by_itself(self) -> None:
        norm = dn.Regularization(batch_norm=dn.BatchNorm())
        step = optimization(
            epochs=1, batch_size=1000, micro_batch_size=50, optimizer=dn.SGD(lr=0.1)
        )
        spec = mlp(8, optimization=step, regularization=norm)
        result, data, _ = trained(spec)
        torch.manual_seed(spec.seed)
        model = build_model(spec, (6,), 3).train()
        order = order_of(len(data.train), spec.seed, 1)
        for part in order.tensor_split(-(-len(order) // 50)):
            loss = F.cross_entropy(model(data.train.x[part]), data.train.y[part])
            (loss * len(part) / len(order)).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        expected = model.state_dict()
        for name, tensor in result.model.state_dict().items():
            torch.testing.assert_close(tensor, expected[name])


class TestClipping:
    @pytest.mark.parametrize(
        "clipping",
        [
            dn.GradientClipping(max_value=0.01),
            dn.GradientClipping(max_norm=0.05),
            dn.GradientClipping(max_value=0.01, max_norm=0.05),
        ],
        ids=str,
    )
    def test_values_are_cut_before_the_norm_is_scaled(self, clipping: dn.GradientClipping) -> None:
        sgd = dn.SGD(lr=0.1)
        step = optimization(epochs=1, batch_size=1000, gradient_clipping=clipping, optimizer=sgd)
        spec = mlp(8, optimization=step)
        result, data, _ = trained(spec)
        torch.manual_seed(spec.seed)
        model = build_model(spec, (6,), 3)
        order = order_of(len(data.train), spec.seed, 1)
        F.cross_entropy(model(data.train.x[order]), data.train.y[order]).backward()
        if clipping.max_value is not None:
            nn.utils.clip_grad_value_(model.parameters(), clipping.max_value)
        if clipping.max_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clipping.max_norm)
        for parameter, ours in zip(model.parameters(), result.model.parameters(), strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(ours.data, parameter.data - 0.1 * parameter.grad)


def test_a_plateau_lowers_the_rate_and_the_history_tells() -> None:
    schedule = dn.PlateauSchedule(gamma=0.5, patience=1, min_delta=1e6)  # nothing is such progress
    sgd = dn.SGD(lr=0.1)
    spec = mlp(8, optimization=optimization(epochs=4, schedule=schedule, optimizer=sgd))
    result, _, _ = trained(spec)
    rates = [each.learning_rate for each in result.evaluation.history]
    assert rates == [0.1, 0.1, 0.05, 0.025]
